"""The state of an unfinished fine-tuning in one file, from which the same command goes on with --resume.

The file holds the weights, the best ones so far, the optimizers' and the random state, and as JSON what has been
measured. It is replaced as a whole after every evaluation and when training is interrupted, and is gone when it ends.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastbert.runs.checkpoint import write_tensors
from fastbert.system.atomic_write import written_whole
from fastbert.system.config_file import NOT_REUSED
from fastbert.system.errors import InputError
from fastbert.system.option_checks import flag
from fastbert.weights.huggingface import read_safetensors

NAME = "training-state.safetensors"
_RECORD = "record"  # the tensor with the JSON, as bytes
_FREE = (*NOT_REUSED, "threads", "device", "model", "train", "eval", "test")  # may change: paths, and where it runs


class SavedTraining:
    """Writes and reads the state in a directory.

    Args:
        directory: of the output.
        options: of the command; what is read must have been written with the same ones.
        resume: go on from what is there.

    Raises:
        InputError: there is nothing to go on from, or it is damaged, or of other options.
    """

    def __init__(self, directory: Path, options: Mapping[str, Any], resume: bool = False):
        self.path, self.options = directory / NAME, dict(options)
        self.earlier: dict[str, Any] = {}  # what is saved besides the training: of the seeds that are done
        self._found = self._read() if resume else None

    def take(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the record of the training that is to go on, once; None: it begins."""
        found, self._found = self._found, None
        return found

    def save(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Replace the state.

        Raises:
            InputError: the disk is full.
        """
        whole = {"options": self.options, "earlier": self.earlier, **record}
        text = np.frombuffer(json.dumps(whole).encode(), np.uint8)
        try:
            with written_whole(self.path) as temporary:
                host = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
                write_tensors(host | {_RECORD: torch.from_numpy(text.copy())}, temporary)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror}). Try: free some space") from None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = read_safetensors(self.path)
        try:
            record = json.loads(tensors.pop(_RECORD).numpy().tobytes())
            saved, self.earlier = record.pop("options"), record.pop("earlier")
        except (KeyError, ValueError, AttributeError):
            raise InputError(f"{self.path}: is damaged. Try: start again, with another --output") from None
        for name, value in json.loads(json.dumps(self.options)).items():
            if name not in _FREE and name in saved and saved[name] != value:
                option = flag(name)
                raise InputError(f"{option} {value}: the training began with {saved[name]}. Try: --resume with that")
        return tensors, record
