"""Fine-tuning: packed batches of equal token counts, linear warm-up and decay, the best checkpoint kept.

The default optimizer is the one that pretrained the encoder. Muon's matrices are several times as large as AdamW's, and
AdamW at its default rate hardly moves them (measured: benchmarks/finetuning/README.md).

A training that diverges or is interrupted ends with the best weights so far, as one that reaches its last step.

Reference: Devlin et al., BERT, 2019, section 3.2; Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Liu et
al., Muon is Scalable for LLM Training, 2025, section 3.5 (another optimizer than the pretraining's costs quality).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastbert.config import BertConfig
from fastbert.optim.optimizers import build_optimizers
from fastbert.optim.schedules import Schedule
from fastbert.system.errors import InputError
from fastbert.tasks.features import Rows
from fastbert.tasks.model import TaskModel
from fastbert.tasks.scores import better

Scorer = Callable[[TaskModel], dict[str, float]]
# half of pretraining's rates
MUON_LEARNING_RATE, LEARNING_RATE_WITH_MUON = 0.01, 1e-3
MAX_LOSS_INCREASE = 1e3  # times the first loss (at least 1): training has diverged


@dataclass(frozen=True)
class Recipe:
    """How a head and its encoder are trained."""

    epochs: float = 3.0
    batch_size: int = 32  # rows in a step, on average
    optimizer: str = "adamw"  # "muon": Muon for the matrices of the layers, AdamW for the rest
    learning_rate: float = 5e-5  # peak of AdamW
    muon_learning_rate: float = MUON_LEARNING_RATE  # peak of Muon
    layer_decay: float = 1.0  # factor of the learning rates from each layer to the one below it
    freeze: str = ""  # "embeddings", "all", or how many layers with them: what is not trained
    label_smoothing: float = 0.0  # share of the target that all classes get
    weight_decay: float = 0.01  # of matrices
    warmup: float = 0.1  # fraction of the steps
    clip_norm: float = 1.0
    evaluations: int = 1  # per epoch; 0: only at the end
    patience: int = 0  # evaluations without improvement before training stops; 0: never
    measure: str = "accuracy"  # chooses the best checkpoint
    seed: int = 0
    bf16: bool = False


@dataclass
class Progress:
    """Where a training is; ``history`` has a record for each evaluation."""

    steps: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stopped_early: bool = False
    interrupted: bool = False  # by Ctrl-C
    diverged: str = ""  # what happened, and the remedy
    training_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def default_learning_rate(hidden_size: int, optimizer: str = "adamw") -> float:
    """AdamW's peak: 1e-3 with Muon; alone 5e-5 at BERT-base's width, proportionally more for narrower models."""
    return LEARNING_RATE_WITH_MUON if optimizer == "muon" else round(5e-5 * 768 / hidden_size, 8)


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows of an epoch in random order, cut into batches with about the same number of tokens.

    There are as many batches as with a fixed number of rows, and each costs the same.
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
    """The tokens that a data set uses: training only their embeddings saves the optimizer most of a small model.

    The other rows get no gradient anyway; left out, they also escape weight decay and stay as pretrained.
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


class Diverged(InputError):
    """Training has diverged; the message names the step and the remedy."""


