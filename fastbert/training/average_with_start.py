"""The result of ``--init``: an average of the weights that a run began with and the trained ones.

The weights between the two keep more of the old skills than rates so low that they learn as much of the new text.

Reference: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022 (WiSE-FT).
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from fastbert.runs import checkpoint
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.weights.huggingface import read_safetensors, write_safetensors

START = "start.safetensors"  # among the checkpoints: the directory of --init may be gone when a run is resumed


def keep_start(run: Path, model: nn.Module) -> None:
    """Write the weights of a model before its first step."""
    checkpoint.folder(run).mkdir(parents=True, exist_ok=True)
    with written_whole(checkpoint.folder(run) / START) as temporary:
        write_safetensors(dict(model.named_parameters()), temporary)


@torch.no_grad()
def average_with_start(run: Path, model: nn.Module, share: float) -> None:
    """Move the weights of a model towards those it began with; all ranks call it.

    Args:
        run: directory of the run.
        model: its parameters may be sharded; they stay where they are.
        share: of the starting weights.

    Raises:
        InputError: these are not in the run, or are of another model.
    """
    path = checkpoint.folder(run) / START
    if not path.is_file():
        raise InputError(f"{path}: is missing, the weights of --init. Try: restore it, or --init-share 0")
    start = read_safetensors(path)
    for name, parameter in model.named_parameters():
        if name not in start or start[name].shape != parameter.shape:
            raise InputError(f"{path}: is of another model ({name}). Try: restore it, or --init-share 0")
        parameter.mul_(1 - share).add_(_placed_as(parameter, start[name]), alpha=share)


def _placed_as(parameter: Tensor, value: Tensor) -> Tensor:
    value = value.to(parameter.device, parameter.dtype)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
