"""Files that are complete or absent, never half-written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path`` that replaces it at the end; on failure it is deleted."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_durably(path: Path, text: str) -> None:
    """Write a small text file atomically and flush it, and its directory entry, to the disk."""
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        flush_to_disk(file)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def flush_to_disk(file: IO) -> None:
    file.flush()
    os.fsync(file.fileno())
