"""Checkpoints for exact resuming, written atomically.

``checkpoints/step-N/`` has the model in Hugging Face layout, ``optimizer.safetensors`` (optimizer and random state) and
``state.json``, which is written last and lists the size and SHA-256 of the others. A run with sharded weights has its
optimizer state in ``optimizer/`` instead, one file per rank. Everything is written to a temporary directory, flushed to
the disk, then renamed. No pickle.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastbert.config import BertConfig
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object
from fastbert.system.model_folder import model_folder
from fastbert.weights import huggingface

FORMAT = 1
CONFIG, MODEL, OPTIMIZER, STATE = "config.json", "model.safetensors", "optimizer.safetensors", "state.json"
SHARDS = "optimizer"  # directory of the sharded form
FILES = (CONFIG, MODEL, OPTIMIZER)
# names of dtypes in a safetensors header
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: tensors on the CPU, ``state`` as JSON values."""

    directory: Path
    step: int
    model: dict[str, Tensor]  # under our names
    tensors: dict[str, Tensor]  # optimizer and random state
    state: dict
    config: BertConfig


@dataclass(frozen=True)
class RetentionPolicy:
    """Checkpoints that stay: the newest ``last`` (0: all) and those at multiples of ``every`` steps (0: none)."""

    last: int = 2
    every: int = 0

    def dropped(self, steps: list[int]) -> list[int]:
        """Those of ``steps``, ascending, to be deleted."""
        old = steps[: -self.last] if self.last else []
        return [step for step in old if not (self.every and step % self.every == 0)]


def folder(run: Path) -> Path:
    return run / "checkpoints"


def resolve(directory: Path) -> Path:
    """Where the weights are: the directory, or the newest checkpoint of an unfinished run, or the model's own folder in
    an old sentence-transformers directory."""
    if (inner := model_folder(directory)) != directory:
        return inner
    if not (directory / CONFIG).is_file() and (steps := list_steps(directory)):
        return folder(directory) / f"step-{steps[-1]}"
    return directory


def partial_folder(run: Path, step: int) -> Path:
    """Where a checkpoint is written."""
    return folder(run) / f".step-{step}.partial"


def list_steps(run: Path) -> list[int]:
    """Steps with a checkpoint directory, oldest first, complete or not."""
    names = [p.name for p in folder(run).glob("step-*")] if folder(run).is_dir() else []
    return sorted(int(n.removeprefix("step-")) for n in names if n.removeprefix("step-").isdigit())


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    config: BertConfig,
    tensors: Mapping[str, Tensor],
    state: dict,
    retention: RetentionPolicy | int = 2,
    write_shards: Callable[[Path], None] | None = None,
) -> Path:
    """Write ``checkpoints/step-N`` atomically and delete old ones by the retention policy.

    Args:
        run: directory of the run.
        step: N.
        model: weights under our names; ``config`` theirs.
        tensors: optimizer and random state.
        state: the rest, as JSON.
        retention: which checkpoints stay, or how many of the newest.
        write_shards: writes sharded optimizer state to a directory, together with the other ranks.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
        FloatingPointError: the tensor of this name has a NaN or infinity.
    """
    _refuse_not_finite({**model, **tensors})
    final = folder(run) / f"step-{step}"
    partial = partial_folder(run, step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_bytes(partial / CONFIG, (json.dumps(huggingface.config_to_hf(config), indent=2) + "\n").encode())
        listed = {
            CONFIG: _fingerprint(partial / CONFIG),
            MODEL: write_tensors(huggingface.state_dict_to_hf(model, config), partial / MODEL),
            OPTIMIZER: write_tensors(tensors, partial / OPTIMIZER),
        }
        if write_shards is not None:
            (partial / SHARDS).mkdir()
            write_shards(partial / SHARDS)
            for path in sorted((partial / SHARDS).iterdir()):
                _flush(path)
                listed[f"{SHARDS}/{path.name}"] = _fingerprint(path)
            _flush(partial / SHARDS)
        whole = {"format": FORMAT, "step": step, "files": listed, "state": state}
        text = json.dumps(whole | {"sha256": _fingerprint_of(whole)}, indent=2)
        _write_bytes(partial / STATE, (text + "\n").encode())
        _flush(partial)
        if final.exists():  # replaced only when the new one is complete
            _drop(final)
        partial.rename(final)
        _flush(folder(run))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    retention = RetentionPolicy(last=retention) if isinstance(retention, int) else retention
    for old in retention.dropped(list_steps(run)):
        _drop(folder(run) / f"step-{old}")
    remove_leftovers(run)
    return final


def remove_leftovers(run: Path) -> None:
    """Delete what a process killed during a save or a deletion has left."""
    if folder(run).is_dir():
        for pattern in (".step-*.partial", ".step-*.dropped"):
            for path in folder(run).glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _drop(directory: Path) -> None:
    """Remove a checkpoint from the list at once; :func:`remove_leftovers` deletes its files."""
    dropped = directory.with_name(f".{directory.name}.dropped")
    shutil.rmtree(dropped, ignore_errors=True)
    directory.rename(dropped)


def _refuse_not_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        # one pass without a temporary: NaN and infinity survive a sum
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()):
            raise FloatingPointError(name)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict:
    """Write CPU tensors as safetensors, flushed to the disk; returns the size and SHA-256 of the file.

    The library's writer copies every tensor and holds the interpreter lock; this one streams, so that one thread can
    save while another trains.
    """
    # largest elements first, as the library does, so that every tensor is aligned
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        parts: list[bytes | memoryview] = [len(text).to_bytes(8, "little"), text]
        for part in (*parts, *(_bytes_of(tensors[name]) for name in order)):
            digest.update(part)
            _write_all(file, part)
        os.fsync(file.fileno())
        size = file.tell()
    return {"bytes": size, "sha256": digest.hexdigest()}


