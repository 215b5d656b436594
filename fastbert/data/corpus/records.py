"""Records of JSON, JSON lines, CSV and TSV files, and the text fields in them.

Every record comes with its location ("file: line n", "file: record n"), which errors name.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from fastbert.data.corpus.arrow_records import folder_records, is_datasets_folder, parquet_records
from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.json_values import json_values
from fastbert.data.corpus.sources import Source, find_sources
from fastbert.data.corpus.text_blocks import numbered_rows, text_blocks
from fastbert.system.errors import InputError

Record = dict[str, Any]
KINDS = "JSON lines (.jsonl), CSV (.csv, .tsv), Parquet (.parquet)"
# of one CSV field: an open quote would otherwise swallow the rest of the file
MAX_FIELD_CHARS = 64 << 20
_NAMED_DELIMITER = re.compile(r'"?sep=([,;|\t])"?\n')  # the first line, as spreadsheets write it
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DELIMITERS = {"csv": (",", ";", "\t", "|"), "tsv": ("\t",)}


def read_records(path: str) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, record)`` for every record; ``where`` is "file: line n".

    Raises:
        InputError: no such file, not UTF-8, malformed JSON or CSV (with the line), or a file without records.
    """
    found = False
    if is_datasets_folder(path):
        for where, record in folder_records(path):
            found = True
            yield where, record
        return _require(found, path)
    for source in find_sources([path]):
        with ByteStream(source.open, source.name, source.compression) as stream:
            for where, record in _records(source, stream):
                found = True
                yield where, record
    _require(found, path)


def _require(found: bool, path: str) -> None:
    if not found:
        raise InputError(f"{path}: no records found. Try: one record per line, as {KINDS}")


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield ``(where, line)`` for every line of a text file that is not blank."""
    for source in find_sources([path]):
        with ByteStream(source.open, source.name, source.compression) as stream:
            for number, row in numbered_rows(stream):
                yield f"{source.name}: line {number}", row


def is_table(path: str) -> bool:
    """Whether the file name ends like a table of records and not like plain text."""
    return is_datasets_folder(path) or all(source.format != "text" for source in find_sources([path]))


def _records(source: Source, stream: ByteStream) -> Iterator[tuple[str, Record]]:
    if source.format in _DELIMITERS:
        rows = csv_rows(stream, source.format)
        _, names = next(rows, (0, []))
        header = _distinct(names)
        for line, values in rows:
            yield f"{stream.name}: line {line}", dict(zip(header, values, strict=True))
    elif source.format == "jsonl":
        yield from json_records(stream)
    elif source.format == "parquet":
        yield from parquet_records(stream)
    else:
        raise InputError(f"{source.name}: the file name does not end like a table. Try: {KINDS}")


def csv_rows(stream: ByteStream, kind: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of the header and of every row, all of the same length.

    Args:
        stream: the file.
        kind: "tsv", or "csv" for the delimiter (comma, semicolon, tab or |) that is most frequent in the header.

    Raises:
        InputError: a row of another length or an open quote, with the line.
    """
    # a global limit of the csv module: never lowered
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    rows = (row + "\n" for block in text_blocks(stream, records=True) for row in block.removesuffix("\n").split("\n"))
    head: list[str] = []
    named = ""
    for row in rows:
        head.append(row)
        if found := _NAMED_DELIMITER.fullmatch(row):
            named, head[-1] = found[1], "\n"
        elif not row.isspace():
            break
    delimiter = named or delimiter_of((head or [""])[-1], kind)
    lines: Iterator[str] = chain(head, rows)
    reader = csv.reader(_escape_quotes(lines) if delimiter == "\t" else lines, delimiter=delimiter, strict=True)
    num_fields = last_line = 0
    try:
        for values in reader:
            line, last_line = last_line + 1, reader.line_num
            if not values:
                continue
            if not num_fields:
                num_fields = len(values)
                values = [name.strip() for name in values]
            elif len(values) != num_fields:
                raise InputError(
                    f"{stream.name}: line {line}: has {len(values)} fields, the header {num_fields}. "
                    'Try: "…" around fields that contain the delimiter or a line feed'
                )
            yield line, values
    except csv.Error as error:
        raise InputError(
            f"{stream.name}: line {last_line + 1}: the record that begins there is not CSV ({error}). "
            'Try: close its quotes, and write " inside a quoted field as ""'
        ) from None


def _distinct(names: list[str]) -> list[str]:
    """Names of columns, as pandas makes them differ: a second "text" is "text.1"."""
    found: list[str] = []
    for name in names:
        other, count = name, 0
        while other in found:
            count += 1
            other = f"{name}.{count}"
        found.append(other)
    return found


def delimiter_of(text: str, kind: str) -> str:
    """The delimiter of "csv" or "tsv", by the first line of ``text``."""
    header = text.lstrip("\n").partition("\n")[0]
    return max(_DELIMITERS[kind], key=header.count)


