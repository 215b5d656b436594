"""What the tests of fine-tuning share: tiny pretrained encoders, and options that learn twenty lines."""

import json
from pathlib import Path

from fastbert.finetune import FinetuneOptions

DATA = Path(__file__).parents[1] / "data" / "tasks"
FILES = {
    "classification": "sentiment.jsonl", "regression": "pairs.jsonl", "pairs": "pairs.jsonl",
    "tagging": "entities.jsonl", "qa": "questions.jsonl",
}  # fmt: skip


def options(pretrained, task, output, arch="classic", **changes):
    file = changes.pop("train", str(DATA / FILES[task]))
    usual = {
        "epochs": 40, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "threads": 1, "precision": "fp32",
        "eval": file, "evaluations": 0,
    }  # fmt: skip
    return FinetuneOptions(str(pretrained / arch), task, file, output=str(output), **(usual | changes))


def figures(directory):
    return json.loads((directory / "finetune.json").read_text(encoding="utf-8"))
