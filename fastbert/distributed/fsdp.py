"""Weights, gradients and optimizer state shared out over the ranks (FSDP2), for models that do not fit on one device.

Each layer's parameters are gathered when it runs and given back after it; gradients arrive summed, each rank its rows.
AdamW works on the rows as they are; Muon gathers one whole matrix after the other, since its update is of the matrix.
Optimizer state goes to checkpoints through ``torch.distributed.checkpoint``, as safetensors, and is read back on any
number of ranks.

Reference: Rajbhandari et al., ZeRO, 2020; Zhao et al., PyTorch FSDP, 2023.
"""

import logging
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter, TensorStorageMetadata
from torch.distributed.checkpoint import load as dcp_load
from torch.distributed.checkpoint import save as dcp_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fastbert import ops
from fastbert.distributed.world import World
from fastbert.model import BertForPreTraining
from fastbert.optim.muon import COEFFICIENTS, Muon, orthogonalise
from fastbert.optim.optimizers import Optimizers
from fastbert.system.background import HostCopy
from fastbert.system.errors import InputError


def shard(model: BertForPreTraining, world: World, device: torch.device) -> None:
    """Turn the parameters into shards of dimension 0, a group for each layer and one for the rest."""
    mesh = init_device_mesh(device.type, (world.size,))
    for layer in model.encoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """The tensor in full, on every rank; all ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """This rank's shard of a full tensor that all ranks have, laid out as ``model`` is."""
    if not isinstance(model, DTensor):
        return tensor.to(model.device)
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ShardedMuon(Muon):
    """Muon on shards: momentum stays in shards, each direction is gathered, orthogonalised, and its rows applied."""

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is None, "Muon takes no closure"
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
    """Orthogonalise the ``count`` maps that a matrix (R, C) stacks, each scaled as Muon does."""
    fused = ops.fused_muon([direction])
    if fused is not None:  # the iteration that one rank takes: a step from 0, without memory
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
    """The optimizers of a model that :func:`shard` has cut."""

    def __init__(self, model: BertForPreTraining, **options):
        super().__init__(model, **options)
        ours, peak = self.parts["adamw"]  # its one pass is over whole tensors: shards take torch's
        groups = [
            {"params": list(zip(g["param_names"], g["params"], strict=True)), "weight_decay": g["weight_decay"]}
            for g in ours.param_groups
        ]
        self.parts["adamw"] = (torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-6, fused=True), peak)
        if "muon" in self.parts:
            plain, peak = self.parts["muon"]
            assert isinstance(plain, Muon)
            (group,) = plain.param_groups
            names = zip(group["param_names"], group["params"], strict=True)
            parts = dict(zip(group["param_names"], plain.parts, strict=True))
            kept = {name: group[name] for name in ("lr", "momentum", "weight_decay", "steps")}
            self.parts["muon"] = (ShardedMuon(names, parts, dtype=plain.dtype, **kept), peak)

    def clip(self) -> Tensor:
        return whole(super().clip())

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back full tensors, of this number of ranks or another."""
        super().load_state_tensors(tensors)
        for optimizer, _ in self.parts.values():
            for parameter, states in optimizer.state.items():
                for key, value in states.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        states[key] = like(value, parameter)


def full_state(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The weights in full on the CPU; ranks that do not ``keep`` them take part and hold nothing."""
    gathered = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)
        if keep:
            gathered[name] = full.cpu()
    return gathered


def load_full_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put full weights into the shards.

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
    """Saves sharded optimizer state, from copies in host memory and over a process group of its own."""

    def __init__(self, world: World):
        self.mesh = init_device_mesh("cpu", (world.size,))
        self.group = dist.new_group(backend="gloo")
        self._copy = HostCopy()

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as shards in host memory; the copies of the call before are overwritten."""
        copies = self._copy.take({name: local(tensor) for name, tensor in tensors.items()})
        return {
            name: DTensor.from_local(
                copies[name], self.mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride(), run_check=False
            ) if isinstance(tensor, DTensor) else copies[name]
            for name, tensor in tensors.items()
        }  # fmt: skip

    def write(self, tensors: dict[str, Tensor], directory: Path) -> None:
        """Write every rank's part; all ranks call it, rank 0 with a directory that is there."""
        dist.barrier(self.group)
        quiet()
        writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
        dcp_save(tensors, storage_writer=writer, process_group=self.group)


def read_shards(directory: Path) -> dict[str, Tensor]:
    """Read what :class:`ShardFiles` wrote, in full, on any number of ranks.

    Raises:
        InputError: the files are no such state.
    """
    quiet()
    reader = HuggingFaceStorageReader(str(directory))
    try:
        listed = reader.read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(m.size, dtype=m.properties.dtype)
            for name, m in listed.items()
            if isinstance(m, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is no process group
            dcp_load(tensors, storage_reader=HuggingFaceStorageReader(str(directory)), no_dist=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{directory}: is no sharded optimizer state ({reason}): restore it") from None
    return tensors


def quiet() -> None:
    """The library warns of what we ask for on purpose: a group of its own, or none."""
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
