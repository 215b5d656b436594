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
EXPERIMENTS = runpy.run_path(str(HERE / "experiments.py"))
BASE: dict[str, Any] = EXPERIMENTS["BASE"]
SEEDS = len(EXPERIMENTS["SEEDS"])
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
    from fastbert.optim.schedules import BatchRamp

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


def paired(runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> tuple[float, float, int]:
    """Mean of the differences of equal seeds, its standard error (nan from one seed), and of how many seeds."""
    both = sorted(runs.keys() & base.keys())
    pairs = [runs[s]["loss"] - base[s]["loss"] for s in both if runs[s]["loss"] and base[s]["loss"]]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
    return statistics.mean(pairs) if pairs else math.nan, error, len(pairs)


def difference(runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    mean, error, seeds = paired(runs, base)
    if not seeds or runs is base:
        return ""
    return f"{mean:+.3f}{'' if seeds == 1 else f' ± {error:.3f}'}{'' if seeds >= SEEDS else ' (unproven)'}"


def places() -> list[tuple]:
    """Where a claim is settled: EXPERIMENTS' sizes and languages."""
    found = {}
    for experiment in EXPERIMENTS["everywhere"]():
        line = {"corpus": experiment.corpus, "options": BASE | experiment.options, "steps": experiment.steps}
        found[place_of(line)] = None
    return list(found)


def settled(groups: dict) -> list[str]:
    """What has all seeds in all places, the best first."""
    everywhere = [groups.get(place, {}) for place in places()]
    names = [n for n in everywhere[0] if all(len(runs_of.get(n, ())) >= SEEDS for runs_of in everywhere)]
    return sorted(
        names, key=lambda n: statistics.mean(r["loss"] or math.inf for g in everywhere for r in g[n].values())
    )


def settled_table(groups: dict) -> str:
    heads = [f"{corpus.split(':')[-1]}, {preset}" for corpus, preset, _ in places()]
    lines = [f"| loss less the default's | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in settled(groups):
        of_place = [groups[place] for place in places()]
        if name == BASE["arch"]:
            cells = [f"{statistics.mean(r['loss'] for r in g[name].values()):.3f}" for g in of_place]
            name = f"**{name}, the default** (its loss)"
        else:
            cells = [difference(g[name], g[BASE["arch"]]) for g in of_place]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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


def draw_settled(groups: dict, folder: Path) -> Path:
    """One picture of all differences, with their standard errors."""
    from matplotlib import pyplot

    names = [n for n in settled(groups) if n != BASE["arch"]]
    figure, axis = pyplot.subplots(figsize=(9, 1.5 + 0.5 * len(names)), layout="constrained")
    for offset, place in enumerate(places()):
        told = [paired(groups[place][name], groups[place][BASE["arch"]]) for name in names]
        rows = [row + 0.15 * (offset - (len(places()) - 1) / 2) for row in range(len(names))]
        corpus, preset, kilotokens = place
        axis.errorbar(
            [mean for mean, _, _ in told], rows, xerr=[error for _, error, _ in told], fmt="o", markersize=4,
            label=f"{corpus.split(':')[-1]}, {preset}, {kilotokens * 1024 / 1e6:.1f} million tokens",
        )  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="loss on unseen documents less that of the default, nats (left is better)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    path = folder / "recipe-differences.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return path


def draw_curves(groups: dict, folder: Path) -> Path:
    """Loss against tokens of what is settled, a panel for each place: mean of the seeds, and the range."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for place, axis in zip(places(), axes.flat, strict=True):
        for name in settled(groups):
            curves = [run["curve"] for run in groups[place][name].values() if run["loss"]]
            tokens = [statistics.mean(c[i][0] for c in curves) / 1e6 for i in range(len(curves[0]))]
            losses = [[c[i][1] for c in curves] for i in range(len(curves[0]))]
            axis.plot(tokens, [statistics.mean(point) for point in losses], marker="o", markersize=3, label=name)
            axis.fill_between(tokens, [min(point) for point in losses], [max(point) for point in losses], alpha=0.15)
        axis.set(xlabel="million tokens", ylabel="loss on unseen documents, nats")
        axis.set_title(f"{place[0].split(':')[-1]}, {place[1]}")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    path = folder / "recipe-curves.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return path


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
    if settled(groups):
        print("\n" + settled_table(groups))
    if arguments.draw:
        import matplotlib

        matplotlib.use("Agg")
        for path in (draw_settled(groups, arguments.draw), draw_curves(groups, arguments.draw)):
            print(path)


if __name__ == "__main__":
    main()
