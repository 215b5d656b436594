"""Byte streams of plain and compressed files that report damage as :class:`InputError`.

The file name ending (.gz .xz .bz2 .zst) selects the compression. The text before the damage is returned once and
complete, but the reader must not treat it as a result.
"""

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Protocol

from fastbert.system.errors import InputError

COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".bz2": "bzip2", ".zst": "zstd", ".zstd": "zstd"}

# compressed bytes per call of zstd, which returns all of their content, up to 128 KiB for 4 bytes
_ZSTD_BYTES = 1 << 13

# first bytes of files that are often renamed to .txt by mistake -> what to do
_MAGIC = {
    b"\x1f\x8b": "it is gzip data. Try: rename the file to end in .gz",
    b"\xfd7zXZ": "it is xz data. Try: rename the file to end in .xz",
    b"BZh": "it is bzip2 data. Try: rename the file to end in .bz2",
    b"\x28\xb5\x2f\xfd": "it is zstd data. Try: rename the file to end in .zst",
    b"PK\x03\x04": "it is a zip archive or an office document. Try: unpack it, or save it as text",
    b"PAR1": "it is a Parquet file. Try: rename the file to end in .parquet",
    b"\x89PNG": "it is an image. Try: a file with text",
    b"\xff\xd8\xff": "it is an image. Try: a file with text",
    b"GIF8": "it is an image. Try: a file with text",
    b"\x7fELF": "it is a program. Try: a file with text",
    b"\x93NUMPY": "it is an array of NumPy. Try: a file with text",
    b"\xd0\xcf\x11\xe0": "it is an old office document. Try: save its text as a .txt file",
    b"7z\xbc\xaf": "it is a 7z archive. Try: unpack it",
    b"Rar!": "it is a rar archive. Try: unpack it",
    b"SQLite format 3": "it is a database. Try: save its text as a .txt file",
    b"%PDF": "it is a PDF document. Try: extract its text, for example with `pdftotext`",
    b"\xff\xfe\x00\x00": "it is UTF-32. Try: iconv -f utf-32 -t utf-8 OLD > NEW",
    b"\x00\x00\xfe\xff": "it is UTF-32. Try: iconv -f utf-32 -t utf-8 OLD > NEW",
    b"\xff\xfe": "it is UTF-16. Try: iconv -f utf-16 -t utf-8 OLD > NEW",
    b"\xfe\xff": "it is UTF-16. Try: iconv -f utf-16 -t utf-8 OLD > NEW",
}


class Readable(Protocol):
    """The stream interface that the formats need."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; empty only at the end."""
        ...

    def close(self) -> None: ...


def remedy_for_binary(head: bytes) -> str | None:
    """What to do with a file that begins with ``head``, if its kind is known."""
    return next((remedy for magic, remedy in _MAGIC.items() if head.startswith(magic)), None)


class ByteStream:
    """The decompressed bytes of one file.

    Args:
        opener: opens the compressed file for reading bytes.
        name: of the file in errors.
        ending: a key of ``COMPRESSIONS``, or "" for a plain file.

    Raises (also while reading):
        InputError: the file cannot be read, is damaged or truncated, or does not match its ending.
    """

    def __init__(self, opener: Callable[[], IO[bytes]], name: str, ending: str):
        self.name = name
        self.kind = COMPRESSIONS.get(ending, "")
        self.position = 0  # bytes of text read
        try:
            self._file = opener()
            self._stream = self._decompressed(self._file)
        except OSError as error:
            raise InputError(unreadable(name, error)) from None

    def _decompressed(self, file: IO[bytes]) -> Readable:
        if self.kind == "gzip":
            return gzip.GzipFile(fileobj=file)
        if self.kind == "xz":
            return lzma.LZMAFile(file)
        if self.kind == "bzip2":
            return bz2.BZ2File(file)
        return _ZstdReader(file, self.name) if self.kind == "zstd" else file

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; empty only at the end."""
        try:
            data = self._stream.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, _ZstdError) as error:
            raise InputError(self._damaged(error)) from None
        except OSError as error:
            if self.kind == "bzip2" and error.errno is None:  # "Invalid data stream"
                raise InputError(self._damaged(error)) from None
            raise InputError(unreadable(self.name, error)) from None
        self.position += len(data)
        return data

    def seekable(self) -> IO[bytes]:
        """Return a seekable file: the file itself, or a temporary copy of a compressed one."""
        if not self.kind:
            return self._file
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        while data := self.read(1 << 20):
            copy.write(data)
        copy.seek(0)
        return copy

    def _damaged(self, error: Exception) -> str:
        what = "is truncated" if isinstance(error, EOFError) else f"is damaged or is not {self.kind} data ({error})"
        return f"{self.name}: {what}, after {self.position} bytes of text. Try: get the file again, or rename it"

    def close(self) -> None:
        for stream in (self._stream, self._file):
            with suppress(Exception):
                stream.close()

    def __enter__(self) -> "ByteStream":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def unreadable(name: str, error: OSError) -> str:
    """The message for an operating-system error."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{name}: cannot be read ({reason}). Try: check the path and its permissions"


class _ZstdError(Exception):
    pass


class _ZstdReader:
    """Raises EOFError for a truncated file, which zstandard's own stream reader accepts as complete."""

    def __init__(self, file: IO[bytes], name: str):
        try:
            import zstandard
        except ImportError:
            raise InputError(f'{name}: reading .zst requires zstandard. Try: pip install "fastbert[data]"') from None
        self._file = file
        self._error: type[Exception] = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame: Any = None  # None between frames
        self._rest = b""  # compressed bytes after the last frame
        self._ready = b""

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            data = self._rest or self._file.read(_ZSTD_BYTES)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError
                return b""
            if self._frame is None:
                self._frame = self._new_frame()
            try:
                self._ready = self._frame.decompress(data)
            except self._error as error:
                raise _ZstdError(error) from None
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def close(self) -> None:
        self._file.close()
