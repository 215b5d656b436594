"""The tasks both sides are compared on: files, sizes, measures, hyperparameters."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

SPLIT_SEED = 11  # of the file that comes unsplit


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    kind: str  # what --task of fastbert.finetune is
    train: str  # files below --data
    eval: str
    measure: str  # what the two sides are compared by, a share or a correlation
    train_limit: int  # examples, in the default comparison
    eval_limit: int
    batch_size: int = 32
    learning_rate: float = 1e-4
    epochs: int = 3
    max_length: int = 128
    moved: int = 0  # examples at the end of the training file that are evaluated on
    dev: str | None = None  # to choose settings on; None: what of the training file is neither trained on nor scored
    label_field: str | None = None


ASSIN_TASKS = {"similarity": ("regression", "pearson"), "entailment": ("pairs", "macro_f1")}


def _assin(country: str, label: str) -> Task:
    """ASSIN's pairs of sentences of Brazil (ptbr) or Portugal (ptpt), for the pretraining proof."""
    kind, measure = ASSIN_TASKS[label]
    train, test, dev = (f"assin1/{country}-{part}.jsonl" for part in ("train", "test", "dev"))
    return Task(kind, train, test, measure, 2500, 2000, label_field=label, dev=dev)


TASKS = {
    "rotten_tomatoes": Task(
        "classification", "rotten_tomatoes/all.jsonl", "rotten_tomatoes/all.jsonl", "accuracy", 1100, 1000, moved=1000
    ),
    "mrpc": Task("pairs", "mrpc/train.jsonl", "mrpc/test.jsonl", "f1", 850, 1000),
    "stsb": Task("regression", "stsb/train.jsonl", "stsb/dev.jsonl", "pearson", 1000, 1000),
    "lenerbr": Task(
        "tagging", "ner_lenerbr/train.jsonl", "ner_lenerbr/test.jsonl", "f1", 500, 400, 16, 2e-4,
        dev="ner_lenerbr/dev.jsonl",
    ),
    # the 63 questions of the evaluation file alone are too few to tell two programs apart
    "faquad": Task("qa", "faquad/train.jsonl", "faquad/dev.jsonl", "f1", 180, 213, 16, 2e-4, 3, 384, moved=150),
    "trec": Task("classification", "trec_qc/train.jsonl", "trec_qc/test.jsonl", "accuracy", 2500, 500),
    "cola": Task("classification", "cola/train.jsonl", "cola/dev.jsonl", "mcc", 7250, 1043),
    "assin1_similarity": _assin("ptbr", "similarity"),
    "assin1_similarity_portugal": _assin("ptpt", "similarity"),
    "assin1_entailment": _assin("ptbr", "entailment"),
}  # fmt: skip
COMPARED = ("rotten_tomatoes", "mrpc", "stsb", "lenerbr", "faquad", "cola")


def prepared(
    name: str, data: Path, folder: Path, limit: int | None, eval_limit: int | None = None
) -> tuple[Path, Path]:
    """Write the two files that every side reads: the same examples, chosen once, at most ``limit`` of each.

    ``eval_limit``: of the second, in place of the table's.
    """
    task = TASKS[name]
    rows = (data / task.train).read_text(encoding="utf-8").splitlines()
    held = [] if task.eval == task.train else (data / task.eval).read_text(encoding="utf-8").splitlines()
    rng = random.Random(SPLIT_SEED)
    if task.eval == task.train:
        rng.shuffle(rows)
    if task.moved:
        # not shuffled before: the questions of one text stay on one side
        rows, held = rows[: -task.moved], held + rows[-task.moved :]
    rng.shuffle(rows)
    rng.shuffle(held)
    num_train = min(task.train_limit, limit or task.train_limit)
    num_held = eval_limit or task.eval_limit
    held = held[: min(num_held, limit or num_held)]
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}-train.jsonl", folder / f"{name}-eval.jsonl"
    for path, part in zip(paths, (rows[:num_train], held), strict=True):
        path.write_text("".join(row + "\n" for row in part), encoding="utf-8")
    return paths


def development(name: str, data: Path, folder: Path, train: Path, held: Path, limit: int | None) -> Path:
    """Write the file that settings are chosen on: nothing of it is trained on, nothing of it is in the comparison."""
    task = TASKS[name]
    rows = (data / (task.dev or task.train)).read_text(encoding="utf-8").splitlines()
    # no question about a text that is trained on or scored
    known = {text_of(row) for path in (train, held) for row in read(path)}
    rows = [row for row in rows if text_of(json.loads(row)) not in known]
    random.Random(SPLIT_SEED).shuffle(rows)
    path = folder / f"{name}-dev.jsonl"
    path.write_text("".join(row + "\n" for row in rows[: min(500, limit or 500)]), encoding="utf-8")
    return path


def text_of(row: dict) -> str:
    """What makes an example the same as another."""
    return row.get("context") or json.dumps([row.get(field) for field in ("text", "text_pair", "tokens")])


def read(path: Path) -> list[dict]:
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
