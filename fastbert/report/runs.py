"""The records of a run: run.json and metrics.jsonl."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from fastbert.system.errors import InputError
from fastbert.system.json_files import read_object

Row = dict[str, Any]
Points = list[tuple[float, float]]
LOSS_SMOOTHING = 0.9  # of the training loss, from one record to the next


@dataclass
class RunRecord:
    """The records of one run."""

    path: Path
    name: str
    description: dict[str, Any]
    train: list[Row] = field(default_factory=list)
    heldout: list[Row] = field(default_factory=list)

    def add(self, line: str | bytes) -> str:
        """Keep a line of metrics.jsonl; returns its kind.

        Raises:
            ValueError, KeyError, TypeError: it is not a record.
        """
        row = json.loads(line)
        kind: str = row["kind"]
        if kind == "train":
            self.train.append(row)
        elif kind == "heldout":
            self.heldout.append(row)
        return kind

    def points(self, rows: list[Row], column: str) -> Points:
        """(million tokens seen, value) of the records that have both."""
        return [
            (row["tokens"] / 1e6, float(row[column]))
            for row in rows
            if isinstance(row.get(column), (int, float)) and isinstance(row.get("tokens"), (int, float))
        ]

    def smoothed_loss(self) -> Points:
        smooth: Points = []
        for x, y in self.points(self.train, "loss"):
            smooth.append((x, LOSS_SMOOTHING * smooth[-1][1] + (1 - LOSS_SMOOTHING) * y if smooth else y))
        return smooth

    def throughput(self) -> Points:
        """(million tokens, tokens per second) between records; ``training_s`` does not include evaluations."""
        rows = [r for r in self.train if "training_s" in r and "tokens" in r]
        found: Points = []
        for before, after in pairwise(rows):
            seconds, tokens = after["training_s"] - before["training_s"], after["tokens"] - before["tokens"]
            if seconds > 0 and tokens > 0:
                found.append((after["tokens"] / 1e6, tokens / seconds))
        # some intervals include an evaluation: the median of five shows the speed of the steps
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
        InputError: it is not a run, or its files are damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory. Try: the directory of a run")
    description = read_object(path / "run.json", "a directory written by `python -m fastbert.train`")
    run = RunRecord(path, path.resolve().name, description)
    metrics = path / "metrics.jsonl"
    if metrics.is_file():
        for number, line in enumerate(metrics.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                run.add(line)
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{metrics}, line {number}: is damaged. Try: delete the line") from None
    return run
