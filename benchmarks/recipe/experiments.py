"""The queue: what is tried, in the order of its worth. A run is one experiment with one seed; log.jsonl is the result.

``options`` are fields of fastbert.training.options.TrainOptions that differ from the base below, ``variant`` names
changes that are no option of the command (variants.py). A comparison is made at equal tokens, on the same text,
vocabulary and evaluation questions; what a step costs is measured apart (costs.py).
"""

from dataclasses import dataclass, field
from typing import Any

SHORT, MEDIUM, LONG = 400, 800, 1600  # steps of 2,048 tokens
SEEDS = (0, 1, 2)

# what every run has unless it says otherwise: the defaults of the command until two_falls.py
BASE: dict[str, Any] = {
    "arch": "modern",
    "preset": "mini",
    "batch_tokens": 2048,
    "max_length": 128,
    "mask_rate": "0.3",
    "optimizer": "muon",
    "learning_rate": None,
    "muon_learning_rate": None,
    "weight_decay": None,
    "warmup": 0.02,
    "decay": 0.6,
    "beta1": 0.9,
    "vector_scale": 1.0,
    "decay_timescale": 0.1,
    "clip_norm": 1.0,
    "threads": 1,
}


@dataclass(frozen=True)
class Experiment:
    """Some options, tried with some seeds."""

    options: dict[str, Any] = field(default_factory=dict)
    steps: int = SHORT
    seeds: tuple[int, ...] = SEEDS
    corpus: str = "bundled:pt"
    variant: dict[str, Any] = field(default_factory=dict)


TINY = {"preset": "tiny"}  # a fifth of mini's cost a step
ROFORMER, CLASSIC = {"arch": "roformer"}, {"arch": "classic"}
HALF = {"muon_learning_rate": 0.01, "learning_rate": 1e-3}
FIXED = {"weight_decay": 0.01}  # the default before it followed the budget
# before heads began at their neighbours
RANDOM, SINUSOIDS = {"start": "random"}, {"start": "sinusoids"}
PT, EN = "bundled:pt", "bundled:en"


def rates(muon: float, adamw: float | None = None) -> dict[str, float]:
    """Peak learning rates as multiples of 0.02 (Muon) and 0.002 (AdamW); one number for both."""
    adamw = muon if adamw is None else adamw
    return {"muon_learning_rate": round(0.02 * muon, 6), "learning_rate": round(2e-3 * adamw, 7)}


FORMER = rates(1)  # the default before rates followed the budget
# both rates, only Muon's, only AdamW's
AROUND = [rates(f) for f in (0.35, 0.5, 0.71, 1.41, 2.0, 2.83)] + [
    rates(0.5, 1), rates(1, 0.5), rates(2, 1), rates(1, 2),
]  # fmt: skip

# Where a claim is settled: two sizes, both languages, three seeds; 3.3 million tokens for tiny, 0.8 for mini.
SIZES = ((TINY, LONG), ({}, SHORT))


def everywhere(options: dict[str, Any] | None = None, variant: dict[str, Any] | None = None) -> list[Experiment]:
    return [
        Experiment(size | (options or {}), steps, corpus=corpus, variant=variant or {})
        for corpus in (PT, EN)
        for size, steps in SIZES
    ]


def tuned(*candidates: dict[str, Any]) -> list[Experiment]:
    """One seed of Portuguese finds the learning rate of each size."""
    return [Experiment(size | options, steps, seeds=(0,)) for size, steps in SIZES for options in candidates]


def adamw(rate: float) -> dict[str, Any]:
    return {"optimizer": "adamw", "learning_rate": rate}


