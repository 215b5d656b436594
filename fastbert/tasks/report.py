"""What a fine-tuning prints: data, progress, figures, confusion matrix, and the next command."""

import shlex
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fastbert.tasks.finetuning import TaskData
from fastbert.tasks.guarded import Progress
from fastbert.tasks.saved_training import NAME
from fastbert.tasks.training import Recipe


def print_header(console: Console, model: str, data: TaskData, recipe: Recipe, held_out: bool) -> None:
    """Print sizes and recipe before the first step."""
    settings = data.settings
    several = " with several labels per text" if settings.multi_label else ""
    kind = settings.task + (" of pairs" if settings.pairs else "") + several
    labels = f", {len(settings.labels)} labels" if settings.labels else ""
    sets = [s for s in (data.train, data.eval, data.test) if s is not None]
    sizes = ", ".join(f"{s.name} {len(s.examples):,}" for s in sets)
    held = " (a tenth of the training file)" if held_out else ""
    console.print(f"{kind}{labels}: {sizes}{held}; {data.train.rows.lengths.mean():.0f} tokens per row", markup=False)
    console.print(
        f"model: {model}; {recipe.epochs:g} epochs, batches of {recipe.batch_size}, "
        f"{_rates(recipe)}, {'bf16' if recipe.bf16 else 'fp32'}; best by {recipe.measure}",
        markup=False,
    )


def _rates(recipe: Recipe) -> str:
    if recipe.optimizer == "muon":
        return f"Muon at {recipe.muon_learning_rate:g} and AdamW at {recipe.learning_rate:g}"
    return f"AdamW at {recipe.learning_rate:g}"


@contextmanager
def shown(console: Console, title: str, measure: str) -> Iterator[Any]:
    """Show a bar on a terminal, and a line for each evaluation."""
    columns = BarColumn(bar_width=30), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn()
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def report(progress: Progress, share: float, scores: dict[str, float] | None) -> None:
            bar.update(task, completed=share)
            if scores is not None:
                best = "  best so far" if progress.best_step == progress.steps else ""
                parts = "  ".join(f"{name} {_figure(name, value)}" for name, value in scores.items())
                console.print(f"{title:8}{share:5.0%}  step {progress.steps:,}  {parts}{best}".strip(), markup=False)

        yield report


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name in ("pearson", "spearman", "mse", "mcc", "loss") else f"{value:.1%}"


def summary(outcomes: list[dict[str, Any]], name: str) -> dict[str, tuple[float, float]]:
    """Measure → (mean, sample standard deviation) over the seeds, on the data set ``name``."""
    found = {}
    for measure in outcomes[0][name]:
        values = [outcome[name][measure] for outcome in outcomes]
        found[measure] = (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return found


def print_summary(
    console: Console,
    data: TaskData,
    outcomes: list[dict[str, Any]],
    best: dict[str, Any],
    final: Path,
) -> None:
    """Print figures, confusion matrix, where everything is and a command to try."""
    for outcome in outcomes:
        kept = f"the weights of step {outcome['best_step'] or outcome['steps']:,} are kept"
        if outcome["diverged"]:
            console.print(f"seed {outcome['seed']}: {outcome['diverged']}; {kept}", markup=False)
        if outcome["interrupted"]:
            console.print(f"interrupted at step {outcome['steps']:,}; {kept}", markup=False)
            if (final / NAME).is_file():
                console.print("to go on: the same command with --resume", markup=False)
    seconds = sum(outcome["training_s"] for outcome in outcomes)
    stopped = " (stopped early)" if best["outcome"]["stopped_early"] else ""
    console.print(
        f"\ntrained {len(outcomes)} × {outcomes[0]['steps']:,} steps in {seconds:.0f} s{stopped}", markup=False
    )
    for name in ("eval", "test"):
        if name not in outcomes[0]:
            continue
        parts = []
        for measure, (mean, spread) in summary(outcomes, name).items():
            plus = f" ± {_figure(measure, spread)}" if len(outcomes) > 1 else ""
            parts.append(f"{measure} {_figure(measure, mean)}{plus}")
        over = f", mean ± deviation of {len(outcomes)} seeds" if len(outcomes) > 1 else ""
        console.print(f"{name}{over}: {'  '.join(parts)}", markup=False)
    if best["result"].confusion is not None:
        which = "test" if data.test else "eval"
        title = f"\n{which}: true class (row) and predicted class (column), seed {best['outcome']['seed']}"
        console.print(title, markup=False)
        console.print(table(best["result"].confusion, best["result"].classes), markup=False)
    if len(best["result"].by_class) > 2:
        console.print(f"\n{'test' if data.test else 'eval'}, by class", markup=False)
        console.print(figures_by_class(best["result"].by_class), markup=False)
    console.print(f"\nsaved in {final} (Hugging Face layout). Try it:\n  {example_command(data, final)}", markup=False)


def table(matrix: NDArray[np.int64], labels: tuple[str, ...], most: int = 12) -> str:
    """A confusion matrix as text; of many classes only the most frequent."""
    kept = sorted(sorted(range(len(labels)), key=lambda i: -int(matrix[i].sum()))[:most])
    names = [labels[i] if len(labels[i]) <= 14 else labels[i][:13] + "…" for i in kept]
    width = max([6, *(len(n) for n in names)]) + 2
    rows = [" " * width + "".join(f"{name:>{width}}" for name in names)]
    for i, name in zip(kept, names, strict=True):
        rows.append(f"{name:>{width}}" + "".join(f"{matrix[i, j]:>{width},}" for j in kept))
    if len(labels) > most:
        rows.append(f"  (the {most} most frequent of {len(labels)} classes; finetune.json has all)")
    return "\n".join(rows)


def figures_by_class(figures: dict[str, dict[str, float]], most: int = 20) -> str:
    """Precision, recall, F1 and number of examples of each class; of many only the most frequent."""
    kept = sorted(sorted(figures, key=lambda name: -figures[name]["support"])[:most], key=list(figures).index)
    width = max(5, *(len(name) for name in kept))
    rows = [f"  {'':{width}}  precision  recall     f1  examples"]
    for name in kept:
        of = figures[name]
        rows.append(
            f"  {name:{width}}  {of['precision']:9.1%} {of['recall']:7.1%} {of['f1']:6.1%} {int(of['support']):9,}"
        )
    if len(figures) > most:
        rows.append(f"  (the {most} most frequent of {len(figures)}; finetune.json has all)")
    return "\n".join(rows)


def example_command(data: TaskData, final: Path) -> str:
    command = f"python -m fastbert.predict {shlex.quote(str(final))}"
    example = data.eval.examples[0]
    if data.settings.task == "qa":
        return f"{command} --question {shlex.quote(example.question)} CONTEXT"
    if data.settings.task == "tagging":
        return f"{command} {shlex.quote(' '.join(example.tokens[:12]))}"
    if example.pair is not None:
        return f"{command} --pair {shlex.quote(example.pair[:60])} {shlex.quote(example.text[:60])}"
    return f"{command} {shlex.quote(example.text[:60])}"
