"""Who takes part: each builds a model from one directory of weights and returns its loss and its training step.

``hf-default``: what ``transformers`` does when asked for nothing: float32, SDPA, dropout 0.1, AdamW.
``hf-tuned``:   the best found by configuration alone: no dropout, eager attention, fused AdamW; bf16 by autocast.
``hf-tuned-sdpa``: the same with SDPA instead of eager attention.
``fastbert``:   classic architecture, AdamW; bf16 by autocast.
``fastbert-fp32``: the same in float32.
Where the processor has no bf16, those that use it compute in float32 (``bf16`` false, which compare.py decides). All
clip the gradient at norm 1 and read no data inside the step: the tensors are ready.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batches import Batch, Shape

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01


@dataclass
class Contestant:
    step: Callable[[Any], Any]  # one training step on a prepared batch, returns the loss
    exact_loss: Callable[[Any], float]  # in float32 without dropout, nothing changed
    prepare: Callable[[Batch], Any]
    versions: str


def write_start(directory: Path, shape: Shape) -> None:
    """One set of random weights for everybody, in Hugging Face's layout."""
    import torch
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(hf_config(shape)).save_pretrained(directory)


def hf_config(shape: Shape):
    from transformers import BertConfig

    return BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=512,
    )


def hugging_face(directory: Path, tuned: bool, bf16: bool = False, attention: str = "eager") -> Contestant:
    import torch
    import transformers
    from transformers import BertForMaskedLM

    changes = {"attn_implementation": attention} if tuned else {}
    model = BertForMaskedLM.from_pretrained(directory, **changes)
    if tuned:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True if tuned else None
    )

    def prepare(batch: Batch) -> dict:
        fields = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
        return {name: torch.from_numpy(value) for name, value in fields.items()}

    def step(batch: dict):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def exact_loss(batch: dict) -> float:
        model.eval()
        with torch.no_grad():
            loss = model(**batch).loss.item()
        model.train()
        return loss

    return Contestant(step, exact_loss, prepare, f"transformers {transformers.__version__}, torch {torch.__version__}")


def fastbert(directory: Path, bf16: bool) -> Contestant:
    import torch

    import fastbert
    from fastbert.batch import pack
    from fastbert.model import BertForPreTraining
    from fastbert.optim.optimizers import Optimizers

    model = BertForPreTraining.from_pretrained(directory)
    for module in model.modules():
        if hasattr(module, "dropout_p"):
            module.dropout_p = 0.0
    model.train()
    optimizers = Optimizers(
        model, optimizer="adamw", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, clip_norm=1.0
    )

    def prepare(batch: Batch):
        from dataclasses import replace

        packed, kept = pack(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask))
        labels = torch.from_numpy(batch.labels).flatten()[kept]
        rows = (labels != -100).nonzero().squeeze(1)
        return replace(packed, masked_index=rows, labels=labels[rows])

    def step(batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(batch).loss
        optimizers.keep_bf16_gradients(True)  # as the trainer does when a step is one pass
        loss.backward()
        optimizers.step(1.0)
        return loss

    def exact_loss(batch) -> float:
        model.eval()
        with torch.no_grad():
            loss = model(batch).loss.item()
        model.train()
        return loss

    return Contestant(step, exact_loss, prepare, f"fastbert {fastbert.__version__}, torch {torch.__version__}")


CONTESTANTS: dict[str, Callable[[Path, bool], Contestant]] = {
    "hf-default": lambda directory, bf16: hugging_face(directory, tuned=False),
    "hf-tuned": lambda directory, bf16: hugging_face(directory, True, bf16),
    "hf-tuned-sdpa": lambda directory, bf16: hugging_face(directory, True, bf16, "sdpa"),
    "fastbert": fastbert,
    "fastbert-fp32": lambda directory, bf16: fastbert(directory, bf16=False),
}
