"""CUDA graphs on the pretended device: a capture writes down every operation, a replay does them again.

As on a GPU, a capture changes nothing: what it has overwritten is put back, and what it has allocated holds no numbers
until the first replay. A replay uses the storages and the Python numbers of the capture: whatever the host has worked
out since, a rate, a length, a new tensor, it does not see.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from pretended.log import LOG, CaptureError

_numbers = itertools.count(1)
_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


class CUDAGraph:
    """In place of torch.cuda.CUDAGraph."""

    def __init__(self, keep_graph: bool = False):
        self._number = next(_numbers)
        self._operations: list[Callable[[], object]] = []
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # storages that are not ours, and their bytes
        self._ours: dict[int, torch.Tensor] = {}  # storages that were allocated in the capture
        self._captured = False

    def pool(self) -> tuple[int, int]:
        return 0, self._number

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    def replay(self) -> None:
        if not self._captured:
            raise RuntimeError("a graph that was not captured is replayed")
        LOG.launch("graph")
        for operation in self._operations:
            operation()

    # ---- capture ----
    def begin(self) -> None:
        if LOG.capturing:
            raise CaptureError("a capture inside a capture")
        self._random_state = torch.get_rng_state()
        LOG.capturing, LOG.graph = True, self

    def end(self) -> None:
        LOG.capturing, LOG.graph = False, None
        for storage, content in self._before.values():
            storage.copy_(content)
        for x in self._ours.values():
            _forget(x)
        torch.set_rng_state(self._random_state)
        self._before, self._captured = {}, True

    def record(self, function: Callable[..., Any], args, kwargs, written: Iterable[torch.Tensor], name: str) -> Any:
        """Run an operation on the inner tensors, and write it down."""
        written = list(written)
        for x in written:
            self._keep(x)
        out = function(*args, **kwargs)
        given = {_address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and _address(x) not in given]
        self._ours.update((_address(x), x) for x in made)
        if name in _ALLOCATIONS:
            self._operations.append(lambda: [_forget(x) for x in made])
        elif made or written:

            def again() -> None:
                fresh = tree_leaves(function(*args, **kwargs))
                for old, new in zip(tree_leaves(out), fresh, strict=True):
                    if isinstance(old, torch.Tensor) and _address(old) not in given:
                        old.copy_(new)

            self._operations.append(again)
        return out

    def record_launch(self, function: Callable[[], None], tensors: Iterable[torch.Tensor]) -> None:
        for x in tensors:
            self._keep(x)
        function()
        self._operations.append(function)

    def _keep(self, x: torch.Tensor) -> None:
        """The bytes of a storage, before the capture overwrites it."""
        address = _address(x)
        if address not in self._before and address not in self._ours:
            storage = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
            self._before[address] = storage, storage.clone()


class graph:
    """In place of torch.cuda.graph."""

    def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global"):
        self._graph = cuda_graph

    def __enter__(self) -> None:
        self._graph.begin()

    def __exit__(self, *_: object) -> None:
        self._graph.end()


def _address(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _forget(x: torch.Tensor) -> None:
    if x.is_floating_point():
        x.fill_(float("nan"))


def written_by(func, args, kwargs) -> list[torch.Tensor]:
    """The tensors that an ATen operation writes into, by its schema."""
    arguments = func._schema.arguments
    given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
    marked = [value for argument, value in given if argument.alias_info is not None and argument.alias_info.is_write]
    return [x for x in tree_leaves(marked) if isinstance(x, torch.Tensor)]


def execute(func, args, kwargs) -> Any:
    """An ATen operation on inner tensors, written down if a graph is being captured."""
    if func is torch.ops.aten.mm.dtype:  # of CUDA only: the products' sums, unrounded
        func, args = torch.ops.aten.mm.default, tuple(x.to(args[2]) for x in args[:2])
    if LOG.graph is None:
        return func(*args, **kwargs)
    return LOG.graph.record(
        func, args, kwargs, written_by(func, args, kwargs), func.name().rpartition("::")[2].partition(".")[0]
    )


def refuse_host_tensors(name: str, on_cpu: list[torch.Tensor]) -> None:
    """A number of the host that an operation on the device reads: a replay would read the old one."""
    if LOG.capturing and on_cpu:
        raise CaptureError(
            f"{name} reads a CPU tensor of shape {tuple(on_cpu[0].shape)} while a CUDA graph is captured"
        )
