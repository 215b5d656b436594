"""Training that has gone wrong: noticed before the step that would spoil the weights, and said with its remedy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastbert.system.errors import AllRanksFail

FEW = 20  # losses the mean is taken over
EXPLODED = 1.5  # times the loss of a model that knows nothing, ln V


class Watch:
    """Looks at every loss and gradient norm before the update.

    Args:
        vocab_size: V; a guess without knowledge costs ln V nats.
    """

    def __init__(self, vocab_size: int):
        self._limit = math.log(max(vocab_size, 2)) + 1.0
        self._recent: list[float] = []
        self.healthy = True  # the state before this step is one to keep

    def problem(self, loss: float, norm: float) -> str | None:
        """What is wrong, in words, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        if not self._recent:  # weights from elsewhere may begin worse than none
            self._limit = EXPLODED * max(self._limit, loss)
        self._recent = [*self._recent[1 - FEW :], loss]
        mean = sum(self._recent) / len(self._recent)
        if len(self._recent) == FEW and mean > self._limit:
            self.healthy = False
            return f"the loss has exploded (mean of {FEW} steps {mean:,.1f}; {self._limit:.1f} is worse than guessing)"
        return None


class Diverged(AllRanksFail):
    """The message: what happened, what is kept, what to change."""

    def __init__(self, run: Path, step: int, problem: str, steps: Sequence[int], peaks: Mapping[str, float]):
        options = {"adamw": "--learning-rate", "muon": "--muon-learning-rate"}
        rates = " and ".join(f"{options[name]} (now {peak:g})" for name, peak in peaks.items())
        remedy = f"lower {rates}, or lengthen --warmup"
        kept = (
            f"the last good state is kept in {run}/checkpoints/step-{steps[-1]}. Start a new run: {remedy}; "
            f"--init {run}/checkpoints/step-{steps[-1]} --tokenizer {run} begins with those weights"
            if steps
            else f"start again: {remedy}"
        )
        super().__init__(f"step {step + 1}: {problem}: training has diverged; {kept}")
