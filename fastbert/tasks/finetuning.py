"""From files and a pretrained model to data sets, a model with a head, and figures: the parts of a fine-tuning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastbert.model import BertForPreTraining
from fastbert.runs import checkpoint
from fastbert.system.errors import InputError
from fastbert.system.json_files import read_object
from fastbert.tasks import prediction, scores
from fastbert.tasks.examples import FieldNames, Notes, has_pairs, looks_like_numbers, read_examples
from fastbert.tasks.features import Rows, SpanRows, TextRows, TokenRows, span_rows, text_rows, token_rows
from fastbert.tasks.labels import label_ids, label_names, tag_names
from fastbert.tasks.model import TaskModel, TaskSettings
from fastbert.text import Tokenizer

HELD_OUT = 0.1  # of the training file, where no evaluation file is given
ORDER_SEED = 20_190_524  # of what is held out and of what a limit leaves; the same for every run
DEFAULT_LENGTH = {"qa": 384}
USUAL_LENGTH = 256


@dataclass
class DataSet:
    """A checked file and what it became."""

    name: str
    examples: list[Any]
    rows: Rows


@dataclass
class TaskData:
    """Everything of a fine-tuning that does not depend on the seed."""

    settings: TaskSettings
    train: DataSet
    eval: DataSet
    test: DataSet | None
    class_counts: list[int] = field(default_factory=list)  # of the training labels
    scale: tuple[float, float] = (0.0, 1.0)  # mean and deviation of the training numbers


def load_backbone(directory: str | Path, dropout: float, impl: str = "auto") -> BertForPreTraining:
    """A pretrained encoder with this dropout everywhere."""
    model = BertForPreTraining.from_pretrained(checkpoint.resolve(Path(directory)), impl=impl)
    model.config = model.config.replace(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    for module in model.modules():
        if hasattr(module, "dropout_p"):
            module.dropout_p = dropout  # type: ignore[assignment]
    return model


# ---- data ----
def read_data(
    task: str,
    tokenizer: Tokenizer,
    *,
    train: str,
    eval: str | None,
    test: str | None = None,
    fields: FieldNames | None = None,
    max_length: int | None = None,
    stride: int = 128,
    positions: int = 512,
    limit: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TaskData:
    """Read, check and tokenize the files of a task.

    Args:
        task: classification, regression, tagging, qa, or pairs (classes or numbers, as the labels are).
        eval: None: a tenth of ``train`` is held out.
        max_length: tokens of a row; None: 384 for questions, else 256, but no more than ``positions``.
        limit: most training examples, chosen at random (always the same ones).

    Raises:
        InputError: one line with file, line number and remedy.
    """
    fields, notes = fields or FieldNames(), Notes()
    pairs_wanted = task == "pairs"
    if pairs_wanted:
        task = "regression" if looks_like_numbers(train, fields) else "classification"
    if task == "tagging":
        scores.require_seqeval()
    files = {name: path for name, path in (("train", train), ("eval", eval), ("test", test)) if path}
    read = {name: read_examples(path, task, fields=fields, notes=notes) for name, path in files.items()}  # type: ignore[arg-type]
    for line in notes.lines():
        say(line)
    labels = labels_of(task, read["train"])  # of the whole file, whatever is held out of it
    shuffled = np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(read["train"]))
    if eval is None:
        if len(shuffled) < 2:
            raise InputError(f"{train}: has one example: give more, or --eval")
        count = max(1, round(HELD_OUT * len(shuffled)))
        read["eval"] = [read["train"][i] for i in sorted(shuffled[:count])]
        shuffled = shuffled[count:]
    if limit is not None or eval is None:
        read["train"] = [read["train"][i] for i in sorted(shuffled[:limit])]
    pairs = None
    if task in ("classification", "regression"):
        pairs = has_pairs([e for examples in read.values() for e in examples])
        if pairs_wanted and not pairs:
            raise InputError(f"{read['train'][0].where}: has one text, and --task pairs needs two: text_a and text_b")
    settings = TaskSettings(
        task,
        labels,
        pairs,
        max_length=min(max_length or DEFAULT_LENGTH.get(task, USUAL_LENGTH), positions),
        stride=stride,
        unanswerable=task == "qa" and any(not e.answers for e in read["train"]),
    )
    sets = {name: DataSet(name, examples, make_rows(settings, examples, tokenizer)) for name, examples in read.items()}
    data = TaskData(settings, sets["train"], sets["eval"], sets.get("test"))
    describe_targets(data)
    return data


def labels_of(task: str, examples: Sequence[Any]) -> tuple[str, ...]:
    """The labels of the training examples."""
    if task == "classification":
        names = label_names(e.label for e in examples)
        if len(names) < 2:
            raise InputError(f"{examples[0].where}: every example has the label {names[0]!r}: two classes are needed")
        return tuple(names)
    if task == "tagging":
        return tuple(tag_names(tag for e in examples for tag in e.tags))
    return ()


def make_rows(settings: TaskSettings, examples: Sequence[Any], tokenizer: Tokenizer) -> Rows:
    """Labelled examples as rows with targets."""
    if settings.task == "qa":
        return span_rows(examples, tokenizer, settings.max_length, settings.stride, labelled=True)
    if settings.task == "tagging":
        ids = [label_ids(((e.where, tag) for tag in e.tags), settings.labels) for e in examples]
        return token_rows(examples, tokenizer, settings.max_length, ids)
    rows = text_rows(examples, tokenizer, settings.max_length)
    if settings.task == "regression":
        rows.targets = np.array([e.label for e in examples], np.float32)
    else:
        rows.targets = np.array(label_ids(((e.where, e.label) for e in examples), settings.labels), np.int64)
    return rows


def describe_targets(data: TaskData) -> None:
    """Count the classes; put the training numbers on a scale of mean 0 and deviation 1."""
    rows = data.train.rows
    if isinstance(rows, TextRows) and data.settings.task == "regression":
        assert rows.targets is not None
        deviation = float(rows.targets.std())
        if not deviation:
            raise InputError(f"{data.train.examples[0].where}: every example has the same number: nothing to learn")
        data.scale = (float(rows.targets.mean()), deviation)
        rows.targets = ((rows.targets - data.scale[0]) / deviation).astype(np.float32)
    elif isinstance(rows, TextRows | TokenRows):
        assert rows.targets is not None
        targets = np.concatenate(rows.targets) if isinstance(rows, TokenRows) else rows.targets
        data.class_counts = np.bincount(targets, minlength=len(data.settings.labels)).tolist()


def fold_scale(model: TaskModel, scale: tuple[float, float]) -> None:
    """Let the classifier give numbers as they were before :func:`describe_targets`."""
    with torch.no_grad():
        model.classifier.weight.mul_(scale[1])
        model.classifier.bias.mul_(scale[1]).add_(scale[0])


# ---- figures and predictions ----
@dataclass
class Result:
    """Measures of a model on a data set, and what it said of each example."""

    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    confusion: NDArray[np.int64] | None = None  # (C, C), a row for each true class


def measure(model: TaskModel, data: DataSet, scale: tuple[float, float] = (0.0, 1.0)) -> Result:
    """Predict a labelled set and score it.

    Args:
        scale: of a regression model whose outputs are not folded yet.
    """
    task, labels = model.settings.task, model.settings.labels
    examples, rows = data.examples, data.rows
    if task == "qa":
        assert isinstance(rows, SpanRows)
        best = [found[0] for found in prediction.answers_of_rows(model, rows, examples)]
        gold = [e.gold_texts for e in examples]
        said = [
            {"id": e.id, "question": e.question, **one, "answers": texts}
            for e, one, texts in zip(examples, best, gold, strict=True)
        ]
        return Result(scores.answer_scores([one["answer"] for one in best], gold), said)
    if task == "tagging":
        assert isinstance(rows, TokenRows)
        tags, sure = prediction.tags_of_rows(model, rows, examples)
        said = [
            {"tokens": e.tokens, "tags": e.tags, "predicted": mine, "scores": [round(p, 4) for p in ps]}
            for e, mine, ps in zip(examples, tags, sure, strict=True)
        ]
        return Result(scores.tagging_scores([e.tags for e in examples], tags, labels), said)
    logits = np.stack(prediction.outputs(model, rows)).astype(np.float64)
    texts = [{"text_a": e.text, "text_b": e.pair} if e.pair is not None else {"text": e.text} for e in examples]
    if task == "regression":
        numbers = logits[:, 0] * scale[1] + scale[0]
        said = [
            {**text, "label": e.label, "predicted": float(n)}
            for text, e, n in zip(texts, examples, numbers, strict=True)
        ]
        return Result(scores.regression_scores(np.array([e.label for e in examples]), numbers), said)
    probabilities, guessed = prediction.softmax(logits), logits.argmax(-1)
    true = np.array(label_ids(((e.where, e.label) for e in examples), labels), np.int64)
    matrix = scores.confusion(true, guessed, len(labels))
    said = [
        {**text, "label": e.label, "predicted": labels[g], "score": float(p[g])}
        for text, e, g, p in zip(texts, examples, guessed, probabilities, strict=True)
    ]
    return Result(scores.classification_scores(matrix), said, matrix)


def new_model(backbone: BertForPreTraining, settings: TaskSettings, dropout: float, pooling: str = "cls") -> TaskModel:
    """A fresh head on a pretrained encoder."""
    return TaskModel(backbone, replace(settings), dropout=dropout, pooling=pooling)


def choose_pooling(directory: str | Path, asked: str) -> str:
    """What a sequence head reads: "cls" or "mean".

    "auto": what config.json says; of a modern model where it says nothing the mean: masked-LM pretraining never asks
    its [CLS] for the meaning of a text. The other architectures' heads read [CLS] in transformers, and so do ours.

    Raises:
        InputError: "mean" for one of those.
    """
    hf = read_object(checkpoint.resolve(Path(directory)) / "config.json", "give a directory with a model")
    modern = hf.get("model_type") == "modernbert"
    if asked == "mean" and not modern:
        raise InputError("--pooling mean: heads of this architecture read [CLS]: leave it out, or use a modern model")
    if asked != "auto":
        return asked
    return "mean" if modern and hf.get("classifier_pooling", "mean") == "mean" else "cls"
