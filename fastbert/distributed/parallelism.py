"""How the ranks of a run share one model: a single process, DDP, or FSDP2.

The trainer sees one object with one interface: what runs the forward pass, how a loss is scaled before ``backward``,
and what a checkpoint holds.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastbert.distributed.world import World
from fastbert.optim.optimizers import Optimizers

BUCKET_MB = 25  # of gradients, reduced while the backward pass continues


@dataclass(frozen=True)
class Snapshot:
    """State to be saved; the main rank writes the tensors, all ranks call ``write_shards``."""

    model: Mapping[str, Tensor]  # empty on ranks that do not write
    optimizer: Mapping[str, Tensor]
    write_shards: Callable[[Path], None] | None = None


class Parallelism:
    """A single process; the other modes override what differs.

    Attributes:
        forward: called in place of the model.
        backward_scale: factor of the loss before ``backward``, where gradients are averaged over the ranks afterwards.
        sharded: no rank has the whole state. Otherwise the main rank can save even when another rank has died.
    """

    backward_scale = 1.0
    sharded = False

    def __init__(self, model: nn.Module, optimizers: Optimizers):
        self.model, self.optimizers = model, optimizers
        self.forward: nn.Module = model

    def no_sync(self) -> AbstractContextManager:
        """Around the forward and backward passes of all micro-batches but the last: gradients are only accumulated."""
        return nullcontext()

    def snapshot(self) -> Snapshot:
        """The state of model and optimizers; all ranks call it."""
        return Snapshot(self.model.state_dict(), self.optimizers.state_tensors())

    def load(self, model: Mapping[str, Tensor], optimizer: dict[str, Tensor]) -> None:
        """Load full tensors, saved by any number of ranks.

        Raises:
            RuntimeError, KeyError: they belong to another model or optimizer.
        """
        self.model.load_state_dict(model)
        self.optimizers.load_state_tensors(optimizer)

    def full_state(self, keep: bool) -> Mapping[str, Tensor] | None:
        """The weights of a sharded model on ranks that ``keep`` them; None: ``model`` is whole. All ranks call it."""
        return None


class DataParallel(Parallelism):
    """DDP: every rank has a copy of everything; gradients are averaged during the backward pass."""

    def __init__(self, model: nn.Module, world: World, unused: tuple[str, ...], settings: dict[str, Any]):
        ddp = self._ddp = replicate(model, unused)
        super().__init__(model, Optimizers(model, **settings))
        self.forward, self.backward_scale = ddp, float(world.size)

    def no_sync(self) -> AbstractContextManager:
        return self._ddp.no_sync()


def replicate(model: nn.Module, unused: tuple[str, ...] = ()) -> nn.parallel.DistributedDataParallel:
    """The model wrapped in DDP.

    Args:
        model: on its device, identical on every rank afterwards.
        unused: prefixes of parameters that no loss reaches; they get no gradient.
    """
    freeze(model, unused)
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB)


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(prefixes):
            parameter.requires_grad_(False)