def _escape_quotes(rows: Iterator[str]) -> Iterator[str]:
    """Tab-separated rows as CSV: quotes of files that do not quote (GLUE's) are escaped.

    A quote at the start of a field is literal unless it closes at the end of the field, or the next line continues it.
    """
    num_fields, is_open = 0, False
    row = next(rows, None)
    while row is not None:
        following = next(rows, None)
        fields = row.removesuffix("\n").split("\t")
        if is_open:
            is_open = row.count('"') % 2 == 0
        elif not row.isspace():
            num_fields = num_fields or len(fields)
            literal = [field.startswith('"') and not _QUOTED.fullmatch(field) for field in fields]
            continues = literal[-1] and following is not None and following.count("\t") + 1 != num_fields
            if len(fields) != num_fields or continues or num_fields == 1:
                is_open = row.count('"') % 2 == 1
            elif any(literal):
                pairs = zip(fields, literal, strict=True)
                row = "\t".join('"' + f.replace('"', '""') + '"' if quoted else f for f, quoted in pairs) + "\n"
        yield row
        row = following


def json_records(stream: ByteStream) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, record)`` for one JSON object per line, a JSON array of objects, or SQuAD's nested JSON.

    Raises:
        InputError: malformed JSON or values that are not objects, with the line or record.
    """
    values = json_values(stream)
    begin = list(islice(values, 2))
    if len(begin) == 1 and ": record " not in begin[0][0]:  # an object, not an array with one
        where, value = begin[0]
        yield from _whole_file(_object(value, where), where, stream.name)
        return
    for where, value in chain(begin, values):
        yield where, _object(value, where)


def not_an_object(value: Any, where: str) -> InputError:
    kind = "null" if value is None else type(value).__name__
    return InputError(f'{where}: is {kind}, not a JSON object. Try: an object like {{"text": …}}')


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise not_an_object(value, where)
    return value


def _whole_file(value: Record, where: str, name: str) -> Iterator[tuple[str, Record]]:
    """The records of a file that is one object: itself, SQuAD's articles, or a table as pandas writes it."""
    data = value.get("data")
    if isinstance(data, list) and data and isinstance(data[0], dict) and "paragraphs" in data[0]:
        yield from _squad_records(data, where)
    elif (table := _table(value, where)) is not None:
        for number, record in enumerate(table, start=1):
            yield f"{name}: record {number}", _object(record, f"{name}: record {number}")
    else:
        yield where, value


def _table(value: Record, where: str) -> "Iterable[Record] | None":
    """Rows of ``to_json`` of pandas: by columns (its default), "index", "split" or "table"; None: something else."""
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
            raise InputError(f"{where}: rows of data differ from columns in length. Try: write the file again")
        return [dict(zip(map(str, columns), row, strict=True)) for row in data]
    if isinstance(data, list):
        return data
    inner = [*value.values()]
    if not inner or not all(isinstance(column, dict) and column.keys() == inner[0].keys() for column in inner):
        return None
    if all(map(str.isdecimal, value)):  # rows by their numbers
        return inner
    if inner[0] and all(map(str.isdecimal, inner[0])):
        return [{name: value[name][row] for name in value} for row in inner[0]]
    return None


def _squad_records(articles: list, where: str) -> Iterator[tuple[str, Record]]:
    """SQuAD's nesting: articles of paragraphs (each with a context) of questions."""
    number = 0
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    yield f"{where}: question {number}", {**question, "context": paragraph["context"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{where}: after question {number}: not the layout of SQuAD, data → paragraphs → qas "
            f"({error!r}). Try: one object per line, or that layout"
        ) from None


def text_of(record: Record, fields: Sequence[str], where: str) -> str:
    """Return the text of some fields, one per line; null is empty, a list of texts gives a line for each.

    Args:
        record: from a file.
        fields: names; "a.b" also names field b of the object in field a, or of each of a list of objects.
        where: location for errors.

    Raises:
        InputError: a missing field, or a value that is not text.
    """
    if len(fields) == 1:
        return _text(_value(record, fields[0], where), fields[0], where)
    return "\n".join(filter(None, (_text(_value(record, field, where), field, where) for field in fields)))


def _value(record: Record, field: str, where: str) -> Any:
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        try:
            value = [item[name] for item in value] if isinstance(value, list) else value[name]
        except (KeyError, TypeError):
            raise missing_field(field, record, where) from None
    return value


class MissingField(InputError):
    """A record without the field that is asked for."""


def missing_field(field: str, names: Iterable[str], where: str) -> MissingField:
    found = ", ".join(map(repr, _nested(names)))
    remedy = "--text-field with one of them" if found else "records with fields of text"
    return MissingField(f"{where}: has no field {field!r}; its fields: {found or 'none'}. Try: {remedy}")


def _nested(names: Iterable[str] | Record) -> Iterator[str]:
    """The names of fields, with those of objects within as "a.b"."""
    for name in names:
        value = names[name] if isinstance(names, dict) else None
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]  # a list of objects is read as the list of their fields
        if isinstance(value, dict) and value:
            yield from (f"{name}.{inner}" for inner in _nested(value))
        else:
            yield name


def _text(value: Any, field: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(filter(None, (_text(item, field, where) for item in value)))
    if not isinstance(value, str):
        raise InputError(
            f"{where}: field {field!r} holds {type(value).__name__}, not text. Try: --text-field with another field"
        )
    return value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value
