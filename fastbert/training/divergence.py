"""Divergence: noticed before the update that would ruin the weights, and reported with a remedy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastbert.system.errors import AllRanksFail

MEAN_STEPS = 20  # losses in the mean
EXPLOSION_FACTOR = 1.5  # times the loss of an untrained model, ln V


class DivergenceMonitor:
    """Checks every loss and gradient norm before the update.

    Args:
        vocab_size: V; a uniform guess costs ln V nats.
    """

    def __init__(self, vocab_size: int):
        self._limit = math.log(max(vocab_size, 2)) + 1.0
        self._recent: list[float] = []
        self.healthy = True  # the state before this step is worth saving

    def problem(self, loss: float, norm: float) -> str | None:
        """What is wrong, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        if not self._recent:  # initial weights from elsewhere may be worse than random ones
            self._limit = EXPLOSION_FACTOR * max(self._limit, loss)
        self._recent = [*self._recent[1 - MEAN_STEPS :], loss]
        mean = sum(self._recent) / len(self._recent)
        if len(self._recent) == MEAN_STEPS and mean > self._limit:
            self.healthy = False
            return f"the loss has exploded (mean of {MEAN_STEPS} steps {mean:,.1f}; limit {self._limit:.1f})"
        return None


class Diverged(AllRanksFail):
    """What happened, which checkpoint is kept, what to change."""

    def __init__(self, run: Path, step: int, problem: str, steps: Sequence[int], peaks: Mapping[str, float]):
        options = {"adamw": "--learning-rate", "muon": "--muon-learning-rate"}
        rates = " and ".join(f"{options[name]} (now {peak:g})" for name, peak in peaks.items())
        remedy = f"a lower {rates}, or a longer --warmup"
        kept = (
            f"the last good state is in {run}/checkpoints/step-{steps[-1]}. Try: a new run with {remedy}; "
            f"with those weights, --init {run}/checkpoints/step-{steps[-1]} --tokenizer {run}"
            if steps
            else f"Try: start again with {remedy}"
        )
        super().__init__(f"step {step + 1}: {problem}: training has diverged{'; ' if steps else '. '}{kept}")