def _bytes_of(tensor: Tensor) -> bytes | memoryview:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write_all(file, data) -> None:
    """A raw file may write less than it is given: at a signal, or more than two gigabytes."""
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load(directory: Path) -> Checkpoint:
    """Read one checkpoint, every byte verified.

    Raises:
        InputError: a file is missing, truncated or changed.
    """
    path = directory / STATE
    remedy = "delete that directory to continue from an earlier checkpoint"
    whole = read_object(path, remedy)
    if (version := whole.get("format")) != FORMAT:
        raise InputError(
            f"{path}: format {version!r:.40}, this version reads {FORMAT}. Try: the version that wrote it, or {remedy}"
        )
    own = whole.pop("sha256", None)
    if own != _fingerprint_of(whole):
        raise InputError(f"{path}: changed since it was written (checksum differs). Try: {remedy}")
    fields = Fields(whole, str(path), remedy)
    step, listed, state = fields.integer("step", high=2**60), fields.inner("files"), fields.inner("state")
    for name in {**dict.fromkeys(FILES), **listed.values}:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: file name {name!r:.80} leaves the directory. Try: {remedy}")
        file = directory / name
        if not file.is_file():
            raise InputError(f"{file}: missing. Try: {remedy}")
        if _fingerprint(file) != listed.values.get(name):
            raise InputError(f"{file}: truncated or changed since it was written (checksum differs). Try: {remedy}")
    config = huggingface.read_config(directory)
    model = huggingface.state_dict_from_hf(huggingface.read_weights(directory), config)
    tensors = huggingface.read_safetensors(directory / OPTIMIZER)
    if (directory / SHARDS).is_dir():
        from fastbert.runs.sharded_state import read_shards  # imports much of torch.distributed

        tensors |= read_shards(directory / SHARDS)
    return Checkpoint(directory, step, model, tensors, dict(state.values), config)


def load_newest(run: Path, warn: Callable[[str], None]) -> Checkpoint:
    """Load the newest complete checkpoint; ``warn(line)`` is called for each damaged one that is skipped.

    Raises:
        InputError: there is none, or none is complete.
    """
    steps = list_steps(run)
    if not steps:
        raise InputError(f"{run}: has no checkpoint to resume from. Try: without --resume")
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
    """SHA-256 of a JSON object, independent of its layout in the file."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _digest(file):
    """hashlib.file_digest for Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _flush(path: Path) -> None:
    """fsync a file or a directory, so that a rename cannot reach the disk before the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
