"""Fine-tuning: packed batches of equal token counts, linear warm-up and decay, the best checkpoint kept.

An encoder is tuned by the optimizer that pretrained it. Muon leaves matrices that are several times as large as
AdamW's, and the steps of AdamW's usual rate hardly move them (measured: benchmarks/finetuning/README.md).

Reference: Devlin et al., BERT, 2019, section 3.2; Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Liu et
al., Muon is Scalable for LLM Training, 2025, section 3.5 (another optimizer than the pretraining's costs quality).
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastbert.optim.groups import fused_projections, split_param_groups
from fastbert.optim.muon import Muon
from fastbert.optim.schedules import Schedule
from fastbert.tasks.features import Rows
from fastbert.tasks.model import TaskModel
from fastbert.tasks.scores import better

Scorer = Callable[[TaskModel], dict[str, float]]
# half of what pretraining has, of both
MUON_LEARNING_RATE, LEARNING_RATE_BESIDE_MUON = 0.01, 1e-3


@dataclass(frozen=True)
class Recipe:
    """How a head and its encoder are trained."""

    epochs: float = 3.0
    batch_size: int = 32  # rows in a step, on average
    optimizer: str = "adamw"  # "muon": of the layers' matrices, and AdamW of the rest
    learning_rate: float = 5e-5  # peak of AdamW
    muon_learning_rate: float = MUON_LEARNING_RATE  # peak of Muon
    weight_decay: float = 0.01  # of matrices
    warmup: float = 0.1  # share of the steps
    clip_norm: float = 1.0
    evaluations: int = 1  # in an epoch; 0: only at the end
    patience: int = 0  # evaluations without a better one before it stops; 0: never
    measure: str = "accuracy"  # chooses the best checkpoint
    seed: int = 0
    bf16: bool = False


@dataclass
class Progress:
    """What a training did; ``history`` has a record for each evaluation."""

    steps: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stopped_early: bool = False
    training_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def default_learning_rate(hidden_size: int, optimizer: str = "adamw") -> float:
    """AdamW's peak: beside Muon 1e-3; alone 5e-5 for BERT-base's width, more for narrower models in proportion."""
    return LEARNING_RATE_BESIDE_MUON if optimizer == "muon" else round(5e-5 * 768 / hidden_size, 8)


def pretraining_optimizer(directory: str | Path) -> str:
    """Which optimizer made a model: "muon" where run.json or finetune.json beside it says so, else "adamw"."""
    for name, part in (("run.json", "options"), ("finetune.json", "recipe")):
        try:
            record = json.loads((Path(directory) / name).read_text(encoding="utf-8"))[part]["optimizer"]
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: it decides a default only
            continue
        return "muon" if record == "muon" else "adamw"
    return "adamw"


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows of an epoch in random order, cut into batches of about equal tokens.

    There are as many batches as with a fixed number of rows; each costs the same, and none is padded.
    """
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(lengths))
    num_batches = -(-len(lengths) // batch_size)
    tokens = lengths[order].cumsum()
    # a row belongs to the batch in which its middle token lies
    middle = tokens - lengths[order] / 2
    batch = np.minimum((middle * num_batches / tokens[-1]).astype(np.int64), num_batches - 1)
    parts = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
    return [part.tolist() for part in parts]


class Vocabulary:
    """The pieces that a data set uses: training only their embeddings spares the optimizer most of a small model.

    The other rows get no gradient in any case; left out, they also escape weight decay and stay as pretrained.
    """

    def __init__(self, *sets: Rows):
        self.used = np.unique(np.concatenate([rows.used_ids() for rows in sets])).astype(np.int64)
        new_ids = np.zeros(int(self.used[-1]) + 1, np.int64)
        new_ids[self.used] = np.arange(len(self.used))
        for rows in sets:
            rows.renumber(new_ids)

    def shrink(self, model: TaskModel) -> Tensor:
        """Keep the used rows of the model's embedding; returns the whole table for :meth:`restore`."""
        embeddings = model.backbone.embeddings
        whole = embeddings.word.weight.data
        used = torch.from_numpy(self.used).to(whole.device)
        embeddings.word = nn.Embedding.from_pretrained(whole[used], freeze=False)
        return whole

    def restore(self, model: TaskModel, whole: Tensor) -> None:
        """Put the trained rows back into the whole table."""
        embeddings = model.backbone.embeddings
        used = torch.from_numpy(self.used).to(whole.device)
        table = whole.index_copy(0, used, embeddings.word.weight.data)
        embeddings.word = nn.Embedding.from_pretrained(table, freeze=False)


def train(
    model: TaskModel,
    rows: Rows,
    recipe: Recipe,
    score: Scorer,
    *,
    weights: Tensor | None = None,
    say: Callable[[Progress, float, dict[str, float] | None], None] = lambda progress, share, scores: None,
) -> Progress:
    """Fine-tune in place; the model ends with the weights of its best evaluation (or of its last step without any).

    Args:
        rows: labelled rows; see :class:`~fastbert.tasks.features.Rows`.
        score: measures of a model on the evaluation set, among them ``recipe.measure`` (and "loss", if it likes).
        weights: (C,) of the classes in the loss.
        say: told after every step, with the share that is done, and after every evaluation, with its scores.
    """
    device = next(model.parameters()).device
    optimizers = _optimizers(model, recipe)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    schedule = Schedule(recipe.warmup, 1.0 - recipe.warmup)
    steps_per_epoch = -(-len(rows) // recipe.batch_size)
    total = max(1, round(recipe.epochs * steps_per_epoch))
    every = steps_per_epoch / recipe.evaluations if recipe.evaluations else float("inf")
    progress, best, waited, next_evaluation = Progress(), None, 0, every
    torch.manual_seed(recipe.seed)
    began_s = time.monotonic()
    model.train()
    for chosen in _steps(rows.lengths, recipe, total):
        batch, targets = rows.batch(chosen).to(device), rows.targets_of(chosen)
        assert targets is not None
        with autocast(device, recipe.bf16):
            loss = model.loss(batch, targets.to(device), weights)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm or float("inf"))
        for group in groups:
            group["lr"] = group["peak"] * schedule((progress.steps + 1) / (total + 1))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # PyTorch's fused AdamW does not count its writes, and kernels keep bf16 images of weights by that count
        torch.autograd.graph.increment_version(parameters)
        progress.steps += 1
        progress.tokens += batch.num_tokens
        if progress.steps >= next_evaluation - 1e-6 or (recipe.evaluations and progress.steps == total):
            next_evaluation += every
            scores = evaluate(model, score, device, recipe.bf16)
            progress.history.append({"step": progress.steps, "train_loss": loss.item(), **scores})
            waited += 1
            if better(recipe.measure, scores[recipe.measure], progress.best):
                progress.best, progress.best_step, waited = scores[recipe.measure], progress.steps, 0
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            say(progress, progress.steps / total, scores)
            if recipe.patience and waited >= recipe.patience:
                progress.stopped_early = progress.steps < total
                break
        else:
            say(progress, progress.steps / total, None)
    if best is not None and progress.best_step != progress.steps:
        model.load_state_dict(best)
    progress.training_s = time.monotonic() - began_s
    model.eval()
    return progress


def evaluate(model: TaskModel, score: Scorer, device: torch.device, bf16: bool) -> dict[str, float]:
    """Score a model in the training's arithmetic, leaving it in training mode."""
    model.eval()
    with autocast(device, bf16):
        scores = score(model)
    model.train()
    return scores


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def _steps(lengths: NDArray[np.int64], recipe: Recipe, total: int) -> Iterator[list[int]]:
    done = epoch = 0
    while done < total:
        for chosen in epoch_batches(lengths, recipe.batch_size, recipe.seed, epoch):
            if done == total:
                return
            yield chosen
            done += 1
        epoch += 1


def _optimizers(model: TaskModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon if asked for; every group has its peak rate. No decay of biases and LayerNorms.

    Heads that the task does not use get no gradient and are left alone.
    """
    used = [(name.removeprefix("backbone."), p) for name, p in model.named_parameters() if _is_used(name, model)]
    hidden, rest = split_param_groups(used, recipe.optimizer)
    peak = recipe.learning_rate
    groups = [
        {"params": [p for _, p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay, "peak": peak},
        {"params": [p for _, p in rest if p.ndim < 2], "weight_decay": 0.0, "peak": peak},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-8, fused=True)
    ]
    if hidden:
        parts = {name: fused_projections(name, model.backbone.config) for name, _ in hidden}
        muon = Muon(hidden, parts, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay)
        muon.param_groups[0]["peak"] = recipe.muon_learning_rate
        optimizers.append(muon)
    return optimizers


def _is_used(name: str, model: TaskModel) -> bool:
    modern, sequence = model.backbone.config.arch == "modern", model.settings.head == "sequence"
    if name.startswith("backbone.head."):
        return modern and not name.startswith("backbone.head.bias")
    if name.startswith("backbone.pooler."):
        return sequence
    return not name.startswith("backbone.next_sentence.")
