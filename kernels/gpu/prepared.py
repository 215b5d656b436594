"""A launcher whose numbers are worked out once: after its first call only addresses go to the driver.

A launcher asks of its tensors shapes, strides and dtypes, looks for a configuration and names forty arguments, which
costs the host several times what Triton's own launch does. Where a caller knows that all of this is as the last time, a
:class:`Prepared` one takes the launches that the launcher made then and puts the new addresses in.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from triton.runtime import driver

from fastbert.kernels.launch import Kept, keeping
from fastbert.kernels.relaunch import is_watched


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
        if not self._launches or is_watched():
            self._first(tensors)
            return
        stream = self._stream(self._device)
        for grid, compiled, function, metadata, places, numbers in self._launches:
            addresses = [None if at is None else tensors[at].data_ptr() + offset for at, offset in places]  # type: ignore[union-attr]
            compiled(grid, 1, 1, stream, function, metadata, None, None, None, *addresses, *numbers)

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
    """What :meth:`Prepared.__call__` unpacks: every pointer as the place of a tensor and an offset in bytes."""
    places, numbers = [], []
    for parameter in launch.kernel.params:
        value = launch.arguments[parameter.name]
        if isinstance(value, Tensor) or (value is None and not numbers):
            assert not numbers, f"{parameter.name}: a kernel's tensors are its first parameters"
            places.append((None, 0) if value is None else _place(value, tensors))
        else:
            numbers.append(value)
    compiled = launch.compiled
    return launch.grid, compiled.run, compiled.function, compiled.packed_metadata, places, numbers


def _place(x: Tensor, tensors: tuple[Tensor | None, ...]) -> tuple[int, int]:
    for at, given in enumerate(tensors):
        if given is not None and given.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            return at, x.data_ptr() - given.data_ptr()
    raise ValueError("a prepared launcher launches on memory that it was not given")
