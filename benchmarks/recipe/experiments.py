"""The queue: what is tried, in the order of its worth. A run is one experiment with one seed; log.jsonl is the result.

``options`` are fields of fastbert.options.TrainOptions that differ from the base below, ``variant`` names changes that
are no option of the command (variants.py). A comparison is made at equal tokens, on the same text, vocabulary and
evaluation questions; what a step costs is measured apart (costs.py).
"""

from dataclasses import dataclass, field
from typing import Any

SHORT, MEDIUM, LONG = 400, 800, 1600  # steps of 2,048 tokens
SEEDS = (0, 1, 2)

# what every run has unless it says otherwise: the defaults of the command
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


TINY = {"preset": "tiny"}  # a fifth of mini's cost a step: here is the first look, mini confirms
ROFORMER = {"arch": "roformer"}


CLASSIC = {"arch": "classic"}
HALF = {"muon_learning_rate": 0.01, "learning_rate": 1e-3}
FIXED = {"weight_decay": 0.01}  # the default before it followed the budget
# before heads began at their neighbours
RANDOM, SINUSOIDS = {"start": "random"}, {"start": "sinusoids"}


def rates(muon: float, adamw: float | None = None) -> dict[str, float]:
    """Peak learning rates as multiples of 0.02 (Muon) and 0.002 (AdamW); one number for both."""
    adamw = muon if adamw is None else adamw
    return {"muon_learning_rate": round(0.02 * muon, 6), "learning_rate": round(2e-3 * adamw, 7)}


FORMER = rates(1)  # the default before rates followed the budget
# both rates, only Muon's, only AdamW's
AROUND = [rates(f) for f in (0.35, 0.5, 0.71, 1.41, 2.0, 2.83)] + [
    rates(0.5, 1), rates(1, 0.5), rates(2, 1), rates(1, 2),
]  # fmt: skip

QUEUE: list[Experiment] = [
    # the learning rate by the length of the budget: one seed finds the region
    *[Experiment(TINY | more, steps, seeds=(0,)) for steps in (SHORT, LONG) for more in [FORMER, *AROUND]],
    *[Experiment(rates(f), SHORT, seeds=(0,)) for f in (1.0, 1.41, 2.0, 2.83)],
    *[Experiment(rates(f), LONG, seeds=(0,)) for f in (0.71, 1.0, 1.41)],
    *[Experiment(TINY | rates(f), 4 * LONG, seeds=(0,)) for f in (0.71, 1.0)],
    # what the default's five minutes come to
    *[Experiment(more, 2700, seeds=(0,)) for more in ({}, FORMER)],
    # three seeds
    *[Experiment(more, SHORT // 2, corpus="bundled:en") for more in ({}, FORMER)],
    *[Experiment(more, SHORT) for more in ({}, FORMER)],
    *[Experiment(ROFORMER | more, SHORT) for more in ({}, FORMER)],
    *[Experiment(CLASSIC | more, SHORT, corpus="bundled:en") for more in ({}, FORMER)],
    # how attention begins
    Experiment(FORMER, LONG),
    Experiment(FORMER, LONG, variant=RANDOM),
    Experiment(ROFORMER, LONG),
    Experiment(CLASSIC | FORMER, MEDIUM, corpus="bundled:en"),
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, corpus="bundled:en", variant=SINUSOIDS),
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, corpus="bundled:en", variant=RANDOM),
    Experiment(TINY | FORMER, LONG, corpus="bundled:en"),
    Experiment(TINY | FORMER, LONG, corpus="bundled:en", variant=RANDOM),
    Experiment(FORMER, variant=RANDOM),
    Experiment(ROFORMER | FORMER, variant=RANDOM),
    Experiment(CLASSIC),
    Experiment(CLASSIC | HALF, MEDIUM, corpus="bundled:en", seeds=(0,)),
    Experiment(ROFORMER | FORMER, LONG, variant=RANDOM, seeds=(0,)),
    # rates of longer budgets
    *[Experiment(TINY | more, 4 * LONG) for more in ({}, FORMER)],
    *[Experiment(more, 4 * LONG, seeds=(0,)) for more in ({}, FORMER)],
    # weight decay, over budgets that see the text several times: fixed, or by the length of the budget
    Experiment(FORMER | {"weight_decay": 0.1}, LONG, seeds=(0,), variant=RANDOM),
    Experiment(FORMER | {"weight_decay": 0.3}, LONG, seeds=(0, 1), variant=RANDOM),
    Experiment(FORMER | FIXED, LONG, variant=RANDOM),
    Experiment(TINY | FORMER | FIXED, LONG, corpus="bundled:en", variant=RANDOM),
    Experiment(TINY | CLASSIC | HALF | FIXED, LONG, variant=SINUSOIDS, seeds=(0, 1)),
    Experiment(CLASSIC | HALF | FIXED, MEDIUM, variant=SINUSOIDS, seeds=(0, 1)),
    # memory: other shares, other lengths
    Experiment(TINY, LONG, corpus="bundled:en", variant={"memory": 0.03}, seeds=(0,)),
    Experiment(TINY, LONG, corpus="bundled:en", variant={"memory": 0.3}, seeds=(0,)),
    Experiment(TINY, corpus="bundled:en", seeds=(0,)),
    Experiment(TINY | FIXED, corpus="bundled:en", seeds=(0,)),
    Experiment(TINY, 4 * LONG, corpus="bundled:en", seeds=(0,)),
    Experiment(TINY | FIXED, 4 * LONG, corpus="bundled:en", seeds=(0,)),
    Experiment(TINY),
    Experiment(TINY | ROFORMER),
    # twice the budget: its middle is what a run cut short would have
    Experiment(TINY, steps=2 * SHORT),
    Experiment(TINY | {"mask_rate": "0.15"}),
    Experiment(TINY, variant={"newton_schulz": 3}),
    Experiment(TINY | {"mask_rate": "0.3:0.15"}),
    # a short budget: as much processor time as 400 steps of mini
    Experiment(TINY, steps=4 * SHORT, seeds=(0,)),
    # batches, at equal tokens
    Experiment(TINY | {"batch_tokens": 1024}, steps=2 * SHORT),
    Experiment(TINY | {"batch_tokens": 4096}, steps=SHORT // 2),
    Experiment(TINY | {"batch_tokens": 4096, "batch_ramp": "1024:0.6"}, steps=round(SHORT / 2 / 0.775)),
    # schedule
    Experiment(TINY | {"decay": 1.0}),
    Experiment(TINY | {"decay": 0.3}),
    Experiment(TINY | {"warmup": 0.1}),
    Experiment(TINY | CLASSIC),
    Experiment(TINY | CLASSIC | HALF, seeds=(0,)),
    Experiment(TINY, variant={"newton_schulz": 4}),
    Experiment(TINY, variant={"polar_express": 3}),
    Experiment(TINY, variant={"short_first": "64:0.5"}),
    Experiment(TINY, variant={"ema": 0.99}),
    Experiment(TINY, variant={"unigram_bias": True}),
    # the size of the default, at a budget of minutes, and the other language
    Experiment({"mask_rate": "0.15"}),
    Experiment(variant={"newton_schulz": 3}),
    Experiment(corpus="bundled:en"),
    Experiment(ROFORMER, corpus="bundled:en"),
    Experiment({"mask_rate": "0.15"}, corpus="bundled:en"),
]
