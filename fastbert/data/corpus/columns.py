"""Rows of files that store columns: Parquet, and Arrow as ``datasets.save_to_disk`` writes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.records import Record, missing_field
from fastbert.system.errors import InputError

BATCH_ROWS = 1024
_ARROW_FILE = b"ARROW1"  # the other form, a stream, has no magic bytes


def parquet_rows(stream: ByteStream, fields: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, record)`` with the columns that hold ``fields``.

    Raises:
        InputError: pyarrow or a column is missing, or the file is damaged.
    """

    def batches(file: Any) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            columns = _columns(fields, parquet.schema_arrow.names, stream.name)
            yield from parquet.iter_batches(BATCH_ROWS, columns=columns)

    return _rows(stream, ".parquet", "a Parquet file", batches)


def arrow_rows(stream: ByteStream, fields: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Yield ``(where, record)`` of an Arrow file or stream; see :func:`parquet_rows`."""

    def batches(file: Any) -> Iterator[Any]:
        import pyarrow as pa

        head = file.read(len(_ARROW_FILE))
        file.seek(0)
        is_file = head == _ARROW_FILE
        reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        columns = _columns(fields, reader.schema.names, stream.name)
        for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader:
            chosen = batch.select(columns)
            for start in range(0, chosen.num_rows, BATCH_ROWS):
                yield chosen.slice(start, BATCH_ROWS)

    return _rows(stream, ".arrow", "an Arrow file", batches)


def _rows(
    stream: ByteStream, ending: str, kind: str, batches: Callable[[Any], Iterator[Any]]
) -> Iterator[tuple[str, Record]]:
    try:
        import pyarrow as pa
    except ImportError:
        raise InputError(
            f'{stream.name}: reading {ending} requires pyarrow. Try: pip install "fastbert[data]"'
        ) from None
    number = 0
    try:
        with stream.seekable() as file:
            for batch in batches(file):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{stream.name}: row {number}", record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{stream.name}: after row {number}: not {kind}, or damaged ({reason}). Try: get the file again"
        ) from None


def _columns(fields: Sequence[str], names: Sequence[str], name: str) -> list[str]:
    """The columns that hold the fields, each once."""
    columns = [field if field in names else field.split(".")[0] for field in fields]
    for field, column in zip(fields, columns, strict=True):
        if column not in names:
            raise missing_field(field, names, f"{name}: the schema")
    return [*dict.fromkeys(columns)]
