"""Directories in Hugging Face layout: ``config.json`` and weights, read and written.

Weights are read from safetensors, or from old ``.bin`` files without executing pickles, in one file or in shards.
:mod:`fastbert.weights.config_json` translates configurations, :mod:`fastbert.weights.state_dict` names and shapes.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastbert.config import BertConfig
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object
from fastbert.weights.config_json import class_prefix, config_from_hf, config_to_hf
from fastbert.weights.state_dict import canonical_names, is_untied, state_dict_from_hf, state_dict_to_hf

__all__ = [
    "canonical_names", "class_prefix", "config_from_hf", "config_to_hf", "is_untied", "read_config", "read_safetensors",
    "read_weights", "state_dict_from_hf", "state_dict_to_hf", "write_directory", "write_model", "write_safetensors",
]  # fmt: skip


def read_config(directory: Path) -> BertConfig:
    """The configuration in ``directory/config.json``."""
    path = directory / "config.json"
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory: give a trained run or a Hugging Face model directory")
    if not path.is_file():
        raise InputError(f"{directory}: holds no config.json: give a trained run or a Hugging Face model directory")
    hf = read_object(path, "copy the file again from its source")
    return config_from_hf(hf, str(path))


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory under Hugging Face's names, on the CPU."""
    if (directory / "adapter_config.json").is_file():
        raise InputError(
            f"{directory / 'adapter_config.json'}: the directory holds a LoRA adapter. "
            "Try: merge it into its model (merge_and_unload() of peft) and save that"
        )
    for single, read in (("model.safetensors", read_safetensors), ("pytorch_model.bin", _read_bin)):
        if (directory / single).is_file():
            return read(directory / single)
        if (index := directory / f"{single}.index.json").is_file():
            return _read_shards(index, read)
    others = sorted(path.name for path in directory.glob("*") if path.suffix in (".h5", ".msgpack", ".index", ".onnx"))
    raise InputError(
        f"{directory}: holds no model.safetensors (nor pytorch_model.bin): the model is not complete"
        + (f". {others[0]} is not read. Try: save it again as safetensors with transformers" if others else "")
    )


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that an index assigns to files, each from its own file."""
    fields = Fields(read_object(index, "copy it again"), str(index), "copy it again").inner("weight_map")
    places = {name: fields.text(name) for name in fields.values}
    if bad := [file for file in places.values() if Path(file).name != file]:
        raise InputError(f"{index}: file name {bad[0]!r} leaves the directory: do not use this checkpoint")
    shards = {file: read(index.parent / file) for file in sorted(set(places.values()))}
    if missing := [name for name, file in places.items() if name not in shards[file]]:
        raise InputError(f"{index}: {missing[0]} is not in {places[missing[0]]}. Try: copy the shards again")
    return {name: shards[file][name] for name, file in places.items()}


def _read_bin(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of torch.save, without executing what else a pickle may hold."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: missing. Try: copy it again") from None
    except Exception as error:
        raise InputError(f"{path}: cannot be read safely ({type(error).__name__}): convert it to safetensors") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):  # Lightning's and others' checkpoints
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InputError(f"{path}: holds no table of tensors. Try: save the model's state_dict()")
    return loaded


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one file; a file cut short or damaged raises :class:`InputError`."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: damaged or cut short ({error}): restore the file or use another checkpoint"
        ) from None


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, on any device, to one file.

    Raises:
        OSError: with its number, also where the library hides it in a message.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    # the library makes the file readable for its owner only; a run is as readable as the rest of its directory
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_model(state: Mapping[str, Tensor], config: BertConfig, directory: Path) -> None:
    """Write a pretrained model's ``config.json`` and ``model.safetensors``."""
    write_directory(state_dict_to_hf(state, config), config_to_hf(config), directory)


def write_directory(tensors: Mapping[str, Tensor], config: Mapping[str, object], directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, in Hugging Face's names already: both or neither."""
    directory.mkdir(parents=True, exist_ok=True)
    # both are written before either takes its place
    with written_whole(directory / "config.json") as text, written_whole(directory / "model.safetensors") as weights:
        write_safetensors(tensors, weights)
        text.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
