"""Log and metrics of a run: progress bar, metrics.jsonl, trackers, and curves at the end."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fastbert.runs.trackers import Tracker, open_trackers

PLAIN_INTERVAL_S = 15.0  # between progress lines without a terminal


def clock(seconds: float) -> str:
    """4:05, 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Monitor:
    """Log of one run, a context manager; ``log`` prints a line above the progress bar.

    Args:
        run: directory of the run.
        first_step: of this session.
        metrics_bytes: size of metrics.jsonl at that step; None: unknown, and lines of later steps are dropped.
        main: False on ranks that neither write nor print.
        trackers: where scalars go besides, as in :mod:`.trackers`.
    """

    def __init__(
        self,
        run: Path,
        *,
        first_step: int = 0,
        metrics_bytes: int | None = None,
        main: bool = True,
        console: Console | None = None,
        trackers: Sequence[str] = ("tensorboard",),
    ):
        self.console = console or Console(highlight=False, soft_wrap=True, quiet=not main)
        self._metrics = run / "metrics.jsonl" if main else Path(os.devnull)
        self._main = main
        if main:
            self._truncate_after(first_step, metrics_bytes)
        self._file = self._metrics.open("a", encoding="utf-8")
        self._run, self._first_step = run, first_step
        self._tracker_names = trackers
        self._trackers: list[Tracker] | None = None  # opened at the first record
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_line_s = time.monotonic()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_bar()
        self._file.close()
        for tracker in self._trackers or ():
            tracker.close()

    def log(self, line: str = "") -> None:
        self.console.print(line, markup=False)

    def record(self, kind: str, step: int, **values: float | int | None) -> None:
        """Append one line to metrics.jsonl and the same scalars to the trackers."""
        if not self._main:
            return
        known = {name: value for name, value in values.items() if value is not None}
        self._file.write(json.dumps({"kind": kind, "step": step, **known}) + "\n")
        self._file.flush()
        if self._trackers is None:
            self._trackers = open_trackers(self._tracker_names, self._run, self._first_step)
        for tracker in self._trackers:
            tracker.add(step, {f"{kind}/{name}": value for name, value in known.items()})

    def update_bar(self, progress: float, step: int, loss: float, tokens_per_s: float, left_s: float) -> None:
        """Update the progress bar; without a terminal print a line every PLAIN_INTERVAL_S."""
        if not self._main:
            return
        text = f"step {step:,}  loss {loss:.3f}  {tokens_per_s:,.0f} tokens/s  {clock(left_s)} left"
        if not self.console.is_terminal:
            if time.monotonic() - self._last_line_s >= PLAIN_INTERVAL_S:
                self._last_line_s = time.monotonic()
                self.log(f"{progress:6.1%}  {text}")
            return
        if self._progress is None:
            self._progress = Progress(
                BarColumn(bar_width=30), TextColumn("{task.percentage:3.0f}%  {task.description}"), console=self.console
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=1.0)
        assert self._task is not None
        self._progress.update(self._task, completed=progress, description=text)

    def stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def metrics_bytes(self) -> int:
        """Size of metrics.jsonl, for a checkpoint."""
        return self._file.tell()

    def _truncate_after(self, step: int, size: int | None) -> None:
        """Drop records after the checkpoint, because a resumed run repeats those steps."""
        if not self._metrics.exists():
            return
        if size is not None and self._metrics.stat().st_size >= size:
            os.truncate(self._metrics, size)
            return
        lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        self._metrics.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without lines broken by a crash or a damaged disk."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if _step_of(line) < math.inf]


def _step_of(line: str) -> float:
    try:
        record = json.loads(line)
        return float(record["step"]) if {"kind", "tokens"} <= record.keys() else math.inf
    except (ValueError, KeyError, TypeError, AttributeError):
        return math.inf  # truncated by a crash


def draw_curves(run: Path) -> Path:
    """Plot loss, accuracy and learning rate over tokens as ``curves.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_metrics(run / "metrics.jsonl")
    train = [r for r in records if r["kind"] == "train"]
    held = [r for r in records if r["kind"] == "heldout"]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")

    def draw(axis, rows, name, label, **style):
        points = [(r["tokens"] / 1e6, r[name]) for r in rows if name in r]
        if points:
            axis.plot(*zip(*points, strict=True), label=label, **style)

    draw(axes[0], train, "loss", "training text", color="0.7", linewidth=1)
    draw(axes[0], held, "loss", "evaluation text", color="tab:blue", marker="o", markersize=3)
    axes[0].set(title="masked-LM loss", ylabel="nats per masked token")
    axes[0].legend()
    draw(axes[1], held, "accuracy", "masked tokens", color="tab:green", marker="o", markersize=3)
    draw(axes[1], held, "next_sentence_accuracy", "next sentence", color="tab:orange", marker="o", markersize=3)
    axes[1].set(title="accuracy", ylim=(0, None))
    axes[1].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    axes[1].legend()
    draw(axes[2], train, "learning_rate_factor", "AdamW", color="tab:red")
    draw(axes[2], train, "muon_rate_factor", "Muon", color="tab:red", linestyle="--")
    axes[2].set(title="learning rate", ylabel="fraction of the peak", ylim=(0, 1.05))
    axes[2].legend()
    for axis in axes:
        axis.set_xlabel("million tokens seen")
        axis.grid(alpha=0.3)
    path = run / "curves.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
