"""Which device a command runs on, with how many threads, whether bfloat16 is fast there, and its random state."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fastbert.system.cores import available_cores
from fastbert.system.errors import InputError
from fastbert.system.processor import bf16_is_fast


def choose_device(name: str | None, local_rank: int | None = None) -> torch.device:
    """The device of ``--device``, checked with an allocation; by default a GPU if there is one.

    Args:
        name: "cpu", "cuda", "cuda:1" …
        local_rank: this rank's number among those of its machine; None: started without torchrun.

    Raises:
        InputError: the device cannot be used.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not usable ({str(error).splitlines()[0]}). Try: --device cpu") from None
    return device


def set_threads(threads: int | None, local_size: int = 1) -> None:
    """Use ``threads`` CPU threads; by default this rank's share of the cores (torchrun would give each rank one)."""
    if threads or local_size > 1:
        torch.set_num_threads(threads or max(1, available_cores() // local_size))


def quick_at_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions (GPUs since Ampere, some CPUs); elsewhere bf16 is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bf16_is_fast()


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager:
    """Autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of every generator that a step on this device uses."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
