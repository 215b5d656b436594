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
    split: bool = False  # train and eval are parts of one file
    label_field: str | None = None


TASKS = {
    "rotten_tomatoes": Task(
        "classification", "rotten_tomatoes/all.jsonl", "rotten_tomatoes/all.jsonl", "accuracy", 2000, 1000, split=True
    ),
    "mrpc": Task("pairs", "mrpc/train.jsonl", "mrpc/test.jsonl", "f1", 1500, 1000),
    "stsb": Task("regression", "stsb/train.jsonl", "stsb/dev.jsonl", "pearson", 2000, 1000),
    "lenerbr": Task("tagging", "ner_lenerbr/train.jsonl", "ner_lenerbr/test.jsonl", "f1", 1000, 500, 16, 2e-4),
    "faquad": Task("qa", "faquad/train.jsonl", "faquad/dev.jsonl", "f1", 837, 63, 16, 2e-4, 3, 384),
    "cola": Task("classification", "cola/train.jsonl", "cola/dev.jsonl", "mcc", 3000, 1043),
    # for the pretraining proof
    "assin1_similarity": Task(
        "regression",
        "assin1/ptbr-train.jsonl",
        "assin1/ptbr-test.jsonl",
        "pearson",
        2500,
        2000,
        label_field="similarity",
    ),
    "assin1_entailment": Task(
        "pairs", "assin1/ptbr-train.jsonl", "assin1/ptbr-test.jsonl", "macro_f1", 2500, 2000, label_field="entailment"
    ),
}
COMPARED = ("rotten_tomatoes", "mrpc", "stsb", "lenerbr", "faquad", "cola")


def prepared(name: str, data: Path, folder: Path, limit: int | None) -> tuple[Path, Path]:
    """Write the two files that every side reads: the same examples, chosen once, at most ``limit`` for training."""
    task = TASKS[name]
    rows = (data / task.train).read_text(encoding="utf-8").splitlines()
    random.Random(SPLIT_SEED).shuffle(rows)
    num_train = min(task.train_limit, limit or task.train_limit)
    num_eval = min(task.eval_limit, limit or task.eval_limit)
    if task.split:
        held = rows[-num_eval:]
        rows = rows[:-num_eval]
    else:
        held = (data / task.eval).read_text(encoding="utf-8").splitlines()
        random.Random(SPLIT_SEED).shuffle(held)
        held = held[:num_eval]
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}-train.jsonl", folder / f"{name}-eval.jsonl"
    for path, part in zip(paths, (rows[:num_train], held), strict=True):
        path.write_text("".join(row + "\n" for row in part), encoding="utf-8")
    return paths


def read(path: Path) -> list[dict]:
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
