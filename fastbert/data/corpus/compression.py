"""Byte streams of plain and compressed files, whose faults are errors for the user.

The endings .gz .xz .bz2 .zst name the compression. A file that is cut short or damaged is an :class:`InputError`; none
of the text before the fault is lost or repeated, but it is not a result either: the reader must give up.
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

# compressed bytes given to zstd at a time: it answers with all that comes of them, at most 128 KiB for 4 bytes
_ZSTD_BYTES = 1 << 13

# the first bytes of files that people rename to .txt by mistake -> what to do
_MAGIC = {
    b"\x1f\x8b": "it is gzip data: give the file the ending .gz",
    b"\xfd7zXZ": "it is xz data: give the file the ending .xz",
    b"BZh": "it is bzip2 data: give the file the ending .bz2",
    b"\x28\xb5\x2f\xfd": "it is zstd data: give the file the ending .zst",
    b"PK\x03\x04": "it is a zip archive (or an office document): unpack it, or save it as text",
    b"PAR1": "it is a Parquet file: give the file the ending .parquet",
    b"%PDF": "it is a PDF document: extract its text first, for example with `pdftotext`",
    b"\xff\xfe": "it is UTF-16: re-save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`",
    b"\xfe\xff": "it is UTF-16: re-save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`",
}


class Readable(Protocol):
    """The one thing that the formats ask of a stream."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end only."""
        ...

    def close(self) -> None: ...


def remedy_for_binary(head: bytes) -> str | None:
    """What to do about a file that begins with ``head``, when its kind is known."""
    return next((remedy for magic, remedy in _MAGIC.items() if head.startswith(magic)), None)


class ByteStream:
    """The decompressed bytes of one file.

    Args:
        opener: opens the compressed file for reading bytes.
        name: what errors call the file.
        ending: a key of ``COMPRESSIONS``, or "" for a plain file.

    Raises (also while reading):
        InputError: the file cannot be read, is not what its ending says, is damaged or cut short.
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
        """Return up to ``size`` bytes, none at the end only."""
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
        """The bytes as a file that can be read anywhere: itself, or for a compressed file a temporary copy."""
        if not self.kind:
            return self._file
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        while data := self.read(1 << 20):
            copy.write(data)
        copy.seek(0)
        return copy

    def _damaged(self, error: Exception) -> str:
        what = "is cut short" if isinstance(error, EOFError) else f"is damaged, or is no {self.kind} data ({error})"
        return f"{self.name}: {what}, after {self.position} bytes of text: get the file again, or correct its ending"

    def close(self) -> None:
        for stream in (self._stream, self._file):
            with suppress(Exception):
                stream.close()

    def __enter__(self) -> "ByteStream":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def unreadable(name: str, error: OSError) -> str:
    """The line for an operating-system error."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{name}: cannot be read ({reason}): check the path and its permissions"


class _ZstdError(Exception):
    pass


class _ZstdReader:
    """zstandard's own stream reader takes a truncated file for a complete one; this one raises EOFError."""

    def __init__(self, file: IO[bytes], name: str):
        try:
            import zstandard
        except ImportError:
            raise InputError(
                f'{name}: reading .zst needs the package zstandard: `pip install "fastbert[data]"`'
            ) from None
        self._file = file
        self._error: type[Exception] = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
        self._frame: Any = None  # None between frames
        self._rest = b""  # compressed bytes behind the last frame
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
