"""Which way the ranks share a model, and the model set up for it."""

from typing import Any, Literal

import torch
from torch import nn

from fastbert.distributed.parallelism import DataParallel, Parallelism
from fastbert.distributed.world import World
from fastbert.optim.optimizers import Optimizers

Mode = Literal["single", "ddp", "fsdp"]


def choose_mode(shard: bool, world: World) -> Mode:
    """FSDP2 if requested (``--shard``), else DDP for several ranks."""
    if shard:
        return "fsdp"
    return "single" if world.size == 1 else "ddp"


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
    if mode == "ddp":
        return DataParallel(model, world, unused, settings)
    return Parallelism(model, Optimizers(model, **settings))
