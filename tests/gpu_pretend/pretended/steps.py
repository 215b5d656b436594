"""What each training step asked of the device, and whether that is allowed."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pretended.log import LOG

BUDGETS = Path(__file__).parents[1] / "budgets.json"
Step = dict[str, Counter[str]]


@contextlib.contextmanager
def watched() -> Iterator[list[Step]]:
    """The log of every ``Trainer.train_step`` inside the with block."""
    from fastbert.training.trainer import Trainer

    seen: list[Step] = []
    stock = Trainer.train_step

    def train_step(self, *arguments, **named):
        before = LOG.snapshot()
        try:
            return stock(self, *arguments, **named)
        finally:
            seen.append({kind: counter - before[kind] for kind, counter in LOG.snapshot().items()})

    Trainer.train_step = train_step
    try:
        yield seen
    finally:
        Trainer.train_step = stock


def complaints(step: Step, budget: int | None = None) -> list[str]:
    """What a step should not have done: waits and pageable copies beyond the allowed ones, launches over the budget."""
    allowed = json.loads(BUDGETS.read_text())["allowed"]
    found = [
        f"{kind}: {place}"
        for kind in ("waits", "pageable")
        for place in step[kind]
        if not any(place.startswith(start) for start in allowed[kind])
    ]
    launches = sum(step["launches"].values())
    if budget is not None and launches > budget:
        found.append(f"{launches} launches, {budget} allowed: {dict(step['launches'].most_common(12))}")
    return found


def one_step(preset: str, arch: str, autocast: bool = True) -> Step:
    """The log of the second step of a model with a preset's number of layers, and narrow ones."""
    import torch

    from fastbert.batch import pack_rows
    from fastbert.config import BertConfig
    from fastbert.model import BertForPreTraining
    from fastbert.optim.optimizers import Optimizers

    narrow = {
        "hidden_size": 64,
        "num_attention_heads": 1,
        "intermediate_size": 64,
        "vocab_size": 64,
        "initializer_range": 0.2,
    }
    model = BertForPreTraining(BertConfig.preset(preset, arch, **narrow)).to("cuda").train()
    optimizers = Optimizers(model)
    batch = replace(pack_rows([range(7, 23), range(23, 39)], list(range(0, 32, 4))), labels=torch.arange(8))
    for _ in range(2):
        before = LOG.snapshot()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(batch.to("cuda")).loss
        loss.backward()
        optimizers.step(1.0)
    return {kind: counter - before[kind] for kind, counter in LOG.snapshot().items()}


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights of two model directories."""
    from safetensors.torch import load_file

    a, b = (load_file(run / "model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
