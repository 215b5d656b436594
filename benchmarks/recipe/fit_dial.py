"""Print the curves of fastbert.training.dial, from dial.jsonl: python benchmarks/recipe/fit_dial.py.

The three numbers of a curve are solved for, from runs whose lengths are 4 times each other's; the fourth run of a size
shows how far it can be extrapolated.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from run import HERE, read_log

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


def main() -> None:
    runs: dict[str, dict[int, tuple[float, float]]] = {}
    for line in read_log(HERE / "dial.jsonl"):
        if line["corpus"] == CORPUS:
            runs.setdefault(line["options"]["preset"], {})[line["steps"]] = line["tokens"], line["loss"]
    for preset, of in runs.items():
        if not set(FITTED) <= set(of):
            print(f"{preset}: runs of {', '.join(map(str, sorted(of)))} steps are too few")
            continue
        tokens, losses = zip(*(of[steps] for steps in FITTED), strict=True)
        curve = solved(tokens, losses)
        print(f'"{preset}": Curve({curve.floor:.3f}, {curve.scale:.3f}, {curve.power:.3f})')
        for steps, (seen, loss) in sorted(of.items()):
            how = "" if steps in FITTED else " (not fitted)"
            print(f"  {steps:,} steps: {loss:.3f}, the curve {curve.loss(seen):.3f}{how}")


if __name__ == "__main__":
    main()
