"""One process per run directory: an advisory lock that the operating system releases when its holder dies.

The lock is on the open file, not on its existence, so a crash leaves nothing to clean up. The file names the holder.
"""

import errno
import json
import os
import socket
import time
import warnings
from pathlib import Path

from fastbert.system.errors import InputError

NAME = ".lock"
_UNSUPPORTED = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS}


class RunLock:
    """The lock of one directory; :meth:`release` or the end of the process frees it."""

    def __init__(self, directory: Path, descriptor: int):
        self.directory, self._descriptor = directory, descriptor

    @classmethod
    def acquire(cls, directory: Path) -> "RunLock":
        """Take the lock of an existing directory.

        Raises:
            InputError: another process holds it.
            OSError: the directory cannot be written.
        """
        path = directory / NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if not _lock(descriptor):
                    holder = _holder(descriptor)
                    raise InputError(f"{directory}: in use by {holder}. Try: wait for it, stop it, or another --output")
                # the previous holder may have deleted the file we opened; then lock its successor
                if _same_file(descriptor, path):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode(), 0)
        return cls(directory, descriptor)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _lock(descriptor: int) -> bool:
    """Try to take the lock."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn("this file system has no locks. Try: never two runs in one directory", stacklevel=2)
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Who holds the lock; the holder writes it shortly after it has locked the file."""
    for _ in range(20):
        try:
            who = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {who['pid']} on {who['host']} since {who['since']}"
        except (ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
