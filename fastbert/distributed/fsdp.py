"""Weights, gradients and optimizer state sharded over the ranks (FSDP2), for models that do not fit on one device.

A layer's parameters are gathered when it runs and freed afterwards; gradients are reduced and scattered by rows. AdamW
updates the local rows; Muon gathers one matrix after the other, because its update needs the whole matrix. Optimizer
state is saved through ``torch.distributed.checkpoint``, as safetensors, and can be loaded on any number of ranks.

Reference: Rajbhandari et al., ZeRO, 2020; Zhao et al., PyTorch FSDP, 2023.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint import save as dcp_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fastbert import ops
from fastbert.distributed.parallelism import Parallelism, Snapshot
from fastbert.distributed.world import World
from fastbert.optim.muon import COEFFICIENTS, Muon, orthogonalise
from fastbert.optim.optimizers import Optimizers
from fastbert.runs.sharded_state import silence_warnings
from fastbert.system.background import HostCopy


class FullyShardedParallel(Parallelism):
    """FSDP2: every rank holds a part of the weights and of the optimizer state."""

    sharded = True

    def __init__(self, model: nn.Module, world: World, device: torch.device, settings: dict[str, Any]):
        shard(model, world, device)
        super().__init__(model, ShardedOptimizers(model, **settings))
        self.backward_scale = float(world.size)
        self._world, self._files = world, ShardFiles(world)

    def snapshot(self) -> Snapshot:
        shards, files = self._files.copy(self.optimizers.state_tensors()), self._files
        model = full_state(self.model, keep=self._world.main)
        return Snapshot(model, {}, lambda directory: files.write(shards, directory))

    def load(self, model: Mapping[str, Tensor], optimizer: dict[str, Tensor]) -> None:
        load_full_state(self.model, model)
        self.optimizers.load_state_tensors(optimizer)

    def full_state(self, keep: bool) -> Mapping[str, Tensor]:
        return full_state(self.model, keep)


def shard(model: nn.Module, world: World, device: torch.device) -> None:
    """Shard the parameters along dimension 0, one group for each encoder layer and one for the rest."""
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in model.get_submodule("encoder.layers").children():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank; all ranks call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """This rank's shard of a full tensor that all ranks have, with the layout of ``model``."""
    if not isinstance(model, DTensor):
        return tensor.to(model.device)
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ShardedMuon(Muon):
    """Muon on shards: momentum stays sharded; each direction is gathered, orthogonalised, and applied to local rows."""

    def _update(self) -> None:
        (group,) = self.param_groups
        lr, momentum = group["lr"], group["momentum"]
        for parameter, count in zip(group["params"], self.parts, strict=True):
            if parameter.grad is None:
                continue
            buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            grad, mine = local(parameter.grad), local(parameter)
            local(buffer).lerp_(grad, 1 - momentum)
            shard_of = DTensor.from_local(
                grad.lerp(local(buffer), momentum), parameter.device_mesh, parameter.placements,
                shape=parameter.shape, stride=parameter.stride(), run_check=False,
            )  # fmt: skip
            update = whole_update(shard_of.full_tensor(), count, group["steps"], self.dtype)
            mine.mul_(1 - lr * group["weight_decay"])
            mine.add_(local(like(update, parameter)), alpha=-lr)


def whole_update(direction: Tensor, count: int, steps: int, dtype: torch.dtype) -> Tensor:
    """Orthogonalise the ``count`` projections stacked in a matrix (R, C), each scaled as Muon does."""
    fused = ops.fused_muon([direction])
    if fused is not None:  # same iteration as on one rank: a step from zero without momentum
        update = torch.zeros_like(direction)
        fused(
            [update], [direction], [torch.zeros_like(direction)], [count], lr=-1.0, momentum=0.0, weight_decay=0.0,
            coefficients=COEFFICIENTS, iterations=steps, narrow=dtype == torch.bfloat16, owner=None,
        )  # fmt: skip
        return update
    parts = torch.stack(direction.chunk(count))
    rows, columns = parts.shape[1:]
    flat = orthogonalise(parts.mT, steps, dtype).mT if rows > columns else orthogonalise(parts, steps, dtype)
    # scaled in the gradient's dtype, as Muon does: in bfloat16 the factor would round once more
    return flat.reshape(direction.shape).to(direction.dtype) * max(1.0, rows / columns) ** 0.5


class ShardedOptimizers(Optimizers):
    """The optimizers of a sharded model."""

    def __init__(self, model: nn.Module, **options: Any):
        super().__init__(model, **options)
        ours = self.parts["adamw"]  # updates whole tensors in one pass; shards need torch's own
        groups = [
            {"params": list(zip(g["param_names"], g["params"], strict=True))}
            | {name: g[name] for name in ("lr", "scale", "weight_decay")}
            for g in ours.param_groups
        ]
        self.parts["adamw"] = torch.optim.AdamW(groups, lr=self.peaks["adamw"], betas=self.betas, eps=1e-6, fused=True)
        if isinstance(plain := self.parts.get("muon"), Muon):
            (group,) = plain.param_groups
            names = zip(group["param_names"], group["params"], strict=True)
            parts = dict(zip(group["param_names"], plain.parts, strict=True))
            kept = {name: group[name] for name in ("lr", "momentum", "weight_decay", "steps")}
            self.parts["muon"] = ShardedMuon(names, parts, dtype=plain.dtype, **kept)

    def clip(self) -> Tensor:
        return whole(super().clip())

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load full tensors, saved by any number of ranks."""
        super().load_state_tensors(tensors)
        for optimizer in self.parts.values():
            for parameter, states in optimizer.state.items():
                for key, value in states.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        states[key] = like(value, parameter)


def full_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The full weights on the CPU of ranks that ``keep`` them; all ranks call it."""
    gathered = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)
        if keep:
            gathered[name] = full.cpu()
    return gathered


def load_full_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load full weights into the shards.

    Raises:
        RuntimeError: names or shapes differ.
    """
    own = model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        raise RuntimeError("names or shapes of the weights differ")
    with torch.no_grad():
        for name, tensor in own.items():
            local(tensor).copy_(local(like(state[name], tensor)))


class ShardFiles:
    """Saves sharded optimizer state from copies in host memory, over a separate process group."""

    def __init__(self, world: World):
        self.mesh = init_device_mesh("cpu", (world.size,))
        self.group = dist.new_group(backend="gloo")
        self._copy = HostCopy()

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as shards in host memory, reusing the buffers of the previous call."""
        copies = self._copy.take({name: local(tensor) for name, tensor in tensors.items()})
        return {
            name: DTensor.from_local(
                copies[name], self.mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride(), run_check=False
            ) if isinstance(tensor, DTensor) else copies[name]
            for name, tensor in tensors.items()
        }  # fmt: skip

    def write(self, tensors: dict[str, Tensor], directory: Path) -> None:
        """Write this rank's part; all ranks call it, and rank 0 has made the directory."""
        dist.barrier(self.group)
        silence_warnings()
        writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
        dcp_save(tensors, storage_writer=writer, process_group=self.group)
