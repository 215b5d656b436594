"""What the host asked of the pretended device: launches, waits, copies, each with the line of the package."""

import re
import sys
from collections import Counter
from typing import Any

_PACKAGE = re.compile(r".*/((?:fastbert|kernels/gpu|examples|benchmarks)/.*)")
# infrastructure between an operation and the line that asked for it
_BETWEEN = ("/gpu_pretend/pretended/", "/torch/_ops.py", "_dispatch", "pytree", "_dynamo", "_compile", "_library")


class Log:
    """Counters of one stretch of work.

    Attributes:
        launches: kernel → number of launches.
        waits: the host stands still until the device has done all it was given; place and reason → number.
        late_waits: for an event with further work queued behind it, so that the device does not run dry.
        pageable: copies to the device from memory that is not pinned, which wait too; place → number.
        pinned: copies between the device and pinned memory; place → number.
        capturing: a CUDA graph is being captured.
    """

    def __init__(self) -> None:
        self.total = 0  # launches since the start of the process
        self.bytes = 0  # that they read and wrote, each tensor once a launch
        self.capturing = False
        self.graph: Any = None  # that is being captured
        self.clear()

    def clear(self) -> None:
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.late_waits: Counter[str] = Counter()
        self.pageable: Counter[str] = Counter()
        self.pinned: Counter[str] = Counter()

    def launch(self, name: str, number: int = 1) -> None:
        self.launches[name] += number
        self.total += number

    def wait(self, reason: str) -> None:
        self._forbid(reason)
        self.waits[f"{where()}: {reason}"] += 1

    def late_wait(self, reason: str) -> None:
        self._forbid(reason)
        self.late_waits[f"{where()}: {reason}"] += 1

    def copy(self, reason: str, pinned: bool) -> None:
        if not pinned:
            self._forbid(reason)
        (self.pinned if pinned else self.pageable)[f"{where()}: {reason}"] += 1

    def _forbid(self, reason: str) -> None:
        if self.capturing:
            raise CaptureError(f"{where()}: {reason} while a CUDA graph is captured")

    def snapshot(self) -> dict[str, Counter[str]]:
        return {
            name: Counter(getattr(self, name)) for name in ("launches", "waits", "late_waits", "pageable", "pinned")
        }


class CaptureError(RuntimeError):
    """Something that a CUDA graph cannot hold."""


LOG = Log()


def where() -> str:
    """The nearest line of the package, else of whoever called PyTorch."""
    frame, other = sys._getframe(2), None
    while frame is not None:
        name = frame.f_code.co_filename
        if "site-packages" not in name and "/gpu_pretend/" not in name and (found := _PACKAGE.match(name)):
            return f"{found[1]}:{frame.f_lineno}"
        if other is None and not any(part in name for part in _BETWEEN):
            other = f"{name.rpartition('site-packages/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return other or "?"
