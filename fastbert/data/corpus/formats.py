"""What a document is in each file format.

Each format gives ``(lines, continues)``: the lines of a document that are not blank, or of a part of it; ``continues``
is true for a further part of the document before it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.text_blocks import MAX_LINE_BYTES, text_blocks
from fastbert.system.errors import InputError

Part = tuple[list[str], bool]

# of a document in one part; a part can be longer by one line (see text_blocks.MAX_LINE_BYTES)
PART_CHARS = 2 << 20
_CHUNK_CHARS = 1 << 20
# of one CSV field: a quote left open would otherwise take in the rest of the file
MAX_FIELD_CHARS = 64 << 20
DEFAULT_FIELD = "text"


class Format(Protocol):
    def documents(self, stream: ByteStream, text_field: str | None) -> Iterator[Part]:
        """Yield the documents of a file, long ones in parts."""
        ...

    def chunks(self, stream: ByteStream, text_field: str | None) -> Iterator[str]:
        """Yield the text of a file in large pieces that end between words."""
        ...


class TextFormat:
    """Plain text: a blank line ends a document; the lines are its sentences."""

    def documents(self, stream: ByteStream, text_field: str | None) -> Iterator[Part]:
        lines: list[str] = []
        num_chars = 0
        continues = inside_line = False
        for block in text_blocks(stream):
            rows = block.split("\n")
            if not rows[-1]:
                rows.pop()
            for row in rows:
                if row and not row.isspace():
                    lines.append(row)
                elif not inside_line:  # else the end of a line that was cut, and not a blank line
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

    def chunks(self, stream: ByteStream, text_field: str | None) -> Iterator[str]:
        yield from text_blocks(stream)


class RecordFormat:
    """Records with a field of text: each is a document, its lines are the sentences. A null is no document."""

    def texts(self, stream: ByteStream, field: str) -> Iterator[str]:
        """Yield the field of every record."""
        raise NotImplementedError

    def documents(self, stream: ByteStream, text_field: str | None) -> Iterator[Part]:
        for text in self.texts(stream, text_field or DEFAULT_FIELD):
            yield from _parts(text)

    def chunks(self, stream: ByteStream, text_field: str | None) -> Iterator[str]:
        texts: list[str] = []
        num_chars = 0
        for text in self.texts(stream, text_field or DEFAULT_FIELD):
            texts.append(text)
            num_chars += len(text) + 1
            if num_chars >= _CHUNK_CHARS:
                yield "\n".join(texts)
                texts, num_chars = [], 0
        if texts:
            yield "\n".join(texts)


class JsonLinesFormat(RecordFormat):
    """One JSON object a line."""

    def texts(self, stream: ByteStream, field: str) -> Iterator[str]:
        number = 0
        for block in text_blocks(stream, records=True):
            for row in block.split("\n")[: -1 if block.endswith("\n") else None]:
                number += 1
                if row and not row.isspace():
                    where = f"{stream.name}: line {number}"
                    text = _field(_record(row, where), field, where)
                    if text:
                        yield text


class CsvFormat(RecordFormat):
    """Comma- or tab-separated values with a header row; a field with the delimiter or a line feed is in quotes."""

    def __init__(self, delimiter: str):
        self.delimiter = delimiter

    def texts(self, stream: ByteStream, field: str) -> Iterator[str]:
        import csv

        # the limit is the csv module's own, for the whole process: never made smaller
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
        rows = (
            row + "\n" for block in text_blocks(stream, records=True) for row in block.removesuffix("\n").split("\n")
        )
        reader = csv.reader(rows, delimiter=self.delimiter, strict=True)
        header: list[str] | None = None
        column = 0
        last_line = 0
        try:
            for record in reader:
                if record and header is None:
                    header = [name.strip() for name in record]
                    column = _column(header, field, f"{stream.name}: the header")
                elif record:
                    if len(record) != len(header or ()):
                        raise InputError(
                            f"{stream.name}: line {last_line + 1}: has {len(record)} fields and the header "
                            f'{len(header or ())}: put "…" around a field that holds the delimiter or a line feed'
                        )
                    yield _normal_newlines(record[column])
                last_line = reader.line_num
        except csv.Error as error:
            raise InputError(
                f"{stream.name}: the record from line {last_line + 1} on: {error}: is a quote left open? "
                'Write " inside a quoted field as ""'
            ) from None


class ParquetFormat(RecordFormat):
    """A column of strings, read in batches of rows."""

    BATCH_ROWS = 1024

    def texts(self, stream: ByteStream, field: str) -> Iterator[str]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise InputError(
                f'{stream.name}: reading .parquet needs the package pyarrow: `pip install "fastbert[data]"`'
            ) from None
        number = 0
        try:
            with stream.seekable() as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                schema = parquet.schema_arrow
                column = schema.field(_column(schema.names, field, f"{stream.name}: the schema"))
                kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
                if not any(getattr(pa.types, f"is_{t}", bool)(kind) for t in ("string", "large_string", "string_view")):
                    raise InputError(
                        f"{stream.name}: field {field!r} holds {kind}, not text: name another with --text-field"
                    )
                for batch in parquet.iter_batches(self.BATCH_ROWS, columns=[field]):
                    for text in batch.column(0).to_pylist():
                        number += 1
                        if text:
                            yield _normal_newlines(text)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{stream.name}: after row {number}: not a Parquet file, or damaged ({reason}): get the file again"
            ) from None


def format_of(name: str) -> Format:
    """Return the format of a name in ``sources.FORMATS``."""
    formats: dict[str, Format] = {
        "text": TextFormat(),
        "jsonl": JsonLinesFormat(),
        "csv": CsvFormat(","),
        "tsv": CsvFormat("\t"),
        "parquet": ParquetFormat(),
    }
    return formats[name]


def _record(row: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(row)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON ({error}): write one object a line, as JSON lines files do") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object with a field of text, got {type(record).__name__}")
    return record


def _field(record: dict[str, Any], field: str, where: str) -> str | None:
    if field not in record:
        raise InputError(_missing(field, list(record), where))
    text = record[field]
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(
            f"{where}: field {field!r} holds {type(text).__name__}, not text: name another with --text-field"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair: "\ud800"
        raise InputError(
            f"{where}: field {field!r}: character {error.start} is half a surrogate pair, no Unicode text: repair it"
        ) from None
    return _normal_newlines(text)


def _column(names: list[str], field: str, where: str) -> int:
    if field not in names:
        raise InputError(_missing(field, names, where))
    return names.index(field)


def _missing(field: str, names: Iterable[str], where: str) -> str:
    there = ", ".join(map(repr, names)) or "none"
    return f"{where}: has no field {field!r}, but {there}: name the one that holds the text with --text-field"


def _normal_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


# as many characters as MAX_LINE_BYTES has bytes is more text, but a record is in memory anyway
_LONG_LINE = re.compile(rf"(?s:.{{1,{MAX_LINE_BYTES - 1}}}(?:\s|\Z)|.{{1,{MAX_LINE_BYTES}}})")


def _parts(text: str) -> Iterator[Part]:
    """Cut the text of a record into parts of bounded size (short ones give one part, blank ones none)."""
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
