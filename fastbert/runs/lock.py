"""One process in a run directory at a time: an advisory lock that the operating system drops when its holder dies.

The lock is on the open file, not on its existence, so that a crash leaves nothing to clean up: whoever comes next takes
it over. The file's text says who holds it, for the one who is turned away.
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
            InputError: another process holds it; the line says which, where and since when.
            OSError: the directory cannot be written.
        """
        path = directory / NAME
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if not _lock(descriptor):
                    remedy = "wait for it, stop it, or choose another --output"
                    raise InputError(f"{directory}: in use by {_holder(descriptor)}: {remedy}")
                # a holder that cleaned up has removed the file we opened: its successor must be locked, not it
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
    """Whether the lock is ours now."""
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
        warnings.warn("this file system has no locks: do not start two runs in one directory", stacklevel=2)
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Who wrote the file, in words; the holder writes it a moment after it has the lock."""
    for _ in range(20):
        try:
            who = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {who['pid']} on {who['host']} since {who['since']}"
        except (ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
