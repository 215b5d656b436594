"""A binary file mapped into memory, which notices when somebody changes it."""

import os
import weakref
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastbert.system.errors import InputError

_READ_BYTES = 1 << 20


class MappedFile:
    """The numbers of a file.

    Reading a map beyond the end of a file that was cut kills the process (SIGBUS), and other numbers of the same size
    would be used silently: :meth:`array` checks both. A file that another has replaced by renaming stays readable,
    because its map is the old file.

    Args:
        path: of the file.
        dtype: of its numbers.
        crc32: of its content, in hexadecimal.
        remedy: for the error.
    """

    def __init__(self, path: Path, dtype: np.dtype, crc32: str, remedy: str):
        self.path, self.crc32, self.remedy = path, crc32, remedy
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._current_state()
        with open(self._descriptor, "rb", closefd=False) as file:
            self._array: NDArray = np.memmap(file, dtype=dtype, mode="r").view(np.ndarray)

    def __len__(self) -> int:
        return len(self._array)

    @property
    def array(self) -> NDArray:
        """The numbers.

        Raises:
            InputError: the file was written in place since it was opened.
        """
        if (state := self._current_state()) != self._state:
            if state[0] < self._array.nbytes:
                raise InputError(f"{self.path}: was cut to {state[0]} bytes while in use. Try: {self.remedy}")
            if crc32_of(self.path) != self.crc32:
                raise InputError(f"{self.path}: was overwritten while in use. Try: {self.remedy}")
            self._state = state
        return self._array

    def _current_state(self) -> tuple[int, int]:
        """Size in bytes and time of the last change."""
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns


def crc32_of(path: Path) -> str:
    """The CRC-32 of a file, in hexadecimal."""
    checksum = 0
    with open(path, "rb") as file:
        while data := file.read(_READ_BYTES):
            checksum = zlib.crc32(data, checksum)
    return f"{checksum:08x}"
