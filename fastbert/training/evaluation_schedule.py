"""When evaluations are due, and how much of the budget is kept for the final one."""

from fastbert.training.budget import Budget

MAX_EVAL_SHARE = 0.05  # of the training time, for evaluations during the run
MAX_FINAL_EVAL_SHARE = 0.1  # of the minutes
FINISH_RESERVE_S = 8.0  # for the last checkpoint, the model, the curves, the examples and the probes
SAFETY = 1.2  # of an estimated evaluation time


class EvaluationSchedule:
    """Evaluations at multiples of 1 / ``count`` of the budget, less often if they are slow.

    Args:
        count: evaluations during the run.
        final_scale: cost of the final evaluation, in evaluations during the run.
        budget: of the run; ``reserve_s`` is set here.

    Attributes:
        due: progress at which the next one is due; None: not known yet.
        final_share: share of its tokens that the final evaluation uses, below 1 if all would take too long.
    """

    def __init__(self, count: int, final_scale: float, budget: Budget):
        self.count, self.final_scale, self.budget = count, final_scale, budget
        self.due: float | None = None
        self.final_share = 1.0

    def first(self, progress: float, estimated_eval_s: float) -> float:
        """Progress at which the first evaluation is due; ``estimated_eval_s`` 0: not known."""
        due = self._next_multiple(progress)
        if self.budget.minutes is None or not estimated_eval_s:
            return due
        self.reserve(estimated_eval_s)
        return max(due, progress + estimated_eval_s / (MAX_EVAL_SHARE * self.budget.total_s))

    def evaluated(self, began_at: float, progress: float, took_s: float) -> None:
        """An evaluation took from ``began_at`` to ``progress``: set when the next one is due."""
        self.reserve(took_s)
        # on a slow machine or in a short run they are further apart
        self.due = self._next_multiple(progress + (1 / MAX_EVAL_SHARE - 1) * (progress - began_at))

    def reserve(self, evaluation_s: float) -> None:
        """Keep time for the final evaluation, given the time of one during the run."""
        if self.budget.minutes is not None:
            final_s = SAFETY * evaluation_s * self.final_scale
            allowed_s = MAX_FINAL_EVAL_SHARE * self.budget.minutes * 60.0
            self.final_share = min(1.0, allowed_s / max(final_s, 1e-6))
            self.budget.reserve_s = min(FINISH_RESERVE_S, allowed_s) + min(final_s, allowed_s)

    def _next_multiple(self, progress: float) -> float:
        return (int(progress * self.count) + 1) / self.count if self.count else 2.0
