"""Optimizer state that the ranks of an FSDP run have saved in parts, read back in full."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, TensorStorageMetadata
from torch.distributed.checkpoint import load as dcp_load

from fastbert.system.errors import InputError


def read_shards(directory: Path) -> dict[str, Tensor]:
    """Read sharded optimizer state in full, on any number of ranks.

    Raises:
        InputError: the files cannot be read as such state.
    """
    silence_warnings()
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
        raise InputError(f"{directory}: not a readable sharded optimizer state ({reason}). Try: restore it") from None
    return tensors


def silence_warnings() -> None:
    """The library warns about what we do on purpose: use a separate process group, or none."""
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
