"""The values of a JSON file, one record each: JSON lines, an array, or one object over many lines.

Every value comes with its location ("file: line n", "file: record n"), which errors name.
"""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.text_blocks import MAX_RECORD_BYTES, numbered_rows
from fastbert.system.errors import InputError


def json_values(stream: ByteStream) -> Iterator[tuple[str, Any]]:
    """Yield ``(where, value)`` for one JSON value per line, or for each element of a JSON array.

    Raises:
        InputError: malformed JSON, with the line or record.
    """
    rows = numbered_rows(stream)
    begin = [row for _, row in zip(range(2), rows, strict=False)]
    if not begin:
        return
    name, lines = stream.name, chain(begin, rows)
    first = begin[0][1].strip()
    # lists in lines of their own are records, not an array that the second line continues
    lists = len(begin) == 2 and first.endswith("]") and begin[1][1].lstrip().startswith("[")
    if first.startswith("[") and not lists:
        yield from _array_values(name, (row for _, row in lines))
    elif first == "{":  # one object over many lines: SQuAD's own layout
        yield name, _parsed("\n".join(row for _, row in lines), name)
    else:
        for number, row in lines:
            where = f"{name}: line {number}"
            yield where, _parsed(row, where)


def _array_values(name: str, rows: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield the values of an array, streamed: only the current one is in memory."""
    decoder = json.JSONDecoder()
    buffer = next(rows).lstrip()[1:]
    number, more, separated = 1, True, True
    while True:
        buffer = buffer.lstrip()
        if buffer.startswith("]"):
            break
        where = f"{name}: record {number}"
        if separated and buffer:
            try:
                value, end = decoder.raw_decode(buffer)
            except (ValueError, RecursionError) as error:
                if not more or isinstance(error, RecursionError) or len(buffer) > MAX_RECORD_BYTES:
                    raise _not_json(error, where) from None
            else:
                yield where, _checked(value, buffer[:end], where)
                buffer, number, separated = buffer[end:].lstrip(), number + 1, False
                if buffer[:1] not in ("", ",", "]"):
                    raise InputError(f"{name}: after record {number - 1}: expected ',' or ']'. Try: repair the JSON")
                continue
        elif buffer.startswith(","):
            buffer, separated = buffer[1:], True
            continue
        if not more:
            raise InputError(f"{name}: the array is not closed after record {number - 1}. Try: get the file again")
        added: list[str] = []
        size = 0
        for row in rows:  # doubling, so that long records are not parsed again for every row
            added.append(row)
            size += len(row)
            if size >= len(buffer):
                break
        more = bool(added)
        buffer = "\n".join([buffer, *added])
    if buffer[1:].strip() or any(True for _ in rows):
        raise InputError(f"{name}: more text after the end of the array. Try: one array, or one object per line")


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(error, where) from None
    return _checked(value, text, where)


def _not_json(error: Exception, where: str) -> InputError:
    reason = " ".join(str(error).split())
    if isinstance(error, json.JSONDecodeError) and error.lineno == 1:  # relative to this line
        reason = f"{error.msg} at character {error.pos + 1}"
    return InputError(f"{where}: is not valid JSON ({reason}). Try: one object per line, as in JSON lines files")


def _checked(value: Any, text: str, where: str) -> Any:
    """JSON can contain half of a surrogate pair, such as "\\ud800"."""
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: contains half of a surrogate pair, not Unicode text. Try: repair it") from None
    return value
