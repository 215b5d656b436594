"""``train --watch``: the run's live page, by a process of its own that only reads the run's files."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastbert.system.errors import InputError

PACKAGES = ("starlette", "uvicorn", "pydantic", "orjson")
LAST_LOOK_S = 1.5  # until the page has shown the end


def check_packages() -> None:
    """Refuse before a run has begun.

    Raises:
        InputError: a package is missing.
    """
    if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise InputError(f"--watch: the package {missing[0]} is missing. Try: pip install 'fastbert[serve]'")


@contextmanager
def live_page(run: Path, wanted: bool) -> Iterator[None]:
    """Serve the page while the block runs; its address is printed."""
    if not wanted:
        yield
        return
    command = [sys.executable, "-m", "fastbert.serve", str(run), "--watch", "--port", "0"]
    command += ["--parent", str(os.getpid())]  # nothing below runs if this process is killed
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield
            time.sleep(LAST_LOOK_S)
        finally:
            process.terminate()
