"""What changes during a run: learning rates, weight decay, masking rate, batch size.

Each is a pure function of ``progress``, the fraction of the budget that is spent (0 to 1), or of ``step_share``, the
fraction of the budget that one step takes. So one recipe fits ten seconds and ten days.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fastbert.system.errors import InputError

DEFAULT_WEIGHT_DECAY = 0.01
DEFAULT_LEARNING_RATE, DEFAULT_MUON_LEARNING_RATE = 2e-3, 0.02  # peaks, for REFERENCE_STEPS
DEFAULT_BETA1, DEFAULT_BETA2 = 0.9, 0.98  # of AdamW
# AdamW averages weights over 1 / (learning rate × decay) steps; the best such time is a fixed share of the budget
# (Wang and Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024; docs/recipe.md)
DECAY_TIMESCALE, EARLIER_DECAY_TIMESCALE = 0.2, 0.1  # until 30 November 2026
MAX_DECAY_PER_STEP = 0.025  # reached below 200 steps, which were not measured; ten steps would erase the weights
# The best learning rates fall with the cube root of the number of steps: measured from 400 to 6,400 steps at two model
# sizes (docs/recipe.md)
REFERENCE_STEPS = 2000
MAX_LR_SCALE = 3.0  # reached below 74 steps, which were not measured


@dataclass(frozen=True)
class Schedule:
    """Warm-up, plateau, linear decay to zero, as shares of the budget (Hu et al., MiniCPM, 2024: "WSD")."""

    warmup: float = 0.02
    decay: float = 0.6

    def __call__(self, progress: float) -> float:
        """Factor of the peak learning rate at ``progress``; never quite zero, so that no step is wasted."""
        rising = progress / self.warmup if self.warmup else 1.0
        falling = (1.0 - progress) / self.decay if self.decay else 1.0
        return max(min(1.0, rising, falling), 1e-3)


# for weights that are trained already, at any length of the run, by optimizer: learning rates of AdamW and Muon, weight
# decay; and the share of these weights in the result (docs/recipe.md)
CONTINUED_HYPERPARAMETERS = {
    "muon": (2e-3, 0.01, DEFAULT_WEIGHT_DECAY),
    "adamw": (5e-4, 0.0, DEFAULT_WEIGHT_DECAY),
}
CONTINUED_SHARE = {"muon": 0.6, "adamw": 0.3}
CONTINUED_SCHEDULE = Schedule(warmup=0.1, decay=0.9)
# beside Muon, whose rate falls for most of the run, AdamW's stays up for longer (docs/recipe.md)
MUON_DECAY, DECAY_BESIDE_MUON = 0.8, 0.4
BETA1_BESIDE_MUON, VECTOR_SCALE_BESIDE_MUON = 0.5, 8.0


@dataclass(frozen=True)
class HyperparameterRule:
    """Peak learning rates and weight decay for a run of any length.

    Attributes:
        peaks: optimizer ("adamw", "muon") -> peak learning rate, for REFERENCE_STEPS if it is scaled.
        weight_decay: of matrices and embeddings; fixed unless ``decay_timescale`` is set.
        scaled: optimizers whose peak falls with the cube root of the number of steps.
        decay_timescale: share of the budget after which Muon's matrices have forgotten 1 - 1/e of their value.
    """

    peaks: Mapping[str, float]
    weight_decay: float
    scaled: frozenset[str] = frozenset()
    decay_timescale: float | None = None

    @classmethod
    def of(
        cls,
        learning_rate: float | None,
        muon_learning_rate: float | None,
        weight_decay: float | None,
        *,
        muon: bool,
        decay_timescale: float = DECAY_TIMESCALE,
    ) -> "HyperparameterRule":
        """The rule for given values; what is None goes by the length of the run, but without Muon nothing does."""
        by_length = {name for name, rate in (("adamw", learning_rate), ("muon", muon_learning_rate)) if rate is None}
        peaks = {"adamw": DEFAULT_LEARNING_RATE if learning_rate is None else learning_rate}
        if muon:
            peaks["muon"] = DEFAULT_MUON_LEARNING_RATE if muon_learning_rate is None else muon_learning_rate
        return cls(
            peaks,
            DEFAULT_WEIGHT_DECAY if weight_decay is None else weight_decay,
            frozenset(by_length) if muon else frozenset(),
            decay_timescale if weight_decay is None and peaks.get("muon") else None,
        )

    def at(self, step_share: float) -> tuple[dict[str, float], float]:
        """Peak learning rate of each optimizer, and the weight decay, when a step is ``step_share`` of the budget.

        At 0 the share is not known yet: the reference peaks and the fixed decay.
        """
        scale = min((REFERENCE_STEPS * step_share) ** (1 / 3), MAX_LR_SCALE) if step_share else 1.0
        peaks = {name: peak * (scale if name in self.scaled else 1.0) for name, peak in self.peaks.items()}
        if not step_share or self.decay_timescale is None:
            return peaks, self.weight_decay
        return peaks, min(step_share / self.decay_timescale, MAX_DECAY_PER_STEP) / peaks["muon"]


@dataclass(frozen=True)
class RateSchedule:
    """Share of the tokens to mask as a function of progress: constant, or from ``start`` to ``end``.

    Reference: Ankner et al., "Dynamic Masking Rate Schedules for MLM Pretraining", 2024 (linear, high to low).
    """

    start: float = 0.15
    end: float | None = None  # None: constant
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        for rate in (self.start, self.end):
            if rate is not None and not 0 < rate <= 1:
                raise InputError(f"--mask-rate {rate}: expected a share of the tokens, above 0 and at most 1. Try: 0.3")
        if self.shape not in ("linear", "cosine"):
            raise InputError(f"--mask-rate: unknown schedule {self.shape!r}. Try: linear or cosine")

    @classmethod
    def parse(cls, text: str) -> "RateSchedule":
        """Read "0.15" (constant), "0.3:0.15" or "0.3:0.15:cosine".

        Raises:
            InputError: anything else.
        """
        first, *rest = str(text).split(":")
        try:
            start, end = float(first), float(rest[0]) if rest else None
        except ValueError:
            start, rest = math.nan, ["", "", ""]
        if len(rest) > 2:
            raise InputError(f"--mask-rate {text}: expected RATE, START:END or START:END:cosine. Try: 0.3:0.15")
        return cls(start, end, *rest[1:])  # type: ignore[arg-type]

    def rate(self, progress: float) -> float:
        """Masking rate at ``progress``, clipped to [0, 1]."""
        if self.end is None:
            return self.start
        progress = min(max(progress, 0.0), 1.0)
        done = progress if self.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class BatchRamp:
    """A step is ``most`` batches of ``unit`` tokens; their number grows evenly over the first ``share`` of the budget.

    Reference: Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2018.
    """

    unit: int  # tokens of one batch
    most: int = 1
    share: float = 0.5

    @classmethod
    def parse(cls, text: str | None, batch_tokens: int, least: int) -> "BatchRamp":
        """Read "FROM" or "FROM:SHARE", such as "512:0.3"; None: no ramp.

        Raises:
            InputError: anything else, a FROM that does not divide ``batch_tokens``, or one below ``least`` tokens.
        """
        if text is None:
            return cls(batch_tokens)
        first, colon, rest = text.partition(":")
        try:
            unit, share = int(first), float(rest) if colon else 0.5
        except ValueError:
            unit, share = 0, 0.0
        if unit < 1 or not 0.0 < share <= 1.0:
            raise InputError(f"--batch-ramp {text}: expected FROM or FROM:SHARE. Try: 512 or 512:0.3")
        if unit < least or batch_tokens % unit:
            raise InputError(
                f"--batch-ramp {text}: FROM must divide --batch-tokens ({batch_tokens}) and be at least --max-length "
                f"({least}). Try: {next(n for n in range(least, batch_tokens + 1) if batch_tokens % n == 0)}"
            )
        return cls(unit, batch_tokens // unit, share)

    @property
    def mean(self) -> float:
        """Mean number of batches in a step, over the whole run."""
        return self.most - self.share * (self.most - 1) / 2

    def batches(self, progress: float) -> int:
        """Number of batches in the step at ``progress``."""
        return min(self.most, 1 + int((self.most - 1) * progress / self.share + 0.5))
