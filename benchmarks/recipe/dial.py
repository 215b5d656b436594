"""The default recipe in several sizes and lengths: what `fastbert.training.dial` is fitted to, by fit_dial.py.

python benchmarks/recipe/run.py --experiments dial.py --log benchmarks/recipe/dial.jsonl
"""

from experiments import BASE as EARLIER
from experiments import EN, PT, Experiment

BASE = EARLIER | {"decay": None}  # two falls

QUEUE = [
    Experiment({"preset": preset}, steps, seeds=(0,), corpus=corpus)
    for preset, steps, corpus in (
        ("tiny", 6_400, PT),
        ("tiny", 25_600, PT),
        ("tiny", 100, PT),
        ("mini", 100, PT),
        ("small", 100, PT),
        ("tiny", 400, PT),
        ("tiny", 1_600, PT),
        ("mini", 400, PT),
        ("mini", 1_600, PT),
        ("small", 400, PT),
        ("mini", 6_400, PT),
        ("small", 1_600, PT),
        ("tiny", 6_400, EN),
        ("mini", 1_600, EN),
        ("tiny", 400, EN),
        ("tiny", 1_600, EN),
        ("mini", 400, EN),
        ("small", 400, EN),
    )
]
__all__ = ["BASE", "QUEUE"]
