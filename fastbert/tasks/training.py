"""Fine-tuning: packed batches of equal token counts, linear warm-up and decay, the best checkpoint kept.

The default optimizer is the one that pretrained the encoder. Muon's matrices are several times as large as AdamW's, and
AdamW at its default rate hardly moves them (measured: benchmarks/finetuning/README.md).

:mod:`fastbert.tasks.guarded` has the loop.

Reference: Devlin et al., BERT, 2019, section 3.2; Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Liu et
al., Muon is Scalable for LLM Training, 2025, section 3.5 (another optimizer than the pretraining's costs quality).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastbert.config import BertConfig
from fastbert.optim.optimizers import build_optimizers
from fastbert.optim.schedules import Schedule
from fastbert.system.devices import autocast
from fastbert.system.errors import InputError
from fastbert.tasks.features import Rows
from fastbert.tasks.guarded import Course, Progress, train_guarded
from fastbert.tasks.model import TaskModel
from fastbert.tasks.saved_training import SavedTraining

Scorer = Callable[[TaskModel], dict[str, float]]
# half of pretraining's rates
MUON_LEARNING_RATE, LEARNING_RATE_WITH_MUON = 0.01, 1e-3


@dataclass(frozen=True)
class Recipe:
    """How a head and its encoder are trained."""

    epochs: float = 3.0
    batch_size: int = 32  # rows in a step, on average
    optimizer: str = "adamw"  # "muon": Muon for the matrices of the layers, AdamW for the rest
    learning_rate: float = 5e-5  # peak of AdamW
    muon_learning_rate: float = MUON_LEARNING_RATE  # peak of Muon
    layer_decay: float = 1.0  # factor of the learning rates from each layer to the one below it
    lora: int = 0  # rank of the updates that are trained in place of the encoder; 0: none
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


def train(
    model: TaskModel,
    rows: Rows,
    recipe: Recipe,
    score: Scorer,
    *,
    weights: Tensor | None = None,
    report: Callable[[Progress, float, dict[str, float] | None], None] = lambda progress, share, scores: None,
    saved: SavedTraining | None = None,
) -> Progress:
    """Fine-tune in place; the model ends with the weights of its best evaluation, or of its last step without any.

    Args:
        rows: labelled rows; see :class:`~fastbert.tasks.features.Rows`.
        score: measures of a model on the evaluation set, among them ``recipe.measure``.
        weights: (C,) of the classes in the loss.
        report: called after every step with the share of the training that is done, and after every evaluation with
            its scores.
        saved: where the state of an unfinished training is saved, and taken from.

    Raises:
        Diverged: before the first evaluation; later ones are recorded in the progress.
    """
    device, schedule = model.device, Schedule(recipe.warmup, 1.0 - recipe.warmup)
    steps_per_epoch = -(-len(rows) // recipe.batch_size)
    total = max(1, round(recipe.epochs * steps_per_epoch))
    progress = Progress()

    def loss_of(chosen: list[int]) -> Tensor:
        batch, targets = rows.batch(chosen).to(device), rows.targets_of(chosen)
        assert targets is not None
        progress.tokens += batch.num_tokens
        with autocast(device, recipe.bf16):
            return model.loss(batch, targets.to(device), weights, recipe.label_smoothing)

    course = Course(
        total,
        steps_per_epoch / (recipe.evaluations or 1),
        factor=lambda step: schedule(step / (total + 1)),
        score=(lambda: evaluate(model, score, device, recipe.bf16)) if recipe.evaluations else None,
        measure=recipe.measure,
        patience=recipe.patience,
        clip_norm=recipe.clip_norm,
    )
    torch.manual_seed(recipe.seed)
    model.train()
    optimizers, batches = _optimizers(model, recipe), _batches(rows.lengths, recipe, total)
    train_guarded(model, optimizers, batches, loss_of, course, progress, device=device, report=report, saved=saved)
    model.eval()
    return progress


def evaluate(model: TaskModel, score: Scorer, device: torch.device, bf16: bool) -> dict[str, float]:
    """Score a model in the training's arithmetic, leaving it in training mode."""
    model.eval()
    with autocast(device, bf16):
        scores = score(model)
    model.train()
    return scores


def _batches(lengths: NDArray[np.int64], recipe: Recipe, total: int) -> Iterator[list[int]]:
    done = epoch = 0
    while done < total:
        for chosen in epoch_batches(lengths, recipe.batch_size, recipe.seed, epoch):
            if done == total:
                return
            yield chosen
            done += 1
        epoch += 1


def _optimizers(model: TaskModel, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """AdamW, and Muon if requested; every group has its peak rate. No decay of biases and LayerNorms.

    Heads that the task does not use get no gradient and are left alone, as what is frozen.
    """
    config = model.backbone.config
    used = [(name.removeprefix("backbone."), p) for name, p in model.named_parameters() if _is_used(name, model)]
    for name, parameter in used:
        frozen = depth_of(name, config.num_hidden_layers) < num_frozen(recipe.freeze, config)
        # the norm after the last layer too is no part of a head
        parameter.requires_grad_(not frozen and not (recipe.freeze == "all" and name.startswith("encoder.")))
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
    return built


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
