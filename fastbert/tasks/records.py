"""Records of a file (JSON lines, CSV, TSV, SQuAD's JSON), each with the place an error should name."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.formats import MAX_FIELD_CHARS
from fastbert.data.corpus.sources import Source, find_sources
from fastbert.data.corpus.text_blocks import text_blocks
from fastbert.system.errors import InputError

Record = dict[str, Any]
_DELIMITERS = {"csv": ",", "tsv": "\t"}
KINDS = "JSON lines (.jsonl), CSV (.csv, .tsv)"


def read_records(path: str) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, record)`` of every record; ``where`` is "file: line n".

    Raises:
        InputError: no such file, not UTF-8, malformed JSON or CSV, naming the line; or a file without records.
    """
    found = False
    for source in find_sources([path]):
        with ByteStream(source.open, source.name, source.compression) as stream:
            for where, record in _records(source, stream):
                found = True
                yield where, record
    if not found:
        raise InputError(f"{path}: holds no record: write one a line, as {KINDS}")


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield ``(where, line)`` of every line of a text file that is not blank."""
    for source in find_sources([path]):
        with ByteStream(source.open, source.name, source.compression) as stream:
            for number, row in _rows(stream):
                yield f"{source.name}: line {number}", row


def is_table(path: str) -> bool:
    """Whether a file's ending names records (and not plain text)."""
    return all(source.format in ("jsonl", "csv", "tsv") for source in find_sources([path]))


def _records(source: Source, stream: ByteStream) -> Iterator[tuple[str, Record]]:
    if source.format in _DELIMITERS:
        yield from _csv_records(stream, _DELIMITERS[source.format])
    elif source.format == "jsonl":
        yield from _json_records(stream)
    else:
        raise InputError(f"{source.name}: its ending names no table of records: give {KINDS}")


def _rows(stream: ByteStream) -> Iterator[tuple[int, str]]:
    number = 0
    for block in text_blocks(stream, records=True):
        for row in block.split("\n")[: -1 if block.endswith("\n") else None]:
            number += 1
            if row and not row.isspace():
                yield number, row


def _json_records(stream: ByteStream) -> Iterator[tuple[str, Record]]:
    rows = _rows(stream)
    first = next(rows, None)
    if first is None:
        return
    if first[1].strip() in ("{", "["):  # one value over many lines: SQuAD's own layout, or a list of records
        yield from _whole_json("\n".join([first[1], *(row for _, row in rows)]), stream.name)
        return
    for number, row in (first, *rows):
        where = f"{stream.name}: line {number}"
        value = _parsed(row, where)
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            yield from _squad_records(value["data"], where)
        elif isinstance(value, list) and number == first[0]:
            yield from _listed(value, stream.name)
        else:
            yield where, _object(value, where)


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair: "\ud800"
        raise InputError(f"{where}: holds half a surrogate pair, which is no Unicode text: repair it") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, json.JSONDecodeError) and error.lineno == 1:  # "line 1" of that line, it means
            reason = f"{error.msg} at character {error.pos + 1}"
        raise InputError(f"{where}: is no JSON ({reason}): write one object a line, as JSON lines files do") from None


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise InputError(f'{where}: expected a JSON object like {{"text": …}}, got {type(value).__name__}')
    return value


def _whole_json(text: str, name: str) -> Iterator[tuple[str, Record]]:
    value = _parsed(text, name)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        yield from _squad_records(value["data"], name)
    else:
        yield from _listed(value if isinstance(value, list) else [value], name)


def _listed(values: list, name: str) -> Iterator[tuple[str, Record]]:
    for number, value in enumerate(values, start=1):
        where = f"{name}: record {number}"
        yield where, _object(value, where)


def _squad_records(articles: list, where: str) -> Iterator[tuple[str, Record]]:
    """SQuAD's nesting: articles of paragraphs (a context) of questions."""
    number = 0
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    yield f"{where}: question {number}", {**question, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where}: after question {number}: not SQuAD's layout ({error!r}): expected data → paragraphs → qas"
        ) from None


def _csv_records(stream: ByteStream, delimiter: str) -> Iterator[tuple[str, Record]]:
    # the limit is the csv module's own, for the whole process: never made smaller
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    rows = (row + "\n" for block in text_blocks(stream, records=True) for row in block.removesuffix("\n").split("\n"))
    reader = csv.reader(rows, delimiter=delimiter, strict=True)
    header: list[str] = []
    last_line = 0
    try:
        for values in reader:
            where = f"{stream.name}: line {last_line + 1}"
            last_line = reader.line_num
            if not values:
                continue
            if not header:
                header = [name.strip() for name in values]
            elif len(values) != len(header):
                raise InputError(
                    f"{where}: has {len(values)} fields and the header {len(header)}: "
                    'put "…" around a field that holds the delimiter or a line feed'
                )
            else:
                yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{stream.name}: the record from line {last_line + 1} on: {error}: is a quote left open? "
            'Write " inside a quoted field as ""'
        ) from None
