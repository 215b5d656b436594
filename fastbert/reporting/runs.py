"""What a run wrote down: run.json and metrics.jsonl."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from fastbert.system.errors import InputError

Row = dict[str, Any]
Points = list[tuple[float, float]]
SMOOTHING = 0.9  # of the training loss, from one record to the next


@dataclass
class RunRecord:
    """One run, as far as its files tell."""

    path: Path
    name: str
    description: dict[str, Any]
    train: list[Row] = field(default_factory=list)
    heldout: list[Row] = field(default_factory=list)

    def points(self, rows: list[Row], column: str) -> Points:
        """(million tokens seen, value) where both were recorded."""
        return [
            (row["tokens"] / 1e6, float(row[column]))
            for row in rows
            if isinstance(row.get(column), (int, float)) and isinstance(row.get("tokens"), (int, float))
        ]

    def smoothed_loss(self) -> Points:
        smooth: Points = []
        for x, y in self.points(self.train, "loss"):
            smooth.append((x, SMOOTHING * smooth[-1][1] + (1 - SMOOTHING) * y if smooth else y))
        return smooth

    def throughput(self) -> Points:
        """(million tokens, tokens per second) between records; evaluations lie outside ``training_s``'s steps too."""
        rows = [r for r in self.train if "training_s" in r and "tokens" in r]
        found: Points = []
        for before, after in pairwise(rows):
            seconds, tokens = after["training_s"] - before["training_s"], after["tokens"] - before["tokens"]
            if seconds > 0 and tokens > 0:
                found.append((after["tokens"] / 1e6, tokens / seconds))
        # one record holds an evaluation now and then: the median of five shows the pace of the steps
        return [(x, median([y for _, y in found[max(0, i - 2) : i + 3]])) for i, (x, _) in enumerate(found)]

    @property
    def result(self) -> dict[str, Any]:
        """The last evaluation; empty for a run that has not finished."""
        return self.description.get("result") or {}

    @property
    def options(self) -> dict[str, Any]:
        return self.description.get("used_options") or self.description.get("options") or {}

    @property
    def training_s(self) -> float | None:
        return next((row["training_s"] for row in reversed(self.train) if "training_s" in row), None)

    @property
    def tokens(self) -> int | None:
        return next((row["tokens"] for row in reversed(self.train + self.heldout) if "tokens" in row), None)


def read_run(path: str | Path) -> RunRecord:
    """Read a run directory.

    Raises:
        InputError: it is no run, or its files are damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory: give the directory of a run")
    try:
        description = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: holds no run.json: give a directory that `python -m fastbert.train` wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'run.json'}: cannot be read ({error}): restore it") from None
    if not isinstance(description, dict):
        raise InputError(f"{path / 'run.json'}: expected an object: restore it")
    run = RunRecord(path, path.resolve().name, description)
    metrics = path / "metrics.jsonl"
    if metrics.is_file():
        for number, line in enumerate(metrics.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                kind = row["kind"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{metrics}, line {number}: is damaged: delete the line and report again") from None
            if kind == "train":
                run.train.append(row)
            elif kind == "heldout":
                run.heldout.append(row)
    return run
