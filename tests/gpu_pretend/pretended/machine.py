"""What torch.cuda answers on the pretended machine: one GPU of compute capability 9.0."""

import contextlib
import importlib
import types

import torch

from pretended.graphs import CUDAGraph, graph
from pretended.log import LOG
from pretended.tensors import OnCuda, Pretending

NAME, MEMORY = "Pretended H200", 140 << 30


class Event:
    """An event; waiting for one that has work queued behind it does not leave the device idle."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self.launches = LOG.total

    def record(self, stream: object = None) -> None:
        self.launches = LOG.total

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        (LOG.late_wait if LOG.total > self.launches else LOG.wait)("Event.synchronize()")

    def elapsed_time(self, other: "Event") -> float:
        return max((other.launches - self.launches) * 5e-3, 1e-3)


class Stream:
    """The only stream."""

    def __init__(self, device: object = None, priority: int = 0):
        self.device = torch.device("cuda", 0)
        self.cuda_stream = 0

    def synchronize(self) -> None:
        LOG.wait("Stream.synchronize()")

    def wait_stream(self, other: object) -> None: ...

    def wait_event(self, event: object) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None: ...


class _Device(contextlib.AbstractContextManager):
    def __init__(self, device: object):
        self.device = device

    def __exit__(self, *_: object) -> bool:
        return False


_StockGenerator = torch.Generator


class _Generator(_StockGenerator):
    """A generator of the device draws on the CPU."""

    def __new__(cls, device: object = "cpu"):
        return _StockGenerator.__new__(cls, "cpu")


def install(capability: tuple[int, int] = (9, 0)) -> None:
    """Make torch.cuda say that there is a GPU, and send every operation of this thread through the rules."""
    cuda = torch.cuda
    properties = types.SimpleNamespace(
        major=capability[0], minor=capability[1], multi_processor_count=132, total_memory=MEMORY, name=NAME,
        warp_size=32, regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=232448, L2_cache_size=50 << 20,
    )  # fmt: skip
    stream = Stream()
    answers = {
        "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "_lazy_init": lambda: None, "is_initialized": lambda: True, "_is_in_bad_fork": lambda: False,
        "set_device": lambda device: None, "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: NAME, "get_device_properties": lambda device=None: properties,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY), "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0, "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None, "is_bf16_supported": lambda including_emulation=True: capability >= (8, 0),
        "synchronize": lambda device=None: LOG.wait("torch.cuda.synchronize()"),
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None, "manual_seed_all": lambda seed: None,
        "manual_seed": lambda seed: None, "device": _Device, "Event": Event, "Stream": Stream,
        "current_stream": lambda device=None: stream, "default_stream": lambda device=None: stream,
        "stream": lambda given: given or stream, "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
        "is_current_stream_capturing": lambda: LOG.capturing, "CUDAGraph": CUDAGraph, "graph": graph,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.Generator = _Generator
    # a module that moves to the device gets new parameters: the old ones cannot take the new kind of tensor
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    # PyTorch's multi-tensor kernels too take plain tensors only
    for module in ("torch.utils._foreach_utils", "torch.optim.optimizer"):
        importlib.import_module(module)._foreach_supported_types.append(OnCuda)
    Pretending().__enter__()
