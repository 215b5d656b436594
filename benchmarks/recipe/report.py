"""Tables and pictures of the log: python benchmarks/recipe/report.py [--log FILE] [--draw FOLDER].

Runs are compared with the base of experiments.py where text, model size and tokens are the same. "Difference" is the
mean over the seeds both have of loss minus the base's loss of the same seed (which is the same order of the text), with
its standard error; fewer than three seeds prove nothing and are marked so.
"""

import argparse
import json
import math
import runpy
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BASE: dict[str, Any] = runpy.run_path(str(HERE / "experiments.py"))["BASE"]
PLACE = ("corpus", "preset", "kilotokens")  # what two runs must share to be compared
SHORT_NAMES = {
    "muon_learning_rate": "Muon", "learning_rate": "AdamW", "mask_rate": "mask", "batch_tokens": "batch",
    "batch_ramp": "ramp", "newton_schulz": "Newton–Schulz", "max_length": "length", "unigram_bias": "unigram bias",
    "weight_decay": "weight decay",
}  # fmt: skip


def place_of(line: dict[str, Any]) -> tuple:
    """Runs with the same place saw the same number of tokens of the same text in a model of the same size."""
    tokens = line["steps"] * line["options"]["batch_tokens"] * mean_batch(line["options"])
    return line["corpus"], line["options"]["preset"], round(tokens / 1024)


def mean_batch(options: dict[str, Any]) -> float:
    """Mean tokens of a step as a share of the full batch."""
    from fastbert.optim import BatchRamp

    ramp = BatchRamp.parse(options.get("batch_ramp"), options["batch_tokens"], options["max_length"])
    return ramp.mean / ramp.most


def name_of(line: dict[str, Any]) -> str:
    """What differs from the base, in words."""
    differing = {n: v for n, v in line["options"].items() if n != "preset" and BASE.get(n) != v} | line["variant"]
    arch = differing.pop("arch", BASE["arch"])
    return ", ".join([arch, *(f"{SHORT_NAMES.get(n, n)} {v}" for n, v in differing.items())])


def grouped(lines: list[dict[str, Any]]) -> dict[tuple, dict[str, dict[int, dict[str, Any]]]]:
    """place -> name -> seed -> run."""
    groups: dict[tuple, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        groups[place_of(line)][name_of(line)][line["seed"]] = line
    return groups


def spread(values: list[float]) -> str:
    return f"{statistics.stdev(values):.3f}" if len(values) > 1 else "—"


def difference(runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    """Mean of the differences of equal seeds, with its standard error."""
    pairs = [
        runs[s]["loss"] - base[s]["loss"] for s in runs.keys() & base.keys() if runs[s]["loss"] and base[s]["loss"]
    ]
    if not pairs or runs is base:
        return ""
    error = f" ± {statistics.stdev(pairs) / math.sqrt(len(pairs)):.3f}" if len(pairs) > 1 else ""
    return f"{statistics.mean(pairs):+.3f}{error}{'' if len(pairs) >= 3 else ' (unproven)'}"


def table(place: tuple, runs_of: dict[str, dict[int, dict[str, Any]]]) -> str:
    corpus, preset, kilotokens = place
    lines = [
        f"**{corpus}, {preset}, {kilotokens * 1024 / 1e6:.2f} million tokens**",
        "",
        "| | seeds | loss | spread | masked accuracy | difference from the base |",
        "|---|---|---|---|---|---|",
    ]
    base = runs_of.get(BASE["arch"], {})
    known = {n: [r["loss"] for r in runs.values() if r["loss"]] for n, runs in runs_of.items()}
    for name in sorted(runs_of, key=lambda n: statistics.mean(known[n]) if known[n] else math.inf):
        runs, losses = runs_of[name], known[name]
        if not losses:
            lines.append(f"| {name} | {len(runs)} | diverged | | | |")
            continue
        right = statistics.mean(r["accuracy"] for r in runs.values() if r["loss"])
        lines.append(
            f"| {name} | {len(losses)} | {statistics.mean(losses):.3f} | {spread(losses)} | {right:.1%} | "
            f"{difference(runs, base)} |"
        )
    return "\n".join(lines)


def draw(groups: dict, folder: Path, cost_s: dict[str, float]) -> list[Path]:
    """Loss against tokens and against modelled time, a picture for each place with more than one contestant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = []
    for place, runs_of in groups.items():
        settled = {n: runs for n, runs in runs_of.items() if len(runs) >= 3}
        if len(settled) < 2:
            continue
        figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
        for name, runs in settled.items():
            curves = [run["curve"] for run in runs.values() if run["loss"]]
            points = [[statistics.mean(c[i][k] for c in curves) for k in (0, 1)] for i in range(len(curves[0]))]
            low, high = ([limit(c[i][1] for c in curves) for i in range(len(points))] for limit in (min, max))
            first = next(iter(runs.values()))
            cost = cost_s.get(cost_key(first))
            for axis, factor in ((axes[0], 1e-6), (axes[1], cost)):
                if factor:
                    x = [p[0] * factor for p in points]
                    axis.plot(x, [p[1] for p in points], marker="o", markersize=3, label=name)
                    axis.fill_between(x, low, high, alpha=0.15)
        axes[0].set(xlabel="million tokens", ylabel="loss on unseen documents, nats")
        axes[1].set(xlabel="processor seconds, modelled (one thread)")
        for axis in axes:
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=8)
        corpus, preset, kilotokens = place
        figure.suptitle(f"{corpus}, {preset}: mean of the seeds, band from the lowest to the highest")
        path = folder / f"recipe-{corpus.split(':')[-1]}-{preset}-{kilotokens}k.png"
        figure.savefig(path, dpi=100)
        pyplot.close(figure)
        made.append(path)
    return made


def cost_key(line: dict[str, Any]) -> str:
    """What the processor time of a token depends on."""
    options = line["options"]
    parts = [options[n] for n in ("preset", "arch", "optimizer", "batch_tokens", "mask_rate")]
    return " ".join(map(str, [*parts, *(f"{n}={v}" for n, v in sorted(line["variant"].items()))]))


def costs(path: Path) -> dict[str, float]:
    """Processor seconds of a token, by cost_key: medians of costs.jsonl."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        found[record["what"]] += record["seconds_a_token"]
    return {what: statistics.median(values) for what, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=HERE / "log.jsonl")
    parser.add_argument("--costs", type=Path, default=HERE / "costs.jsonl")
    parser.add_argument("--draw", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    groups = grouped([json.loads(line) for line in arguments.log.read_text().splitlines()])
    for place in sorted(groups):
        print(table(place, groups[place]) + "\n")
    cost_s = costs(arguments.costs)
    if cost_s:
        print("| a step of | µs of a processor a token |\n|---|---|")
        for what, seconds in sorted(cost_s.items()):
            print(f"| {what} | {seconds * 1e6:.0f} |")
    if arguments.draw:
        for path in draw(groups, arguments.draw, cost_s):
            print(path)


if __name__ == "__main__":
    main()
