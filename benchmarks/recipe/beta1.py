"""AdamW's β1 beside Muon: 0.5 against 0.9, with the two falls of two_falls.py.

python benchmarks/recipe/run.py --experiments beta1.py --log benchmarks/recipe/beta1.jsonl
"""

from experiments import BASE as EARLIER
from experiments import CLASSIC, EN, LONG, PT, ROFORMER, SHORT, TINY, Experiment

BASE = EARLIER | {"decay": None}

QUEUE = [
    Experiment(options | {"beta1": beta1}, steps, corpus=corpus, seeds=seeds)
    for options, steps, corpus, seeds in (
        *((size, SHORT, corpus, (0, 1, 2)) for size in (TINY, {}) for corpus in (PT, EN)),
        *((TINY | arch, SHORT, PT, (0, 1)) for arch in (ROFORMER, CLASSIC)),
        *((TINY, LONG, corpus, (0, 1, 2)) for corpus in (PT, EN)),
        ({}, LONG, PT, (0,)),
        (TINY, 4 * LONG, PT, (0,)),
    )
    for beta1 in (0.9, 0.5)
]
__all__ = ["BASE", "QUEUE"]
