"""Inputs of the tokenizer: lists, pairs, Arrow columns, files and bytes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.errors import InputError

if TYPE_CHECKING:  # numpy takes longer to import than a line to encode: where it is needed, it is imported
    import numpy as np


def is_arrow(texts: object) -> bool:
    """Whether this is a pyarrow Array or ChunkedArray, without importing pyarrow."""
    return type(texts).__module__.partition(".")[0] == "pyarrow"


def arrow_chunks(texts: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield (UTF-8 data, (B + 1,) int64 bounds) for each chunk of a string column, without Python strings.

    Raises:
        InputError: not a column of strings, or nulls in it.
    """
    import numpy as np
    import pyarrow

    chunks = texts.chunks if isinstance(texts, pyarrow.ChunkedArray) else [texts]
    for chunk in chunks:
        kind = chunk.type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            readable = pyarrow.types.is_dictionary(kind) or pyarrow.types.is_string_view(kind)
            if not readable:
                raise InputError(f"an Arrow column of {kind}: expected strings. Try: a text column")
            chunk = chunk.cast(pyarrow.large_string())
        if chunk.null_count:
            raise InputError(f"an Arrow column with {chunk.null_count} nulls: expected none. Try: fill_null('')")
        wide = pyarrow.types.is_large_string(chunk.type)
        _, bounds, data = chunk.buffers()
        if bounds is None or not len(chunk):
            yield b"", np.zeros(len(chunk) + 1, np.int64)
            continue
        all_bounds = np.frombuffer(bounds, np.int64 if wide else np.int32)
        yield (
            b"" if data is None else data,
            all_bounds[chunk.offset : chunk.offset + len(chunk) + 1].astype(np.int64),
        )


def texts_and_pairs(texts: Any) -> tuple[list[str], list[str] | None]:
    """Split a batch of texts, or of (text, text) pairs, into lists.

    Raises:
        InputError: a single text, a mixture of texts and pairs, or something that is not text.
    """
    if isinstance(texts, str | bytes):
        raise InputError(f"expected a list of texts, got one {type(texts).__name__}. Try: [text]")
    items = texts if isinstance(texts, list) else list(texts)
    if not items or isinstance(items[0], str):
        return items, None
    firsts, seconds = [], []
    for i, item in enumerate(items):
        if not (isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(t, str) for t in item)):
            raise InputError(f"text {i}: expected str, or (str, str) for every item of the batch; got {_shown(item)}")
        firsts.append(item[0])
        seconds.append(item[1])
    return firsts, seconds


def _shown(item: object) -> str:
    if isinstance(item, tuple | list):
        return f"({', '.join(type(t).__name__ for t in item)})"
    return type(item).__name__


@contextmanager
def file_bytes(source: str | os.PathLike | bytes | bytearray | memoryview | mmap.mmap) -> Iterator[Any]:
    """Yield the memory-mapped bytes of a file, or an object that already contains bytes.

    Raises:
        InputError: the file cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        yield source
        return
    try:
        with Path(source).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:  # nothing to map, or a pipe
                yield file.read()
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                try:
                    yield view
                finally:
                    view.release()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None


def existing_files(source: Any) -> list[Path] | None:
    """The files named by a path or by a list of existing paths; None if ``source`` contains texts.

    Raises:
        InputError: a path without a file.
    """
    if isinstance(source, str | os.PathLike):
        if not os.path.isfile(source):
            raise InputError(f"{source}: no such file. Try: the path of a UTF-8 text file, or a list of texts")
        return [Path(source)]
    if not isinstance(source, Sequence) or not source:
        return None
    if any(isinstance(item, os.PathLike) for item in source):
        for item in source:
            if not os.path.isfile(item):
                raise InputError(f"{item}: no such file. Try: paths of UTF-8 text files, or texts")
        return [Path(item) for item in source]
    if all(isinstance(item, str) and 0 < len(item) < 4096 and "\0" not in item for item in source):
        try:
            if all(os.path.isfile(item) for item in source):
                return [Path(item) for item in source]
        except (OSError, ValueError):
            return None
    return None
