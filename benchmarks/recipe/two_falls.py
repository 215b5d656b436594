"""Muon's and AdamW's learning rates that fall over shares of their own, beside their base of the same vocabulary.

python benchmarks/recipe/run.py --experiments two_falls.py --log benchmarks/recipe/two_falls.jsonl
"""

from experiments import BASE, CLASSIC, EN, LONG, PT, ROFORMER, SHORT, TINY, Experiment

SPLIT = {"split_cooldown": [0.8, 0.4]}  # Muon's, AdamW's

QUEUE = [
    Experiment(options, steps, corpus=corpus, variant=variant, seeds=seeds)
    for options, steps, corpus, seeds in (
        *((size, SHORT, corpus, (0, 1, 2)) for size in (TINY, {}) for corpus in (PT, EN)),
        *((size, LONG, PT, (0,)) for size in (TINY, {})),
        (TINY, LONG, EN, (0,)),
        *((TINY | arch, SHORT, PT, (0, 1)) for arch in (ROFORMER, CLASSIC)),
    )
    for variant in ({}, SPLIT)
]
__all__ = ["BASE", "QUEUE"]
