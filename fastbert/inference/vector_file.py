"""A file of vectors that grows row by row and survives interruption: .npy or .parquet.

Until it is complete the rows are in FILE.partial, a .npy file without its header, and FILE.progress says how many of
them are whole and what they are of.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastbert.system.atomic_write import write_durably, written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

HEADER_BYTES = 128  # what NumPy writes for two axes
FORMATS = (".npy", ".parquet")
_ROWS_AT_ONCE = 65_536


class VectorFile:
    """Rows of float32, for texts that come in order.

    Args:
        path: of the complete file; its ending gives the format.
        width: numbers in a row.
        made_by: what the vectors depend on, apart from the texts; compared when an interrupted file is continued.

    Raises:
        InputError: another ending, an existing file, or an interrupted one that was made otherwise.

    Attributes:
        rows: complete rows; after an interruption those that are there already.
    """

    def __init__(self, path: Path, width: int, made_by: dict[str, Any]):
        self.path, self.width, self.made_by = path, width, made_by
        self._partial = path.with_name(path.name + ".partial")
        self._progress = path.with_name(path.name + ".progress")
        self.rows = self._texts_crc = 0
        if self._progress.exists():
            self._continue()
        self._file: BinaryIO = open(self._partial, "r+b" if self.rows else "w+b")  # noqa: SIM115
        self._file.truncate(HEADER_BYTES + 4 * width * self.rows)
        self._file.seek(0, os.SEEK_END)

    def _continue(self) -> None:
        remedy = f"delete {self._progress} and {self._partial} to start again, or another --output"
        fields = Fields(read_object(self._progress, remedy), str(self._progress), remedy)
        if fields.values.get("made_by") != self.made_by:
            raise InputError(f"{self._progress}: was begun with another model or other options. Try: {remedy}")
        self.rows, self._texts_crc = fields.integer("rows"), fields.integer("texts_crc32", high=2**32)
        if self._size_of_partial() < HEADER_BYTES + 4 * self.width * self.rows:
            raise InputError(f"{self._partial}: has fewer rows than {self._progress} lists. Try: {remedy}")

    def _size_of_partial(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def __enter__(self) -> "VectorFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        if not self.rows:  # nothing to continue
            self._partial.unlink(missing_ok=True)

    def check_texts(self, crc: int) -> None:
        """Compare the texts of the rows that are there already, by their :func:`crc_of`, with those of this command.

        Raises:
            InputError: other texts.
        """
        if crc != self._texts_crc:
            raise InputError(
                f"{self._progress}: its {self.rows:,} rows are of other texts. Try: the same input, or delete it and "
                f"{self._partial} to start again"
            )

    def append(self, vectors: NDArray[np.float32], texts: Sequence[str]) -> None:
        """Add a row for each text; they survive an interruption from now on."""
        self._file.write(np.ascontiguousarray(vectors, "<f4").data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows, self._texts_crc = self.rows + len(texts), crc_of(texts, self._texts_crc)
        state = {"rows": self.rows, "texts_crc32": self._texts_crc, "made_by": self.made_by}
        write_durably(self._progress, json.dumps(state, indent=1) + "\n")

    def finish(self) -> None:
        """Give the file its format and its name."""
        self._file.seek(0)
        self._file.write(_header((self.rows, self.width)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self.path.suffix == ".parquet":
            rows = np.memmap(self._partial, "<f4", "r", HEADER_BYTES, (self.rows, self.width))
            _write_parquet(rows, self.path)
            self._partial.unlink()
        else:
            self._partial.replace(self.path)
        self._progress.unlink(missing_ok=True)


def crc_of(texts: Sequence[str], crc: int = 0) -> int:
    """CRC-32 of texts, continued from ``crc``."""
    for text in texts:
        crc = zlib.crc32(text.encode("utf-8", "surrogatepass") + b"\n", crc)
    return crc


def _header(shape: tuple[int, int]) -> bytes:
    """The .npy header of version 1.0, padded to :data:`HEADER_BYTES`."""
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    magic = np.lib.format.magic(1, 0)
    length = HEADER_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


def _write_parquet(rows: NDArray[np.float32], path: Path) -> None:
    """Write vectors as the column "embedding", lists of fixed size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.list_(pa.float32(), rows.shape[1])
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, pa.schema([("embedding", column)])) as writer:
        for start in range(0, max(len(rows), 1), _ROWS_AT_ONCE):
            part = np.ascontiguousarray(rows[start : start + _ROWS_AT_ONCE]).reshape(-1)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(part, pa.float32()), rows.shape[1])
            writer.write_table(pa.table({"embedding": lists}))
