"""Background work during training, one task at a time, in a thread whose errors are raised in the training loop."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Background:
    """One slot: :meth:`submit` waits for the previous task, and every call raises the error of a failed task."""

    def __init__(self, name: str):
        self.name = name
        self.cpu_s = 0.0  # CPU time of the last finished task
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, work: Callable[[], object]) -> None:
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"fastbert-{self.name}")
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        began_s = time.thread_time()
        try:
            work()
        except BaseException as error:  # raised in the training loop
            self._error = error
        self.cpu_s = time.thread_time() - began_s

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise the error of the last task, if it failed; do not wait."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait until the slot is free; raise the error of the last task, if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """If the block fails, raise the error of this work instead, if it has one: it explains the failure better."""
        try:
            yield
        except Exception:
            self.wait()
            raise


class HostCopy:
    """Copies of tensors in host buffers allocated once, so that a thread can save them while training continues."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors, overwriting the copies of the previous call, which must no longer be in use."""
        taken, on_gpu = {}, False
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._buffers[name] = buffer
            taken[name] = buffer.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
            on_gpu |= tensor.is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        return taken