def run_steps(
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    factor: Callable[[int], float],
    clip_norm: float,
) -> Iterator[float]:
    """Take an optimizer step for each batch and yield its loss.

    Args:
        optimizers: whose groups have a ``peak`` learning rate.
        loss_of: the loss of a batch.
        factor: step, from 1 → factor of the peak.
        clip_norm: bound of the gradient norm; 0: none.

    Raises:
        Diverged: before an update with a loss or gradient that is not finite, or a loss that has exploded.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    limit = 0.0
    for step, batch in enumerate(batches, start=1):
        loss = loss_of(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm or float("inf")).item()
        value = loss.item()
        limit = limit or MAX_LOSS_INCREASE * max(value, 1.0)
        if not (math.isfinite(norm) and value < limit):
            what = f"the loss is {value:.3g}" if not value < limit else f"the gradient norm is {norm}"
            peak = max(group["peak"] for group in groups)
            raise Diverged(f"step {step}: {what}: training has diverged. Try: a learning rate below {peak:g}")
        for group in groups:
            group["lr"] = group["peak"] * factor(step)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield value


def train(
    model: TaskModel,
    rows: Rows,
    recipe: Recipe,
    score: Scorer,
    *,
    weights: Tensor | None = None,
    report: Callable[[Progress, float, dict[str, float] | None], None] = lambda progress, share, scores: None,
) -> Progress:
    """Fine-tune in place; the model ends with the weights of its best evaluation, or of its last step without any.

    Args:
        rows: labelled rows; see :class:`~fastbert.tasks.features.Rows`.
        score: measures of a model on the evaluation set, among them ``recipe.measure``.
        weights: (C,) of the classes in the loss.
        report: called after every step with the share of the training that is done, and after every evaluation with
            its scores.

    Raises:
        Diverged: before the first evaluation; later ones are recorded in the progress.
    """
    device, schedule = model.device, Schedule(recipe.warmup, 1.0 - recipe.warmup)
    steps_per_epoch = -(-len(rows) // recipe.batch_size)
    total = max(1, round(recipe.epochs * steps_per_epoch))
    every = steps_per_epoch / recipe.evaluations if recipe.evaluations else float("inf")
    progress, best, waited, next_evaluation = Progress(), None, 0, every

    def loss_of(chosen: list[int]) -> Tensor:
        batch, targets = rows.batch(chosen).to(device), rows.targets_of(chosen)
        assert targets is not None
        progress.tokens += batch.num_tokens
        with autocast(device, recipe.bf16):
            return model.loss(batch, targets.to(device), weights, recipe.label_smoothing)

    torch.manual_seed(recipe.seed)
    began_s = time.monotonic()
    model.train()
    batches = _batches(rows.lengths, recipe, total)
    steps = run_steps(
        _optimizers(model, recipe), batches, loss_of, lambda step: schedule(step / (total + 1)), recipe.clip_norm
    )
    try:
        for loss in steps:
            progress.steps += 1
            scores = None
            if progress.steps >= next_evaluation - 1e-6 or (recipe.evaluations and progress.steps == total):
                next_evaluation += every
                scores = evaluate(model, score, device, recipe.bf16)
                progress.history.append({"step": progress.steps, "train_loss": loss, **scores})
                waited += 1
                if better(recipe.measure, scores[recipe.measure], progress.best):
                    progress.best, progress.best_step, waited = scores[recipe.measure], progress.steps, 0
                    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            report(progress, progress.steps / total, scores)
            if recipe.patience and waited >= recipe.patience:
                progress.stopped_early = progress.steps < total
                break
    except Diverged as error:
        if best is None:
            raise
        progress.diverged = str(error)
    except KeyboardInterrupt:
        if not progress.steps:
            raise
        progress.interrupted = True
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


def _batches(lengths: NDArray[np.int64], recipe: Recipe, total: int) -> Iterator[list[int]]:
    done = epoch = 0
    while done < total:
        for chosen in epoch_batches(lengths, recipe.batch_size, recipe.seed, epoch):
            if done == total:
                return
            yield chosen
            done += 1
        epoch += 1


def _optimizers(model: TaskModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon if requested; every group has its peak rate. No decay of biases and LayerNorms.

    Heads that the task does not use get no gradient and are left alone, as what is frozen.
    """
    config = model.backbone.config
    used = [(name.removeprefix("backbone."), p) for name, p in model.named_parameters() if _is_used(name, model)]
    for name, parameter in used:
        parameter.requires_grad_(depth_of(name, config.num_hidden_layers) >= num_frozen(recipe.freeze, config))
    trained = [(name, p) for name, p in used if p.requires_grad]

    def rate_scale(name: str) -> float:
        return recipe.layer_decay ** (config.num_hidden_layers + 1 - depth_of(name, config.num_hidden_layers))

    peaks = {"adamw": recipe.learning_rate, "muon": recipe.muon_learning_rate}
    built = build_optimizers(
        trained, config, recipe.optimizer, peaks, recipe.weight_decay, betas=(0.9, 0.999), eps=1e-8,
        rate_scale=rate_scale,
    )  # fmt: skip
    for optimizer in built.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return list(built.values())


def depth_of(name: str, num_layers: int) -> int:
    """0 for the embeddings, 1 … for the layers, one more than these for what follows them."""
    if name.startswith("embeddings."):
        return 0
    return int(name.split(".")[2]) + 1 if name.startswith("encoder.layers.") else num_layers + 1


def num_frozen(freeze: str, config: BertConfig) -> int:
    """How many depths a ``--freeze`` keeps as they are.

    Raises:
        InputError: neither "embeddings" nor "all" nor a number of layers that the model has.
    """
    layers = config.num_hidden_layers
    if not freeze:
        return 0
    count = {"embeddings": 0, "all": layers}.get(freeze, int(freeze) if freeze.isascii() and freeze.isdecimal() else -1)
    if not 0 <= count <= layers:
        raise InputError(f"--freeze {freeze}: expected embeddings, all, or a number of layers from 0 to {layers}")
    return count + 1


def _is_used(name: str, model: TaskModel) -> bool:
    modern, sequence = model.backbone.config.arch == "modern", model.settings.head == "sequence"
    if name.startswith("backbone.head."):
        return modern and not name.startswith(("backbone.head.bias", "backbone.head.decoder"))
    if name.startswith("backbone.pooler."):
        return sequence
    return not name.startswith("backbone.next_sentence.")
