"""The one door through which every kernel is launched.

``launch(kernel, grid, config, **arguments)`` runs a kernel; under :func:`recording` it writes the launch down instead,
which lets the launchers run under fake CUDA tensors where there is no GPU (tests/kernels/test_launches.py) and gives
the ahead-of-time audit the very signatures that will be compiled.

A grid has one axis: CUDA limits the other two to 65 535 programs, which sequences times heads exceed.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from fastbert.kernels.relaunch import Relauncher

# architectures whose SMs have more than 200 KiB of shared memory and take warpgroup-wide matrix instructions
BIG_SHARED_MEMORY = ("sm_90", "sm_100", "sm_103")


@dataclasses.dataclass(frozen=True)
class Config:
    """How one kernel is cut up: its block sizes (kernel constants), warps a program and pipeline stages."""

    blocks: dict[str, int]
    num_warps: int = 4
    num_stages: int = 2


@dataclasses.dataclass(frozen=True)
class Launch:
    """One recorded launch."""

    kernel: Any
    grid: int
    config: Config
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__


@dataclasses.dataclass(frozen=True)
class Kept:
    """A launch that has run, with what it compiled to."""

    kernel: Any
    grid: int
    arguments: dict[str, Any]
    compiled: Any


_recorded: list[Launch] | None = None
_recorded_arch = ""
_kept: list[Kept] | None = None
_relaunchers: dict[int, tuple[Any, Relauncher]] = {}  # by the kernel's id: Triton hashes a kernel by its source


def interpreted(kernel: Any) -> bool:
    """True when the kernel was defined under TRITON_INTERPRET=1 and runs on the CPU."""
    return isinstance(kernel, InterpretedFunction)


def arch_of(tensor: Tensor) -> str:
    """The architecture a launch on this tensor is for: "sm_90", "gfx942", … or "interpreter"."""
    if _recorded_arch:
        return _recorded_arch
    if not tensor.is_cuda:
        return "interpreter"
    return _arch(tensor.get_device())


@functools.cache
def _arch(index: int) -> str:
    if torch.version.hip:
        return torch.cuda.get_device_properties(index).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(index)
    return f"sm_{major}{minor}"


@contextlib.contextmanager
def recording(arch: str) -> Iterator[list[Launch]]:
    """Record launches instead of running them, as if every tensor were on ``arch``."""
    global _recorded, _recorded_arch
    before = _recorded, _recorded_arch
    _recorded, _recorded_arch = [], arch
    try:
        yield _recorded
    finally:
        _recorded, _recorded_arch = before


@contextlib.contextmanager
def keeping() -> Iterator[list[Kept]]:
    """Keep the launches on a GPU that run inside the with block, in their order."""
    global _kept
    before, _kept = _kept, []
    try:
        yield _kept
    finally:
        _kept = before


def launch(kernel: Any, grid: int, config: Config, **arguments: Any) -> None:
    """Run ``kernel`` with ``grid`` programs; a grid of 0 runs nothing."""
    if grid == 0:
        return
    if grid >= 2**31:
        raise ValueError(f"{kernel.fn.__name__}: {grid} programs, a grid has at most 2^31 - 1. Remedy: a smaller batch")
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, config, arguments))
        return
    tensor = next(value for value in arguments.values() if isinstance(value, Tensor))
    if not tensor.is_cuda:
        _run(kernel, grid, config, arguments)
    # Triton launches on the current device, which need not be the tensors'
    elif is_current(tensor.get_device()):
        _relaunch(kernel, grid, config, arguments, tensor.get_device())
    else:
        with torch.cuda.device(tensor.device):
            _relaunch(kernel, grid, config, arguments, tensor.get_device())


def is_current(device: int) -> bool:
    """Whether launches go to CUDA device ``device``."""
    return _devices() == 1 or device == torch.cuda.current_device()


@functools.cache
def _devices() -> int:
    return torch.cuda.device_count()


def _run(kernel: Any, grid: int, config: Config, arguments: dict[str, Any]) -> Any:
    return kernel[(grid,)](**arguments, **config.blocks, num_warps=config.num_warps, num_stages=config.num_stages)


def _relaunch(kernel: Any, grid: int, config: Config, arguments: dict[str, Any], device: int) -> None:
    known = _relaunchers.get(id(kernel))
    if known is None:
        _relaunchers[id(kernel)] = known = kernel, Relauncher(kernel, arguments | config.blocks)
    compiled = known[1].launch(
        grid, device, arguments | config.blocks, (config.num_warps, config.num_stages),
        lambda: _run(kernel, grid, config, arguments),
    )  # fmt: skip
    if _kept is not None:
        _kept.append(Kept(kernel, grid, arguments | config.blocks, compiled))


def within_31_bits(x: Tensor, *dimensions: int, sizes: tuple[int, ...] = ()) -> Tensor:
    """x, or a copy in one piece where a kernel's 32-bit index times a stride would overflow.

    Args:
        dimensions: those whose indices are counted in 32 bits.
        sizes: how far each is counted; default: to its end.
    """
    counts = sizes or tuple(x.shape[d] for d in dimensions)
    far = any(count * x.stride(d) >= 2**31 for d, count in zip(dimensions, counts, strict=True))
    return x.contiguous() if far else x


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The least power of 2 that is not below n > 0; Triton's own takes microseconds."""
    return 1 << (n - 1).bit_length()
