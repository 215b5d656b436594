"""A longer memory of the weights and faster biases and gains, with the two falls and β1 of 0.5; and more masks.

python benchmarks/recipe/run.py --experiments longer_memory.py --log benchmarks/recipe/longer_memory.jsonl
"""

from experiments import BASE as EARLIER
from experiments import CLASSIC, EN, LONG, PT, ROFORMER, SHORT, TINY, Experiment

BASE = EARLIER | {"decay": None, "beta1": 0.5}

MEMORY, VECTORS = {"decay_timescale": 0.2}, {"vector_scale": 8.0}
NOW = MEMORY | VECTORS

QUEUE = [
    *[Experiment(TINY | new, 4 * LONG, seeds=(0,)) for new in (NOW, {})],
    # seed by seed, in both sizes and languages
    *[Experiment(TINY | new, SHORT, corpus=corpus) for corpus in (PT, EN) for new in ({}, NOW)],
    *[Experiment(new, SHORT, corpus=corpus) for corpus in (PT, EN) for new in ({}, NOW)],
    *[Experiment(TINY | new, LONG, corpus=corpus) for corpus in (PT, EN) for new in ({}, NOW)],
    *[Experiment(new, LONG, seeds=(0,)) for new in ({}, NOW)],
    *[Experiment(TINY | arch | new, SHORT, seeds=(0, 1)) for arch in (ROFORMER, CLASSIC) for new in ({}, NOW)],
    # each alone, and other values
    *[
        Experiment(TINY | new, SHORT, seeds=(0,))
        for new in (
            *(MEMORY | {"vector_scale": scale} for scale in (1.0, 4.0, 16.0)),
            *(VECTORS | {"decay_timescale": share} for share in (0.1, 0.4, 1.0)),
            *(NOW | {"mask_rate": rate} for rate in ("0.4", "0.5")),
        )
    ],
]
__all__ = ["BASE", "QUEUE"]
