"""CPU ranks of one machine share its memory: one set of weights, and each rank is the optimizer of its part of them.

A sum of gradients over sockets copies every byte several times, and then every rank makes the same update. Here the
weights and the optimizers' state lie in memory that all ranks map. A rank leaves the gradients of others' parameters in
its box, adds what the others left for it to its own, and updates its parameters where all see them. Only words of
agreement go through gloo. The sums are those of DDP in another order.

Reference: Rajbhandari et al., ZeRO, 2020 (optimizer state partitioned over the ranks).
"""

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastbert import ops
from fastbert.distributed.world import World
from fastbert.model import BertForPreTraining
from fastbert.optim.adamw import AdamW, clip
from fastbert.optim.optimizers import Optimizers, is_hidden_matrix

ALIGNMENT = 64  # bytes: a line of the cache belongs to one tensor


def can_share(world: World, device: torch.device) -> bool:
    """Whether all ranks are CPU processes of one machine that lets them map one another's memory."""
    here = world.size > 1 and world.local_size == world.size and device.type == "cpu" and hasattr(os, "memfd_create")
    return here and os.path.isdir(f"/proc/{os.getpid()}/fd")


class SharedMemory(nn.Module):
    """The model of all ranks: forward is the rank's own, weights are everybody's.

    Args:
        model: alike on every rank; its parameters move into the shared memory.
        world: ranks of one machine.
        optimizer: "muon" or "adamw", as :class:`fastbert.optim.optimizers.Optimizers` has it.
        unused: prefixes of parameters that no loss reaches; they keep no gradient.
    """

    def __init__(self, model: BertForPreTraining, world: World, optimizer: str = "muon", unused: tuple[str, ...] = ()):
        super().__init__()
        self.model, self.world = model, world
        for name, parameter in model.named_parameters():
            if name.startswith(unused):
                parameter.requires_grad_(False)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        by_muon = {n: optimizer == "muon" and is_hidden_matrix(n, p) for n, p in named}
        self.parameters_by_name = dict(named)
        self.owner = share_out({n: update_cost(p, by_muon[n]) for n, p in named}, world.size)
        shapes = {f"weight/{n}": p.shape for n, p in named}
        for n, p in named:
            states = {"momentum_buffer": p.shape} if by_muon[n] else {
                "step": torch.Size(), "exp_avg": p.shape, "exp_avg_sq": p.shape
            }  # fmt: skip
            shapes |= {f"{key}/{n}": shape for key, shape in states.items()}
        # a box is touched, and so is real memory, only where the parameter is another rank's
        shapes |= {f"box{rank}/{n}": p.shape for rank in range(world.size) for n, p in named}
        self.places = dict(zip(shapes, map_tensors(list(shapes.values()), world), strict=True))
        for n, p in named:
            place = self.places[f"weight/{n}"]
            if world.main:
                place.copy_(p.detach())
            p.data = place
        world.meet()

    def forward(self, *arguments, **options):
        return self.model(*arguments, **options)

    def exchange(self) -> None:
        """After the backward pass: sum the gradients of this rank's parameters over the ranks; the others are gone."""
        mine = self.world.rank
        for name, parameter in self.parameters_by_name.items():
            if self.owner[name] != mine:
                place = self.places[f"box{mine}/{name}"]
                if parameter.grad is None:
                    place.zero_()
                else:
                    place.copy_(parameter.grad)
                parameter.grad = None
        self.world.meet()
        for name, parameter in self.parameters_by_name.items():
            if self.owner[name] == mine:
                left = [self.places[f"box{rank}/{name}"] for rank in range(self.world.size) if rank != mine]
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                for other in left:
                    parameter.grad.add_(other)

    def updated(self) -> None:
        """After the update: wait for all, and let nobody here believe what they knew of other ranks' weights."""
        self.world.meet()
        others = [p for n, p in self.parameters_by_name.items() if self.owner[n] != self.world.rank]
        torch.autograd.graph.increment_version(others)
        ops.renew_images(others, self)

    def state_places(self, name: str) -> dict[str, Tensor]:
        """The shared optimizer state of a parameter."""
        keys = ("momentum_buffer", "step", "exp_avg", "exp_avg_sq")
        return {key: self.places[f"{key}/{name}"] for key in keys if f"{key}/{name}" in self.places}


def update_cost(parameter: Tensor, by_muon: bool) -> float:
    """About how long its update takes, in nanoseconds of one core: memory for AdamW, products for Muon."""
    return parameter.numel() * (2 + 0.1 * min(parameter.shape) if by_muon else 1.5)


def share_out(costs: dict[str, float], count: int) -> dict[str, int]:
    """A rank for every parameter, the costliest first to whoever has least to do."""
    load, owner = [0.0] * count, {}
    for name in sorted(costs, key=lambda n: (-costs[n], n)):
        owner[name] = min(range(count), key=load.__getitem__)
        load[owner[name]] += costs[name]
    return owner


def map_tensors(shapes: list[torch.Size], world: World) -> Iterator[Tensor]:
    """Float32 tensors of zeros in memory that the kernel shares between the ranks; it goes with the last of them."""
    sizes = [-(-4 * shape.numel() // ALIGNMENT) * ALIGNMENT for shape in shapes]
    descriptor = os.memfd_create("fastbert") if world.main else -1
    if world.main:
        os.ftruncate(descriptor, sum(sizes))
    path = world.from_main(lambda: f"/proc/{os.getpid()}/fd/{descriptor}")
    whole = torch.from_file(path, shared=True, size=sum(sizes) // 4, dtype=torch.float32)
    world.meet()
    if world.main:
        os.close(descriptor)
    return (
        block[: shape.numel()].view(shape)
        for block, shape in zip(whole.split([size // 4 for size in sizes]), shapes, strict=True)
    )


class SharedOptimizers(Optimizers):
    """The optimizers of a shared model: every rank has all state in view and turns the parameters it owns."""

    def __init__(self, model: BertForPreTraining, memory: SharedMemory, **options):
        super().__init__(model, **options)
        self.memory = memory
        self._place_state()

    def _place_state(self) -> None:
        """Move the state into the shared memory, and let every rank see it there."""
        named = {parameter: name for name, parameter in self.memory.parameters_by_name.items()}
        for optimizer, _ in self.parts.values():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter not in named:
                        optimizer.state.pop(parameter, None)
                        continue
                    places = self.memory.state_places(named[parameter])
                    if self.memory.world.main:
                        for key, value in optimizer.state.get(parameter, {}).items():
                            places[key].copy_(value)
                    optimizer.state[parameter] = places
        self.memory.world.meet()

    def clip(self) -> Tensor:
        adamw, _ = self.parts["adamw"]
        assert isinstance(adamw, AdamW)

        def of_all(norm: Tensor) -> Tensor:
            return self.memory.world.sum(norm.double().square()).sqrt().float()

        return clip(adamw, self.clipped, self.clip_norm, of_all)

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        super().load_state_tensors(tensors)
        self._place_state()
