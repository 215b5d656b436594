"""A launcher whose numbers are worked out once: after its first call only addresses go to the driver.

A launcher asks of its tensors shapes, strides and dtypes, looks for a configuration and names forty arguments, which
costs the host several times what Triton's own launch does. Where a caller knows that all of this is as the last time, a
:class:`Prepared` one takes the launches that the launcher made then and puts the new addresses in.
"""

import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor
from triton import knobs
from triton.runtime import driver

from fastbert.kernels.launch import Kept, keeping

_ADDRESS = Tensor.data_ptr


class Prepared:
    """A launcher that is called with tensors alone, always of the same shapes, strides, dtypes and alignment.

    Args:
        launcher: fills some of its tensors by launches that read and write no other memory, views of them included.
        device: the current CUDA device's index.
    """

    def __init__(self, launcher: Callable[..., None], device: int):
        self._launcher, self._device = launcher, device
        self._launches: list[tuple[Any, ...]] = []
        self._stream: Callable[[int], int] = int

    def __call__(self, *tensors: Tensor | None) -> None:
        hooks = knobs.runtime  # a profiler asks for every launch
        if not self._launches or hooks.launch_enter_hook.calls or hooks.launch_exit_hook.calls:
            self._first(tensors)
            return
        stream = self._stream(self._device)
        for grid, run, function, metadata, pick, offsets, order, constants in self._launches:
            values = [*map(_ADDRESS, pick(tensors)), *constants]
            for at, offset in offsets:
                values[at] += offset
            run(grid, 1, 1, stream, function, metadata, None, None, None, *order(values))

    def _first(self, tensors: tuple[Tensor | None, ...]) -> None:
        with keeping() as kept:
            self._launcher(*tensors)
        if not kept:  # recorded and interpreted launches compile nothing
            return
        storages = [x.untyped_storage().data_ptr() for x in tensors if x is not None]
        if len(set(storages)) < len(storages):  # a pointer could belong to either
            return
        self._stream = driver.active.get_current_stream
        self._launches = [_prepared(launch, tensors) for launch in kept]


def _prepared(launch: Kept, tensors: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    """What :meth:`Prepared.__call__` unpacks.

    Returns:
        the grid, Triton's launcher and what it wants of the compiled kernel; then the tensors whose addresses are
        pointers, what is added to some of these addresses, and the order of addresses and constants as arguments.
    """
    pointers, constants, order = [], [], []
    for parameter in launch.kernel.params:
        value = launch.arguments[parameter.name]
        if isinstance(value, Tensor):
            order.append((0, len(pointers)))
            pointers.append(_place(value, tensors))
        else:
            order.append((1, len(constants)))
            constants.append(value)
    compiled = launch.compiled
    return (
        launch.grid, compiled.run, compiled.function, compiled.packed_metadata,
        operator.itemgetter(*(place for place, _ in pointers)),
        [(at, offset) for at, (_, offset) in enumerate(pointers) if offset],
        operator.itemgetter(*(at + len(pointers) * is_constant for is_constant, at in order)), constants,
    )  # fmt: skip


def _place(x: Tensor, tensors: tuple[Tensor | None, ...]) -> tuple[int, int]:
    for at, given in enumerate(tensors):
        if given is not None and given.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            return at, x.data_ptr() - given.data_ptr()
    raise ValueError("a prepared launcher launches on memory that it was not given")
