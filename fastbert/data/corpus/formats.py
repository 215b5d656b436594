"""The documents of each file format.

Each format yields ``(lines, continues)``: the non-blank lines of a document or of a part of it; ``continues`` is true
if the part belongs to the previous document.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from fastbert.data.corpus.columns import arrow_rows, parquet_rows
from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.json_values import json_values
from fastbert.data.corpus.reading import ReadingRules
from fastbert.data.corpus.records import MissingField, Record, csv_rows, missing_field, not_an_object, text_of
from fastbert.data.corpus.text_blocks import MAX_LINE_BYTES, text_blocks
from fastbert.system.errors import InputError

Part = tuple[list[str], bool]

# maximum of a part of a document; a part can be longer by one line (see text_blocks.MAX_LINE_BYTES)
PART_CHARS = 2 << 20
_CHUNK_CHARS = 1 << 20
DEFAULT_FIELD = "text"


class Format(Protocol):
    def documents(self, stream: ByteStream, rules: ReadingRules) -> Iterator[Part]:
        """Yield the documents of a file; long ones in parts."""
        ...

    def chunks(self, stream: ByteStream, rules: ReadingRules) -> Iterator[str]:
        """Yield the text of a file in large chunks that end between words."""
        ...


class TextFormat:
    """Plain text: a document ends where ``rules`` say, as a rule at a blank line; its lines are sentences."""

    def documents(self, stream: ByteStream, rules: ReadingRules) -> Iterator[Part]:
        lines: list[str] = []
        num_chars = 0
        continues = inside_line = False
        for block in text_blocks(stream, rules):
            rows = block.split("\n")
            if not rows[-1]:
                rows.pop()
            for row in rows:
                if row and not row.isspace():
                    lines.append(row)
                elif not inside_line:  # otherwise the end of a line that was cut, not a blank line
                    if lines:
                        yield lines, continues
                    lines, num_chars, continues = [], 0, False
                inside_line = False
            inside_line = not block.endswith("\n")
            num_chars += len(block)
            if num_chars >= PART_CHARS and lines:
                yield lines, continues
                lines, num_chars, continues = [], 0, True
        if lines:
            yield lines, continues

    def chunks(self, stream: ByteStream, rules: ReadingRules) -> Iterator[str]:
        yield from text_blocks(stream, rules)


class RecordFormat:
    """Records with text fields: each record is a document, the lines of its text are sentences; null is no document."""

    def texts(self, stream: ByteStream, fields: Sequence[str]) -> Iterator[str]:
        """Yield the text of every record, empty if it has none."""
        raise NotImplementedError

    def documents(self, stream: ByteStream, rules: ReadingRules) -> Iterator[Part]:
        for text in self.texts(stream, field_names(rules.text_field)):
            yield from _parts(rules.normalized(text))

    def chunks(self, stream: ByteStream, rules: ReadingRules) -> Iterator[str]:
        texts: list[str] = []
        num_chars = 0
        for text in filter(None, self.texts(stream, field_names(rules.text_field))):
            texts.append(rules.normalized(text))
            num_chars += len(text) + 1
            if num_chars >= _CHUNK_CHARS:
                yield "\n".join(texts)
                texts, num_chars = [], 0
        if texts:
            yield "\n".join(texts)


class JsonFormat(RecordFormat):
    """One JSON object per line, or an array of objects; a record may also be its text, or a list of sentences."""

    def texts(self, stream: ByteStream, fields: Sequence[str]) -> Iterator[str]:
        others_have_it = False
        for where, value in json_values(stream):
            bare = isinstance(value, str | list) and fields == [DEFAULT_FIELD]
            if not bare and not isinstance(value, dict):
                raise not_an_object(value, where)
            try:
                text = text_of({DEFAULT_FIELD: value} if bare else value, fields, where)
            except MissingField as error:
                if not others_have_it:
                    raise
                what = str(error).partition("Try: ")[0]
                raise InputError(f"{what}Try: the field, or null, in this record as in those before it") from None
            others_have_it = True
            yield text


class CsvFormat(RecordFormat):
    """Delimited values with a header row; fields that contain the delimiter or a line feed are quoted."""

    def __init__(self, kind: str):
        self.kind = kind

    def texts(self, stream: ByteStream, fields: Sequence[str]) -> Iterator[str]:
        rows = csv_rows(stream, self.kind)
        _, header = next(rows, (0, []))
        if missing := [field for field in fields if header and field not in header]:
            raise self._missing_column(missing[0], header, stream.name)
        if twice := [field for field in fields if header.count(field) > 1]:
            raise InputError(f"{stream.name}: the header has {twice[0]!r} twice. Try: another name for each column")
        for line, values in rows:
            yield text_of(dict(zip(header, values, strict=True)), fields, f"{stream.name}: line {line}")

    def _missing_column(self, field: str, header: Sequence[str], name: str) -> InputError:
        """Not the remedy of another field where the header was not divided: whole rows would be learned as text."""
        if len(header) == 1 and field in re.findall(r"\w+", header[0]):
            remedy = "commas, semicolons, tabs or |" if self.kind == "csv" else "a name that ends in .csv, or tabs"
            return InputError(f"{name}: the header is one field, {header[0]!r:.80}. Try: {remedy} between fields")
        error = missing_field(field, header, f"{name}: the header")
        return InputError(f"{error}, or a first line with the names of the columns")


class ColumnFormat(RecordFormat):
    """Columns of text, read in batches of rows."""

    def __init__(self, rows: Callable[[ByteStream, Sequence[str]], Iterator[tuple[str, Record]]]):
        self.rows = rows

    def texts(self, stream: ByteStream, fields: Sequence[str]) -> Iterator[str]:
        for where, record in self.rows(stream, fields):
            yield text_of(record, fields, where)


def format_of(name: str) -> Format:
    """Return the format with a name from ``sources.FORMATS``."""
    formats: dict[str, Format] = {
        "text": TextFormat(),
        "jsonl": JsonFormat(),
        "csv": CsvFormat("csv"),
        "tsv": CsvFormat("tsv"),
        "parquet": ColumnFormat(parquet_rows),
        "arrow": ColumnFormat(arrow_rows),
    }
    return formats[name]


def field_names(text_field: str | None) -> list[str]:
    """The field names in "a" or "a,b"."""
    return [name.strip() for name in (text_field or DEFAULT_FIELD).split(",")]


# MAX_LINE_BYTES counts bytes, this counts characters; a record is in memory anyway
_LONG_LINE = re.compile(rf"(?s:.{{1,{MAX_LINE_BYTES - 1}}}(?:\s|\Z)|.{{1,{MAX_LINE_BYTES}}})")


def _parts(text: str) -> Iterator[Part]:
    """Divide the text of a record into parts of bounded size: one for a short text, none for a blank one."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if len(text) <= PART_CHARS:
        if lines:
            yield lines, False
        return
    part: list[str] = []
    num_chars = 0
    continues = False
    for line in lines:
        for piece in _LONG_LINE.findall(line) if len(line) > MAX_LINE_BYTES else (line,):
            part.append(piece)
            num_chars += len(piece)
            if num_chars >= PART_CHARS:
                yield part, continues
                part, num_chars, continues = [], 0, True
    if part:
        yield part, continues
