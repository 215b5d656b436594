"""From user input (paths, globs, folders, "-", "bundled:pt", URLs) to a list of files to read."""

import glob
import importlib.resources
import os
import stat
import tempfile
import zlib
from dataclasses import dataclass, field
from typing import IO, Any

from fastbert.data.corpus.compression import COMPRESSIONS, unreadable
from fastbert.system.errors import InputError

# ending -> format; files with other endings are text if named explicitly, and skipped in folders
FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json-lines": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
BUNDLED = ("pt", "en")
BUNDLED_PREFIX = "bundled:"
STANDARD_INPUT = "-"


def endings(path: str) -> tuple[str, str]:
    """Return the endings that select the format and the compression, each "" if unknown."""
    stem, ending = os.path.splitext(path.lower())
    compression = ending if ending in COMPRESSIONS else ""
    if compression:
        ending = os.path.splitext(stem)[1]
    return (ending if ending in FORMATS else ""), compression


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes:
        name: for errors: as the user wrote it, or the path found in a folder.
        path: file system path or URL; "-" is standard input.
        named: the user named this file explicitly, so it is an error if it contains no text.
        once: can be read only once (standard input, a pipe).
    """

    name: str
    path: str
    format: str
    compression: str
    named: bool = True
    once: bool = False
    size: int = -1
    modified_ns: int = 0
    filesystem: Any = field(default=None, compare=False, repr=False)  # fsspec file system of a URL

    def open(self) -> IO[bytes]:
        if self.path == "-":
            return os.fdopen(os.dup(0), "rb")
        if self.filesystem is not None:
            return self.filesystem.open(self.path, "rb")
        return open(self.path, "rb")


class SpooledInput:
    """A source that can be read only once, copied to a temporary file on first use."""

    def __init__(self, source: Source):
        self._source = source
        self._copy: Any = None
        self._size = self._crc32 = 0

    def open(self) -> IO[bytes]:
        return open(self._path(), "rb")

    def identity(self) -> list:
        self._path()
        return [self._source.name, self._size, self._crc32]

    def _path(self) -> str:
        if self._copy is None:
            copy = tempfile.NamedTemporaryFile(prefix="fastbert-", suffix=".spool")  # noqa: SIM115
            with self._source.open() as file:
                while data := file.read(1 << 20):
                    copy.write(data)
                    self._size += len(data)
                    self._crc32 = zlib.crc32(data, self._crc32)
            copy.flush()
            self._copy = copy
        return self._copy.name

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None


def find_sources(names: list[str]) -> list[Source]:
    """Return the files for ``names``, in order.

    Raises:
        InputError: no name, a name without a readable file, or an empty file that was named explicitly.
    """
    if not names:
        raise InputError("no input. Try: a file, folder, glob, URL, '-' or 'bundled:pt'")
    if names.count("-") > 1:
        raise InputError("-: standard input is named twice but can be read only once. Try: name it once")
    return [source for name in names for source in _sources_of(name)]


def _sources_of(name: str) -> list[Source]:
    if name == STANDARD_INPUT:
        return [Source("standard input", "-", "text", "", once=True)]
    if name.startswith(BUNDLED_PREFIX):
        return [_bundled(name)]
    if "://" in name:
        return _remote(name)
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return _folder(name, path)
    if os.path.lexists(path) or not glob.has_magic(path):
        return [_file(name, path)]
    found = sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))
    if not found:
        raise InputError(f"{name}: no file matches this pattern. Try: check it, and quote it for the shell")
    return [_file(p, p, named=False) for p in found]


def _file(name: str, path: str, named: bool = True) -> Source:
    try:
        facts = os.stat(path)
        if stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for its writer
            open(path, "rb").close()  # check the permission now, not after an hour of work
    except FileNotFoundError:
        raise InputError(
            f"{name}: no such file or folder. Try: check the path (current directory: {os.getcwd()})"
        ) from None
    except OSError as error:
        raise InputError(unreadable(name, error)) from None
    pipe = not stat.S_ISREG(facts.st_mode)
    if named and not pipe and facts.st_size == 0:
        raise InputError(f"{name}: is empty. Try: add text, or omit the file")
    format, compression = endings(path)
    kind = FORMATS.get(format, "text")
    return Source(name, path, kind, compression, named, pipe, facts.st_size, facts.st_mtime_ns)


def _folder(name: str, path: str) -> list[Source]:
    found = []
    for here, folders, files in os.walk(path, onerror=_raise_unreadable):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [os.path.join(here, f) for f in files if not f.startswith(".") and endings(f)[0]]
    if not found:
        raise InputError(
            f"{name}: no file in this folder has a known ending. Try: {' '.join(FORMATS)}, also with .gz …"
        )
    return [_file(p, p, named=False) for p in sorted(found)]


def _raise_unreadable(error: OSError) -> None:
    raise InputError(unreadable(str(error.filename), error))


def _bundled(name: str) -> Source:
    language = name.removeprefix(BUNDLED_PREFIX)
    if language not in BUNDLED:
        raise InputError(f"{name}: no such bundled text. Try: {' or '.join(f'bundled:{b}' for b in BUNDLED)}")
    path = str(importlib.resources.files("fastbert.data") / "bundled" / f"{language}.txt.xz")
    if not os.path.isfile(path):
        raise InputError(f"{name}: {path} is missing from this installation. Try: reinstall fastbert")
    # the text is the same in every installation, so the modification time does not count
    return Source(name, path, "text", ".xz", size=os.path.getsize(path))


def _remote(name: str) -> list[Source]:
    try:
        import fsspec
    except ImportError:
        raise InputError(f'{name}: reading URLs requires fsspec. Try: pip install "fastbert[data]"') from None
    try:
        filesystem, path = fsspec.core.url_to_fs(name)
        if glob.has_magic(path) and not filesystem.exists(path):
            paths, named = sorted(filesystem.glob(path)), False
        elif filesystem.isdir(path):
            paths, named = [p for p in sorted(filesystem.find(path)) if _in_folder(path, p)], False
        else:
            paths, named = [path], True
        if not paths:
            raise InputError(f"{name}: no file found. Try: check the URL and the file name endings")
        return [_remote_file(name if named else p, p, named, filesystem) for p in paths]
    except FileNotFoundError:
        raise InputError(f"{name}: no such file. Try: check the URL") from None
    except InputError:
        raise
    except (ImportError, ValueError) as error:  # fsspec names the package that speaks the protocol
        raise InputError(f"{name}: {error}. Try: install the package it names, or correct the URL") from None
    except Exception as error:  # every filesystem has its own exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name}: cannot be read ({reason}). Try: check the URL, the network and your access"
        ) from None


def _in_folder(folder: str, path: str) -> bool:
    inside = path[len(folder) :].strip("/").split("/")
    return bool(endings(path)[0]) and not any(part.startswith(".") for part in inside)


def _remote_file(name: str, path: str, named: bool, filesystem: Any) -> Source:
    size = filesystem.info(path).get("size")
    if named and size == 0:
        raise InputError(f"{name}: is empty. Try: add text, or omit the file")
    format, compression = endings(path)
    kind = FORMATS.get(format, "text")
    return Source(name, path, kind, compression, named, size=-1 if size is None else size, filesystem=filesystem)
