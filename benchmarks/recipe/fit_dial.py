"""Print the curves of fastbert.training.dial: python benchmarks/recipe/fit_dial.py.

The three numbers of a curve are solved for, from runs whose lengths are 4 times each other's: longer_memory.jsonl has
those of the default. A size whose longest run is missing there keeps floor and power of the recipe before, which
dial.jsonl has, and gets the scale that the others say; other runs show how well the curve tells them.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from run import HERE, read_log

from fastbert.optim.schedules import BETA1_BESIDE_MUON, DECAY_TIMESCALE, VECTOR_SCALE_BESIDE_MUON
from fastbert.training.dial import Curve

CORPUS = "bundled:pt"
FITTED = (400, 1_600, 6_400)  # steps


def solved(tokens: Sequence[float], losses: Sequence[float]) -> Curve:
    """The curve through three points."""
    first, second, third = losses
    shrinks = (second - third) / (first - second)
    power = -math.log(shrinks) / math.log(tokens[2] / tokens[1])
    floor = third - (second - third) * shrinks / (1 - shrinks)
    return Curve(floor, (third - floor) * (tokens[2] / 1e6) ** power, power)


def runs_of(log: str, **wanted: float) -> dict[str, dict[int, tuple[float, float]]]:
    """Preset -> steps -> tokens and loss of the runs with these options, seed 0."""
    runs: dict[str, dict[int, tuple[float, float]]] = {}
    for line in read_log(HERE / log):
        options = line["options"]
        usual = (options["arch"], options["mask_rate"], line["corpus"], line["seed"]) == ("modern", "0.3", CORPUS, 0)
        if usual and not line["variant"] and wanted.items() <= options.items() and options["learning_rate"] is None:
            runs.setdefault(options["preset"], {})[line["steps"]] = line["tokens"], line["loss"]
    return runs


def main() -> None:
    before = runs_of("dial.jsonl")
    now = runs_of("longer_memory.jsonl", beta1=BETA1_BESIDE_MUON, vector_scale=VECTOR_SCALE_BESIDE_MUON,
                  decay_timescale=DECAY_TIMESCALE)  # fmt: skip
    for preset, of in now.items():
        whole = of if set(FITTED) <= set(of) else before[preset]
        curve = solved(*zip(*(whole[steps] for steps in FITTED), strict=True))
        if whole is not of:
            scales = [(loss - curve.floor) * (tokens / 1e6) ** curve.power for tokens, loss in of.values()]
            curve = replace(curve, scale=statistics.fmean(scales))
        print(f'"{preset}": Curve({curve.floor:.3f}, {curve.scale:.3f}, {curve.power:.3f})')
        for steps, (seen, loss) in sorted(of.items()):
            print(f"  {steps:,} steps: {loss:.3f}, the curve {curve.loss(seen):.3f}")


if __name__ == "__main__":
    main()
