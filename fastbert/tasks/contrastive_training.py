"""Contrastive fine-tuning of an encoder, and the measure of its vectors on pairs that it is not trained on.

Legend: B pairs of a batch, N hard negatives, D hidden_size.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import build_optimizers
from fastbert.tasks import scores
from fastbert.tasks.contrastive_losses import cosent, cosine_error, info_nce, over_dimensions, same_texts
from fastbert.tasks.guarded import Course, Progress, train_guarded
from fastbert.tasks.saved_training import SavedTraining
from fastbert.tasks.text_pairs import NEGATIVES, GradedPair, Pair, batches

EVALUATION_BATCH = 256  # texts
Encode = Callable[[Sequence[str]], Tensor]  # texts → vectors (B, D) of length 1, differentiable


@dataclass(frozen=True)
class ContrastiveRecipe:
    """How an encoder is trained; see the options of ``python -m fastbert.contrastive``."""

    loss: str = NEGATIVES
    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 5e-5
    temperature: float = 0.05
    dimensions: tuple[int, ...] = ()
    seed: int = 0

    @property
    def measure(self) -> str:
        return "found" if self.loss == NEGATIVES else "spearman"


def fine_tune(
    model: BertForPreTraining,
    encode: Encode,
    pairs: Sequence[Any],
    recipe: ContrastiveRecipe,
    held_out: Sequence[Any] = (),
    report: Callable[[Progress, float, dict[str, float] | None], None] = lambda progress, share, scores: None,
    saved: SavedTraining | None = None,
) -> Progress:
    """Train the encoder in place; it ends with its best weights on ``held_out``, or its last ones without any.

    Args:
        model: its embeddings and encoder are trained.
        encode: vectors by ``model`` as it is.
        pairs: of :func:`fastbert.tasks.text_pairs.read_pairs`, or graded ones.
        recipe: loss and rates.
        held_out: pairs that are measured after every epoch.
        report: see :func:`fastbert.tasks.guarded.train_guarded`.
        saved: where the state of an unfinished training is saved, and taken from.

    Raises:
        Diverged: before there are weights to keep.
    """
    torch.manual_seed(recipe.seed)
    encoder = [(n, p) for n, p in model.named_parameters() if n.startswith(("embeddings.", "encoder."))]
    peaks = {"adamw": recipe.learning_rate}
    optimizers = build_optimizers(encoder, model.config, "adamw", peaks, 0.01, betas=(0.9, 0.999), eps=1e-8)
    for group in optimizers["adamw"].param_groups:
        group["peak"] = group["lr"]
    steps_per_epoch = sum(1 for _ in batches(pairs, recipe.batch_size, 0))
    total = recipe.epochs * steps_per_epoch
    rise = max(1, total // 10)
    epochs = (batches(pairs, recipe.batch_size, recipe.seed + epoch) for epoch in range(recipe.epochs))
    course = Course(
        total,
        steps_per_epoch,
        factor=lambda step: min(step / rise, (total - step + 1) / max(total - rise, 1)),
        score=(lambda: evaluate(model, encode, held_out, recipe)) if held_out else None,
        measure=recipe.measure,
    )
    progress, loss_of = Progress(), loss_function(encode, pairs, recipe, model.device)
    model.train()
    each = itertools.chain.from_iterable(epochs)
    train_guarded(model, optimizers, each, loss_of, course, progress, device=model.device, report=report, saved=saved)
    model.eval()
    return progress


def loss_function(
    encode: Encode, pairs: Sequence[Any], recipe: ContrastiveRecipe, device: torch.device
) -> Callable[[Sequence[Any]], Tensor]:
    """The loss of a batch; all its texts go through the model at once (with dropout, equal texts differ)."""
    temperature, dimensions = recipe.temperature, recipe.dimensions

    def vectors_of(*parts: Sequence[str]) -> tuple[Tensor, ...]:
        return encode([text for part in parts for text in part]).split([len(part) for part in parts])

    def of_pairs(batch: Sequence[Pair]) -> Tensor:
        negatives = [text for pair in batch for text in pair[2:]]
        same = same_texts(batch).to(device)
        masked = same if same.any() else None
        vectors = vectors_of([pair[0] for pair in batch], [pair[1] for pair in batch], negatives)
        return over_dimensions(
            lambda first, second, others: info_nce(first, second, temperature, others, masked), dimensions, *vectors
        )

    low, high = (f(pair[2] for pair in pairs) for f in (min, max)) if recipe.loss != NEGATIVES else (0.0, 1.0)

    def of_graded(batch: Sequence[GradedPair]) -> Tensor:
        grades = torch.tensor([score for _, _, score in batch], device=device)
        vectors = vectors_of([pair[0] for pair in batch], [pair[1] for pair in batch])
        if recipe.loss == "cosent":
            return over_dimensions(lambda a, b: cosent(a, b, grades, temperature), dimensions, *vectors)
        targets = (grades - low) / (high - low)
        return over_dimensions(lambda a, b: cosine_error(a, b, targets), dimensions, *vectors)

    return of_pairs if recipe.loss == NEGATIVES else of_graded


def evaluate(
    model: BertForPreTraining, encode: Encode, pairs: Sequence[Any], recipe: ContrastiveRecipe
) -> dict[str, float]:
    """``found``, the share of the pairs whose partner is nearer than all others; of graded pairs the correlation of
    their cosines with their numbers, ``spearman``. The model stays in training mode."""
    model.eval()
    with torch.no_grad():
        first, second = (torch.cat([*_vectors(encode, [pair[i] for pair in pairs])]) for i in (0, 1))
    model.train()
    if recipe.loss != NEGATIVES:
        cosines = (first * second).sum(-1).double().cpu().numpy()
        return {"spearman": scores.regression_scores(np.array([p[2] for p in pairs]), cosines)["spearman"]}
    texts = [pair[1] for pair in pairs]
    nearest = (first @ second.T).argmax(1).tolist()
    return {"found": sum(texts[i] == text for i, text in zip(nearest, texts, strict=True)) / len(texts)}


def _vectors(encode: Encode, texts: Sequence[str]) -> Iterator[Tensor]:
    for begin in range(0, len(texts), EVALUATION_BATCH):
        yield encode(texts[begin : begin + EVALUATION_BATCH])
