"""LoRA: low-rank updates of the attention's projections, trained in place of the encoder and written as `peft` does.

The weight of a projection is W + (α / r) B A with a frozen W; A (r, D) begins at random, B (·, r) at zero. Queries and
values have updates, as in the paper; ModernBERT's projection is one matrix and has one.

Reference: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastbert.config import BertConfig
from fastbert.system.errors import InputError
from fastbert.tasks.model import TaskModel
from fastbert.weights.huggingface import write_safetensors
from fastbert.weights.names import PREFIX, QKV
from fastbert.weights.state_dict import interleave

FOLDER = "adapter"  # in the output directory
ALPHA = 2.0  # times the rank
LEARNING_RATE = 10.0  # times that of a training of all weights (Schulman et al., LoRA Without Regret, 2025)
_TYPES = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS"}
# what the head reads and is no part of the encoder: trained, and saved as a whole
_HEADS = {
    "classic": {"sequence": ["pooler", "classifier"]},
    "distilbert": {"sequence": ["pre_classifier", "classifier"]},
    "modern": {head: ["head", "classifier"] for head in _TYPES},
}


def check_lora(rank: int, config: BertConfig) -> None:
    """Check that an adapter of this rank can be trained and written.

    Raises:
        InputError: the package peft is missing, or the rank is that of the matrices or more.
    """
    if importlib.util.find_spec("peft") is None:
        raise InputError("--lora: needs the package peft. Try: pip install 'fastbert[lora]'")
    if not 0 < rank < config.hidden_size:
        raise InputError(f"--lora {rank}: expected a rank from 1, below the width {config.hidden_size}")


class LowRank(nn.Module):
    """The updates of all layers of a model, which is changed so that they are added before every call.

    Args:
        model: its query, key and value weights are no parameters until :meth:`merge`.
        rank: r.
    """

    def __init__(self, model: TaskModel, rank: int):
        super().__init__()
        config = model.backbone.config
        self.scale, self.fused = ALPHA, config.arch == "modern"  # α / r
        self.down, self.up, self._bases = nn.ParameterList(), nn.ParameterList(), []
        width, parts = config.hidden_size, 1 if self.fused else 2
        self._projections: list[Any] = [layer.attention.qkv for layer in model.backbone.encoder.layers]  # type: ignore
        for linear in self._projections:
            down = torch.empty(parts, rank, width, device=model.device)
            for part in down:
                nn.init.kaiming_uniform_(part, a=math.sqrt(5))
            self.down.append(nn.Parameter(down))
            rows = 3 * width if self.fused else width
            self.up.append(nn.Parameter(torch.zeros(parts, rows, rank, device=model.device)))
            self._bases.append(linear.weight.detach())
            del linear.weight
        self._hook = model.register_forward_pre_hook(lambda module, inputs: self.write())
        model.add_module("lora", self)
        self.write()

    def write(self) -> None:
        """Put the sums in the place of the weights, differentiable."""
        for linear, base, down, up in zip(self._projections, self._bases, self.down, self.up, strict=True):
            updates = self.scale * (up @ down)  # (parts, ·, D)
            if not self.fused:
                updates = torch.stack([updates[0], torch.zeros_like(updates[0]), updates[1]])
            linear.weight = base + updates.flatten(0, 1)

    def merge(self, model: TaskModel) -> dict[str, tuple[Tensor, Tensor]]:
        """Make the sums the weights of an ordinary model again; returns A and B by Hugging Face's names of modules."""
        self.write()
        self._hook.remove()
        del model.lora
        for linear in self._projections:
            weight = linear.weight.detach()
            del linear.weight
            linear.weight = nn.Parameter(weight)
        return self._named(model.backbone.config)

    def _named(self, config: BertConfig) -> dict[str, tuple[Tensor, Tensor]]:
        found = {}
        for number, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            for part, (a, b) in enumerate(zip(down.detach().cpu(), up.detach().cpu(), strict=True)):
                if config.arch == "roformer" and part == 0:
                    b = interleave(b, config)
                found[_modules(config, number)[part]] = a.contiguous(), b.contiguous()
        return found


def _modules(config: BertConfig, layer: int) -> list[str]:
    if config.arch == "modern":
        return [f"model.layers.{layer}.attn.Wqkv"]
    place, (query, _, value) = QKV[config.arch]
    return [(PREFIX[config.arch] + place.format(layer, name, "")).rstrip(".") for name in (query, value)]


def write_adapter(
    directory: Path, adapter: dict[str, tuple[Tensor, Tensor]], model: TaskModel, rank: int, base: str
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, which ``peft.PeftModel.from_pretrained`` reads.

    Args:
        directory: is made.
        adapter: of :meth:`LowRank.merge`.
        model: with the head, which the adapter has as a whole.
        rank: r.
        base: directory of the model that it was trained on.
    """
    from peft import LoraConfig

    arch, head = model.backbone.config.arch, model.settings.head
    whole: list[str] = _HEADS.get(arch, {}).get(head) or ["qa_outputs" if head == "span" else "classifier"]
    directory.mkdir(exist_ok=True)
    targets = sorted({name.rpartition(".")[2] for name in adapter})
    LoraConfig(
        task_type=_TYPES[head], r=rank, lora_alpha=int(ALPHA * rank), lora_dropout=0.0, target_modules=targets,
        modules_to_save=whole, base_model_name_or_path=base, inference_mode=True,
    ).save_pretrained(str(directory))  # fmt: skip
    tensors: dict[str, Any] = {}
    for name, (a, b) in adapter.items():
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    tensors |= {name: tensor for name, tensor in model.hf_state().items() if set(name.split(".")) & set(whole)}
    prefixed = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    write_safetensors(prefixed, directory / "adapter_model.safetensors")
