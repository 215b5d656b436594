"""Checkpoints that a run can be continued from exactly, and that are whole or not there at all.

``checkpoints/step-N/`` holds the model in Hugging Face layout, ``optimizer.safetensors`` (optimizer and random state)
and ``state.json``, which is written last and lists the size and SHA-256 of the others. Everything is written to a
temporary directory, flushed to the disk, then renamed. No pickle.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fastbert import interop
from fastbert.config import BertConfig
from fastbert.errors import InputError

FORMAT = 1
FILES = ("config.json", "model.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`load` found: ``state`` is the JSON-able part, tensors are on the CPU."""

    directory: Path
    step: int
    model: dict[str, Tensor]  # under our names
    tensors: dict[str, Tensor]  # optimizer and random state
    state: dict


def folder(run: Path) -> Path:
    return run / "checkpoints"


def list_steps(run: Path) -> list[int]:
    """Steps that have a checkpoint directory, oldest first, whole or not."""
    names = [p.name for p in folder(run).glob("step-*")] if folder(run).is_dir() else []
    return sorted(int(n.removeprefix("step-")) for n in names if n.removeprefix("step-").isdigit())


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    config: BertConfig,
    tensors: Mapping[str, Tensor],
    state: dict,
    keep_last: int = 2,
) -> Path:
    """Write ``checkpoints/step-N`` in one stroke and drop all but the newest ``keep_last``.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = folder(run) / f"step-{step}"
    partial = folder(run) / f".step-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        interop.write_model(model, config, partial)
        interop.write_safetensors(tensors, partial / "optimizer.safetensors")
        listed = {name: _fingerprint(partial / name) for name in FILES}
        whole = {"format": FORMAT, "step": step, "files": listed, "state": state}
        text = json.dumps(whole | {"sha256": _fingerprint_of(whole)}, indent=2)
        (partial / "state.json").write_text(text + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(folder(run))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in list_steps(run)[:-keep_last] if keep_last else []:
        shutil.rmtree(folder(run) / f"step-{old}")
    return final


def load(directory: Path) -> Checkpoint:
    """Read one checkpoint, every byte verified.

    Raises:
        InputError: a file is missing, cut short or changed; the line names it and the remedy.
    """
    path = directory / "state.json"
    remedy = "delete that directory to continue from an earlier checkpoint"
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        own = whole.pop("sha256")
        listed, step, state, version = whole["files"], whole["step"], whole["state"], whole["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: missing or damaged ({type(error).__name__}): {remedy}") from None
    if version != FORMAT:
        raise InputError(f"{path}: format {version}, this fastbert reads {FORMAT}: use the version that wrote it")
    if own != _fingerprint_of(whole):
        raise InputError(f"{path}: changed since it was written (checksum differs): {remedy}")
    for name in FILES:
        file = directory / name
        if not file.is_file():
            raise InputError(f"{file}: missing: {remedy}")
        if _fingerprint(file) != listed.get(name):
            raise InputError(f"{file}: cut short or changed since it was written (checksum differs): {remedy}")
    config = interop.read_config(directory)
    model = interop.state_dict_from_hf(interop.read_weights(directory), config)
    return Checkpoint(directory, step, model, interop.read_safetensors(directory / "optimizer.safetensors"), state)


def load_newest(run: Path, warn) -> Checkpoint:
    """Read the newest whole checkpoint; ``warn(line)`` is called for each damaged one that is skipped.

    Raises:
        InputError: there is none, or none is whole.
    """
    steps = list_steps(run)
    if not steps:
        raise InputError(f"{run}: holds no checkpoint to resume from: start it again without --resume")
    for step in reversed(steps):
        try:
            return load(folder(run) / f"step-{step}")
        except InputError as error:
            if step == steps[0]:
                raise
            warn(f"skipped a damaged checkpoint: {error}")
    raise AssertionError("unreachable: the loop returns or raises at the oldest step")


def _fingerprint(path: Path) -> dict:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _fingerprint_of(state: dict) -> str:
    """SHA-256 of a JSON object, however it is laid out in the file."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _digest(file):
    """hashlib.file_digest for Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _flush(path: Path) -> None:
    """fsync a file or a directory: a rename may otherwise reach the disk before the data do."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