QUEUE: list[Experiment] = [
    # the learning rate by the length of the budget: one seed finds the region
    *[Experiment(TINY | more, steps, seeds=(0,)) for steps in (SHORT, LONG) for more in [FORMER, *AROUND]],
    *[Experiment(rates(f), SHORT, seeds=(0,)) for f in (1.0, 1.41, 2.0, 2.83)],
    *[Experiment(rates(f), LONG, seeds=(0,)) for f in (0.71, 1.0, 1.41)],
    *[Experiment(TINY | rates(f), 4 * LONG, seeds=(0,)) for f in (0.71, 1.0)],
    # what the default's five minutes come to
    *[Experiment(more, 2700, seeds=(0,)) for more in ({}, FORMER)],
    # the default's five minutes, and what they would be with the other architecture
    *[Experiment(more, 2700) for more in (ROFORMER, {})],
    # the default, and what it could be instead
    *everywhere(),
    *everywhere(ROFORMER),
    *everywhere(variant=RANDOM),
    *everywhere({"mask_rate": "0.15"}),
    # AdamW for all, with the best of its rates for each size
    *tuned(adamw(1e-3), adamw(2e-3)),
    Experiment(TINY | adamw(4e-3), LONG, seeds=(0,)),
    Experiment(adamw(5e-4), SHORT, seeds=(0,)),
    *[Experiment(TINY | adamw(2e-3), LONG, corpus=corpus) for corpus in (PT, EN)],
    *[Experiment(adamw(1e-3), SHORT, corpus=corpus) for corpus in (PT, EN)],
    Experiment(adamw(1e-3), round(SHORT / 0.75)),  # at equal time: a step of AdamW costs three quarters
    # rates by the length against the usual ones: short budgets, where they differ
    *[Experiment(more, SHORT // 2, corpus=EN) for more in ({}, FORMER)],
    *[Experiment(TINY | more, SHORT, corpus=corpus) for corpus in (PT, EN) for more in ({}, FORMER)],
    *[Experiment(FORMER, SHORT, corpus=corpus) for corpus in (PT, EN)],
    Experiment(ROFORMER | FORMER, SHORT),
    *everywhere(CLASSIC),
    # does another architecture want other rates? The default's are x 1.08 and x 1.71 here
    *[Experiment(TINY | more | rates(f), LONG, seeds=(0,)) for more in (ROFORMER, CLASSIC) for f in (0.76, 1.52)],
    *[Experiment(more | rates(f), SHORT, seeds=(0,)) for more in (ROFORMER, CLASSIC) for f in (1.21, 2.42)],
    *everywhere(FIXED),
    *everywhere(variant={"newton_schulz": 3}),
    *everywhere({"decay": 1.0}),
    # weight decay, over budgets that see the text several times: fixed, or by the length of the budget
    Experiment(FORMER | {"weight_decay": 0.1}, LONG, seeds=(0,), variant=RANDOM),
    Experiment(FORMER | {"weight_decay": 0.3}, LONG, seeds=(0, 1), variant=RANDOM),
    Experiment(FORMER, LONG, variant=RANDOM),
    Experiment(FORMER | FIXED, LONG, variant=RANDOM),
    Experiment(TINY | FORMER, LONG, corpus=EN, variant=RANDOM),
    Experiment(TINY | FORMER | FIXED, LONG, corpus=EN, variant=RANDOM),
    # how classic began before
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, corpus=EN, variant=SINUSOIDS),
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, corpus=EN, variant=RANDOM),
    Experiment(TINY | CLASSIC | HALF | FIXED, LONG, variant=SINUSOIDS, seeds=(0, 1)),
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, variant=SINUSOIDS, seeds=(0, 1)),
    # longer still
    *[Experiment(TINY | more, 4 * LONG) for more in ({}, FORMER)],
    *[Experiment(more, 4 * LONG, seeds=(0,)) for more in ({}, FORMER)],
    # memory: other shares
    *[Experiment(TINY, LONG, corpus=EN, variant={"memory": share}, seeds=(0,)) for share in (0.03, 0.3)],
    # the rest of the recipe, a first look with tiny
    Experiment(TINY | {"mask_rate": "0.3:0.15"}, LONG),
    Experiment(TINY | {"batch_tokens": 1024}, 2 * LONG),
    Experiment(TINY | {"batch_tokens": 4096}, LONG // 2),
    Experiment(TINY | {"batch_tokens": 4096, "batch_ramp": "1024:0.6"}, round(LONG / 2 / 0.775)),
    Experiment(TINY | {"decay": 0.3}, LONG),
    Experiment(TINY | {"warmup": 0.1}, LONG),
    Experiment(TINY, LONG, variant={"newton_schulz": 4}),
    Experiment(TINY, LONG, variant={"polar_express": 3}),
    Experiment(TINY, LONG, variant={"short_first": "64:0.5"}),
    Experiment(TINY, LONG, variant={"ema": 0.99}),
    Experiment(TINY, LONG, variant={"unigram_bias": True}),
]
