"""How long a run may take, in minutes or steps; its progress is one fraction from 0 to 1."""

import time
from dataclasses import dataclass, field

import fastbert


@dataclass
class Budget:
    """Minutes or steps, and how much of them is spent.

    Minutes count from the start of the process, data preparation included; ``reserve_s`` is kept for the final
    evaluation and saving, so that the whole command ends on time. A resumed run continues from ``spent_s``, with the
    ``prepared_s`` of its first session.
    """

    minutes: float | None = None
    steps: int | None = None
    reserve_s: float = 10.0  # kept for what follows the last step
    spent_s: float = 0.0  # training time of earlier sessions
    prepared_s: float | None = None  # before training, in the first session; set by start()
    _began_s: float = field(default=0.0, init=False)  # monotonic clock

    def start(self) -> None:
        """Training begins now; the time since the start of the process counts as preparation."""
        self._began_s = time.monotonic()
        if self.prepared_s is None:
            self.prepared_s = self._began_s - fastbert.IMPORTED_AT_S

    @property
    def training_s(self) -> float:
        """Seconds of training so far, earlier sessions included."""
        return self.spent_s + time.monotonic() - self._began_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training and preparation so far, earlier sessions included."""
        return (self.prepared_s or 0.0) + self.training_s

    @property
    def total_s(self) -> float:
        """Seconds of training that the minutes allow."""
        assert self.minutes is not None and self.prepared_s is not None
        return max(self.minutes * 60.0 - self.prepared_s - self.reserve_s, 1.0)

    def progress(self, step: int) -> float:
        """Spent fraction in [0, 1], before step ``step`` (from 0)."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, self.training_s / self.total_s)

    def ends_in_s(self) -> float | None:
        """Seconds until the whole command should end, reserve included; None for a number of steps."""
        if self.minutes is None:
            return None
        return self.total_s + self.reserve_s - self.training_s

    def left_s(self, step: int, step_s: float) -> float:
        """Estimated seconds until the last step, at ``step_s`` seconds per step."""
        if self.steps is not None:
            return max(self.steps - step, 0) * step_s
        return max(self.total_s - self.training_s, 0.0)
