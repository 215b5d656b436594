"""Batches for training and evaluation."""

from collections.abc import Iterator

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader, TokenStore
from fastbert.data.batches.loader import Objective
from fastbert.text import Tokenizer
from fastbert.training.evaluation_data import EvaluationText, Spans
from fastbert.training.plan import TrainingPlan

EVALUATION_RATE = 0.15  # BERT's, whatever the training uses, so that metrics compare
EVALUATION_SEED = 20_181_011  # fixed: every run predicts the same tokens


def training_loader(plan: TrainingPlan, store: TokenStore, spans: Spans, tokenizer: Tokenizer) -> BatchLoader:
    """Shuffled batches for training."""
    return BatchLoader(
        store, spans, tokenizer, batch_tokens=plan.batch_ramp.unit, max_length=plan.max_length,
        objective=plan.objective, seed=plan.seed, mask_unit=plan.mask_unit,
    )  # fmt: skip


def evaluation_batches(
    plan: TrainingPlan, evaluation: EvaluationText, tokenizer: Tokenizer, max_tokens: int
) -> Iterator[PackedBatch]:
    """Up to ``max_tokens`` of the evaluation text, or the exhaustive check of a text to memorize.

    Tokens are masked as in BERT for every objective; for diffusion, half of them are masked as in training.
    """
    if evaluation.memorization is not None:
        yield evaluation.memorization
        return
    objectives: tuple[Objective, ...] = ("mlm", "diffusion") if plan.objective == "diffusion" else (plan.objective,)
    share = max(max_tokens // 2, plan.max_length) if len(objectives) > 1 else max_tokens
    for objective in objectives:
        loader = BatchLoader(
            evaluation.store, evaluation.heldout, tokenizer,
            batch_tokens=plan.batch_ramp.unit, max_length=plan.max_length,
            objective=objective, seed=plan.seed, shuffle=False, mask_unit="token",
        )  # fmt: skip
        yield from loader.evaluation_batches(EVALUATION_RATE, seed=EVALUATION_SEED, max_tokens=share)
