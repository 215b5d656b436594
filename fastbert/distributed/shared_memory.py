"""CPU ranks of one machine share one set of weights, and each rank updates its part of them.

An all-reduce over sockets copies every byte several times, and then every rank computes the same update. Here weights
and optimizer state are in memory that all ranks map. A rank writes the gradients of other ranks' parameters to its
outbox, adds what the others have written for it, and updates the parameters it owns. Only barriers and scalars go
through gloo. The sums are those of DDP in another order.

Reference: Rajbhandari et al., ZeRO, 2020 (optimizer state partitioned over the ranks).
"""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastbert import ops
from fastbert.distributed.parallelism import Parallelism, freeze
from fastbert.distributed.world import World
from fastbert.optim.adamw import AdamW, clip
from fastbert.optim.groups import uses_muon
from fastbert.optim.optimizers import Optimizers

ALIGNMENT_BYTES = 64  # no cache line holds parts of two tensors


def can_share(world: World, device: torch.device) -> bool:
    """Whether all ranks are CPU processes of one machine that lets them map one another's memory."""
    here = world.size > 1 and world.local_size == world.size and device.type == "cpu" and hasattr(os, "memfd_create")
    return here and os.path.isdir(f"/proc/{os.getpid()}/fd")


class SharedMemoryParallel(Parallelism):
    """One model for all ranks in shared memory; each rank runs its own forward and backward passes.

    Args:
        model: identical on every rank; its parameters move to shared memory.
        world: ranks of one machine.
        unused: prefixes of parameters that no loss reaches; they get no gradient.
        settings: of :class:`fastbert.optim.optimizers.Optimizers`.
    """

    replicated = False  # a dead rank may leave a half-finished update

    def __init__(self, model: nn.Module, world: World, unused: tuple[str, ...], settings: dict[str, Any]):
        freeze(model, unused)
        self.weights = SharedWeights(model, world, settings.get("optimizer", "muon"))
        super().__init__(model, SharedOptimizers(model, self.weights, **settings))

    def after_backward(self) -> None:
        self.weights.exchange_gradients()

    def after_update(self) -> None:
        self.weights.see_updates()


class SharedWeights:
    """Weights, optimizer state and gradient outboxes in memory that all ranks map."""

    def __init__(self, model: nn.Module, world: World, optimizer: str):
        self.world = world
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        by_muon = {n: optimizer == "muon" and uses_muon(n, p) for n, p in named}
        self.parameters = dict(named)
        self.owner = assign_owners({n: update_cost(p, by_muon[n]) for n, p in named}, world.size)
        shapes = {f"weight/{n}": p.shape for n, p in named}
        for n, p in named:
            states = {"momentum_buffer": p.shape} if by_muon[n] else {
                "step": torch.Size(), "exp_avg": p.shape, "exp_avg_sq": p.shape
            }  # fmt: skip
            shapes |= {f"{key}/{n}": shape for key, shape in states.items()}
        # an outbox takes up real memory only for parameters of other ranks
        shapes |= {f"outbox{rank}/{n}": p.shape for rank in range(world.size) for n, p in named}
        self._tensors = dict(zip(shapes, map_tensors(list(shapes.values()), world), strict=True))
        for n, p in named:
            shared = self._tensors[f"weight/{n}"]
            if world.main:
                shared.copy_(p.detach())
            p.data = shared
        world.barrier()

    def exchange_gradients(self) -> None:
        """Sum the gradients of this rank's parameters over the ranks; drop the gradients of the others."""
        mine = self.world.rank
        for name, parameter in self.parameters.items():
            if self.owner[name] != mine:
                outbox = self._tensors[f"outbox{mine}/{name}"]
                if parameter.grad is None:
                    outbox.zero_()
                else:
                    outbox.copy_(parameter.grad)
                parameter.grad = None
        self.world.barrier()
        for name, parameter in self.parameters.items():
            if self.owner[name] == mine:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                for rank in range(self.world.size):
                    if rank != mine:
                        parameter.grad.add_(self._tensors[f"outbox{rank}/{name}"])

    def see_updates(self) -> None:
        """Wait for all updates, and invalidate copies that this process keeps of other ranks' parameters."""
        self.world.barrier()
        others = [p for n, p in self.parameters.items() if self.owner[n] != self.world.rank]
        torch.autograd.graph.increment_version(others)
        ops.refresh_bf16_copies(others, self)

    def state_of(self, name: str) -> dict[str, Tensor]:
        """The shared optimizer state of a parameter."""
        keys = ("momentum_buffer", "step", "exp_avg", "exp_avg_sq")
        return {key: self._tensors[f"{key}/{name}"] for key in keys if f"{key}/{name}" in self._tensors}


def update_cost(parameter: Tensor, by_muon: bool) -> float:
    """Approximate time of its update, in nanoseconds of one core: memory-bound for AdamW, matmuls for Muon."""
    return parameter.numel() * (2 + 0.1 * min(parameter.shape) if by_muon else 1.5)


def assign_owners(costs: dict[str, float], count: int) -> dict[str, int]:
    """A rank for every parameter, the costliest first, always to the rank with the least work."""
    load, owner = [0.0] * count, {}
    for name in sorted(costs, key=lambda n: (-costs[n], n)):
        owner[name] = min(range(count), key=load.__getitem__)
        load[owner[name]] += costs[name]
    return owner


def map_tensors(shapes: list[torch.Size], world: World) -> Iterator[Tensor]:
    """Float32 zeros in memory shared between the ranks, which the kernel frees with the last of them."""
    sizes = [-(-4 * shape.numel() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for shape in shapes]
    descriptor = os.memfd_create("fastbert") if world.main else -1
    if world.main:
        os.ftruncate(descriptor, sum(sizes))
    path = world.run_on_main(lambda: f"/proc/{os.getpid()}/fd/{descriptor}")
    whole = torch.from_file(path, shared=True, size=sum(sizes) // 4, dtype=torch.float32)
    world.barrier()
    if world.main:
        os.close(descriptor)
    return (
        block[: shape.numel()].view(shape)
        for block, shape in zip(whole.split([size // 4 for size in sizes]), shapes, strict=True)
    )


class SharedOptimizers(Optimizers):
    """The optimizers of a shared model: all ranks see all state, each updates the parameters it owns."""

    def __init__(self, model: nn.Module, shared: SharedWeights, **options: Any):
        super().__init__(model, **options)
        self._shared = shared
        self._share_state()

    def _share_state(self) -> None:
        """Move the state to shared memory."""
        names = {parameter: name for name, parameter in self._shared.parameters.items()}
        for optimizer in self.parts.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter not in names:
                        optimizer.state.pop(parameter, None)
                        continue
                    state = self._shared.state_of(names[parameter])
                    if self._shared.world.main:
                        for key, value in optimizer.state.get(parameter, {}).items():
                            state[key].copy_(value)
                    optimizer.state[parameter] = state
        self._shared.world.barrier()

    def clip(self) -> Tensor:
        adamw = self.parts["adamw"]
        assert isinstance(adamw, AdamW)

        def over_ranks(norm: Tensor) -> Tensor:
            return self._shared.world.sum(norm.double().square()).sqrt().float()

        return clip(adamw, self.clipped, self.clip_norm, over_ranks)

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        super().load_state_tensors(tensors)
        self._share_state()
