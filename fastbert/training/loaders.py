"""Batches for training and evaluation."""

from collections.abc import Iterator

from fastbert.batch import PackedBatch
from fastbert.data import BatchLoader, TokenStore
from fastbert.data.batches.loader import Objective
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.text import Tokenizer
from fastbert.training.evaluation_data import EvaluationText, Spans
from fastbert.training.options import replay_tokens
from fastbert.training.plan import TrainingPlan
from fastbert.training.prepare_data import TrainingText

EVALUATION_RATE = 0.15  # BERT's, whatever the training uses, so that metrics compare
EVALUATION_SEED = 20_181_011  # fixed: every run predicts the same tokens


def training_loader(plan: TrainingPlan, evaluation: EvaluationText, text: TrainingText) -> BatchLoader | MixedLoader:
    """Shuffled batches of the training documents, and of those of ``--replay``."""

    def loader(store: TokenStore, spans: Spans, batch_tokens: int) -> BatchLoader:
        return BatchLoader(
            store, spans, text.tokenizer, batch_tokens=batch_tokens, max_length=plan.max_length,
            objective=plan.objective, seed=plan.seed, mask_unit=plan.mask_unit,
        )  # fmt: skip

    if (replay := evaluation.replay) is None:
        return loader(text.store, evaluation.train, plan.batch_ramp.unit)
    tokens = replay_tokens(plan.batch_ramp.unit, plan.replay_share, plan.max_length)
    return MixedLoader(
        loader(text.store, evaluation.train, plan.batch_ramp.unit - tokens), loader(replay.store, replay.train, tokens)
    )


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
