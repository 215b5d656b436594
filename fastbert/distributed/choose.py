"""Which way the ranks share a model, and the model set up for it."""

from typing import Any, Literal

import torch
from torch import nn

from fastbert.distributed.parallelism import DataParallel, Parallelism
from fastbert.distributed.shared_memory import SharedMemoryParallel, can_share
from fastbert.distributed.world import World
from fastbert.optim.optimizers import Optimizers
from fastbert.system.errors import AllRanksFail

Mode = Literal["single", "ddp", "fsdp", "memory"]


def choose_mode(shard: bool, parallel: Literal["auto", "memory", "ddp"], device: torch.device, world: World) -> Mode:
    """The mode for ``--shard`` and ``--parallel``; without them shared memory if possible, else DDP."""
    if parallel == "memory" and not can_share(world, device):
        raise AllRanksFail("--parallel memory: needs CPU ranks of one Linux machine under torchrun. Try: leave it out")
    if shard:
        return "fsdp"
    if world.size == 1:
        return "single"
    return "memory" if parallel != "ddp" and can_share(world, device) else "ddp"


def parallelize(
    model: nn.Module, mode: Mode, world: World, device: torch.device, unused: tuple[str, ...], settings: dict[str, Any]
) -> Parallelism:
    """The model under ``mode`` with its optimizers.

    Args:
        model: on ``device``.
        mode: of all ranks.
        world: the ranks.
        device: of this rank.
        unused: prefixes of parameters that no loss reaches.
        settings: keyword arguments of :class:`fastbert.optim.optimizers.Optimizers`.
    """
    if mode == "fsdp":
        from fastbert.distributed.fsdp import FullyShardedParallel  # imports much of torch.distributed

        return FullyShardedParallel(model, world, device, settings)
    if mode == "memory":
        return SharedMemoryParallel(model, world, unused, settings)
    if mode == "ddp":
        return DataParallel(model, world, unused, settings)
    return Parallelism(model, Optimizers(model, **settings))
