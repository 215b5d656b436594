"""The table and the plot of a corpus's runs."""

import statistics
from collections.abc import Sequence
from pathlib import Path

REFERENCE = "hf-tuned"
NAMES = {"hf-tuned": "Hugging Face, tuned", "hf-default": "Hugging Face, defaults", "fastbert": "fastbert",
         "fastbert-classic": "fastbert, classic"}  # fmt: skip


def name_of(contestant: str) -> str:
    name, *extra = contestant.split("@")
    words = [("learning rate " if name.startswith("hf") else "") + word for word in extra]
    return ", ".join([NAMES.get(name, name), *words])


def first_at(curve: Sequence[dict], target: float) -> float | None:
    """Seconds until the loss is at ``target``, on the straight line between two evaluations; None if it never is."""
    before = None
    for point in curve:
        if point["loss"] <= target:
            if before is None:
                return point["seconds"]
            share = (before["loss"] - target) / (before["loss"] - point["loss"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the whole range where there are several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def groups(records: Sequence[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for record in records:
        found.setdefault(record["contestant"], []).append(record)
    return found


def reference_of(by_name: dict[str, list[dict]]) -> str | None:
    """The learning rate with which tuned Hugging Face ends lowest, of the mean over its seeds."""
    rates = [name for name in by_name if name.split("@")[0] == REFERENCE]
    return min(rates, key=lambda n: statistics.fmean(r["final"]["loss"] for r in by_name[n])) if rates else None


def rows_of(records: Sequence[dict]) -> list[list[str]]:
    """Of one corpus and size; all budgets are compared with tuned Hugging Face's longest."""
    minutes = max((r["minutes"] for r in records if r["contestant"].startswith(REFERENCE)), default=0.0)
    long = groups([r for r in records if r["minutes"] == minutes])
    best = reference_of(long)
    target = statistics.fmean(r["final"]["loss"] for r in long[best]) if best else None
    rows = []
    for budget in sorted({r["minutes"] for r in records}, reverse=True):
        for name, runs in groups([r for r in records if r["minutes"] == budget]).items():
            losses = [r["final"]["loss"] for r in runs]
            row = [name_of(name), f"{budget:g}", str(len(runs)), spread(losses, 3)]
            row.append(spread([100 * r["final"]["accuracy"] for r in runs], 1))
            row.append(f"{statistics.fmean(r['curve'][-1]['tokens'] for r in runs) / 1e6:.2f}")
            if target is None or name.startswith("hf") or name == best:
                rows.append([*row, "", "", ""])
                continue
            lower = [target - loss for loss in losses]
            times = [first_at(r["curve"], target) for r in runs]
            # what the checkpoint of a whole process reaches is reached when the process ends at the latest
            times = [r["wall_s"] if t is None and r["final"]["loss"] <= target else t
                     for t, r in zip(times, runs, strict=True)]  # fmt: skip
            if any(t is None for t in times):
                rows.append([*row, "never", "", spread(lower, 2)])
                continue
            ratios = [minutes * 60 / t for t in times]
            rows.append([*row, spread(times, 1), spread(ratios, 1), spread(lower, 2)])
    return rows


HEADS = ("contestant", "minutes", "seeds", "final loss", "masked accuracy, %", "million tokens",
         "s to Hugging Face's final loss", "times sooner", "nats lower")  # fmt: skip


def show(every: Sequence[dict], corpus: str, preset: str, minutes: float, output: Path) -> None:
    """Print the table and draw the plot of one corpus."""
    records = [r for r in every if r["corpus"] == corpus and r["preset"] == preset]
    if not records:
        raise SystemExit(f"no results for corpus {corpus}, preset {preset} in {output / 'results.jsonl'}")
    facts = records[-1]["facts"]
    print(
        f"\n{corpus}: {facts['train_bytes'] / 1e6:.1f} MB of text, {facts['vocabulary']:,} pieces, {facts['rows']} "
        f"unseen paragraphs ({facts['masked_tokens']:,} masked tokens), {preset}, {records[-1]['threads']} threads\n"
    )
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for row in rows_of(records):
        print("| " + " | ".join(row) + " |")
    path = output / f"{Path(corpus).stem}-{preset}-{minutes:g}m.png"
    draw([r for r in records if r["minutes"] == minutes], corpus, path)
    print(f"\n{path}")


def draw(records: Sequence[dict], corpus: str, path: Path) -> None:
    """Loss over seconds, a line for every run, and Hugging Face's final loss across."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not records:
        return
    by_name = groups(records)
    figure, axis = pyplot.subplots(figsize=(8, 5.2), layout="constrained")
    for number, (name, runs) in enumerate(sorted(by_name.items())):
        for i, run in enumerate(sorted(runs, key=lambda r: r["seed"])):
            xs, ys = [p["seconds"] for p in run["curve"]], [p["loss"] for p in run["curve"]]
            label = f"{name_of(name)}{f' ({len(runs)} seeds)' if len(runs) > 1 else ''}" if i == 0 else None
            axis.plot(xs, ys, color=f"C{number % 10}", linewidth=1.4, alpha=1.0 if i == 0 else 0.55, label=label)
    best = reference_of(by_name)
    if best:
        target = statistics.fmean(r["final"]["loss"] for r in by_name[best])
        axis.axhline(target, color="0.4", linewidth=0.9, linestyle="--")
        axis.annotate(
            f"{name_of(best)}: {target:.2f} at its end", (0.995, target), (0, -5), fontsize=8, color="0.3",
            xycoords=axis.get_yaxis_transform(), textcoords="offset points", ha="right", va="top",
        )  # fmt: skip
    axis.set_xscale("log")
    ticks = [t for t in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600) if t <= 1.05 * records[0]["minutes"] * 60]
    axis.set_xticks(ticks, [f"{t // 60} min" if t >= 60 else f"{t} s" for t in ticks])
    axis.minorticks_off()
    first = min(p["seconds"] for r in records for p in r["curve"])
    axis.set_xlim(max(0.8 * first, 0.5), 1.05 * records[0]["minutes"] * 60)
    axis.set(
        xlabel="seconds since the start of the process, evaluation not counted",
        ylabel="masked-LM loss on unseen paragraphs, nats",
        title=f"{corpus}: the same text, vocabulary, size and questions",
    )
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
