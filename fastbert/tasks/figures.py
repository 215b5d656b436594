"""The figures of a model on labelled examples. A label that training has never seen counts as missed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbert.tasks import prediction, scores
from fastbert.tasks.features import Rows, SpanRows, TokenRows
from fastbert.tasks.labels import label_ids
from fastbert.tasks.model import TaskModel


@dataclass
class DataSet:
    """The examples of a file, and their token ids."""

    name: str
    examples: list[Any]
    rows: Rows


@dataclass
class Result:
    """Measures of a model on a data set, and a prediction for each example."""

    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    confusion: NDArray[np.int64] | None = None  # (C, C), a row for each true class
    classes: tuple[str, ...] = ()  # of the confusion: those of the model, then those it does not know
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)  # precision, recall, f1, support

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"confusion": None if self.confusion is None else self.confusion.tolist()}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Result":
        confusion = None if record["confusion"] is None else np.array(record["confusion"], np.int64)
        return cls(**record | {"confusion": confusion, "classes": tuple(record["classes"])})


def measure(model: TaskModel, data: DataSet, scale: tuple[float, float] = (0.0, 1.0)) -> Result:
    """Predict a labelled set and score it.

    Args:
        scale: of a regression model before :func:`fastbert.tasks.finetuning.fold_scale`.
    """
    task, examples = model.settings.task, data.examples
    if task == "qa":
        return _of_answers(model, data)
    if task == "tagging":
        return _of_tags(model, data)
    logits = prediction.logits_of_texts(model, data.rows).astype(np.float64)
    texts = [{"text_a": e.text, "text_b": e.pair} if e.pair is not None else {"text": e.text} for e in examples]
    if task == "regression":
        numbers = logits[:, 0] * scale[1] + scale[0]
        records = [
            {**text, "label": e.label, "predicted": float(n)}
            for text, e, n in zip(texts, examples, numbers, strict=True)
        ]
        return Result(scores.regression_scores(np.array([e.label for e in examples]), numbers), records)
    if model.settings.multi_label:
        return _of_labels(model, examples, texts, logits)
    probabilities, guessed = prediction.softmax(logits), logits.argmax(-1)
    names = with_unseen(model.settings.labels, (e.label for e in examples))
    true = np.array(label_ids(((e.where, e.label) for e in examples), names), np.int64)
    matrix = scores.confusion(true, guessed, len(names))
    records = [
        {**text, "label": e.label, "predicted": names[g], "score": float(p[g])}
        for text, e, g, p in zip(texts, examples, guessed, probabilities, strict=True)
    ]
    known = len(model.settings.labels)
    return Result(scores.classification_scores(matrix, known), records, matrix, names, scores.by_class(matrix, names))


def with_unseen(labels: Sequence[str], given: Any) -> tuple[str, ...]:
    """The labels of a model, and after them those given ones that it does not know."""
    return (*labels, *sorted(set(given) - set(labels)))


def _of_answers(model: TaskModel, data: DataSet) -> Result:
    assert isinstance(data.rows, SpanRows)
    examples = data.examples
    best = [found[0] for found in prediction.answers_of_rows(model, data.rows, examples)]
    gold = [e.gold_texts for e in examples]
    records = [
        {"id": e.id, "question": e.question, **one, "answers": texts}
        for e, one, texts in zip(examples, best, gold, strict=True)
    ]
    return Result(scores.answer_scores([one["answer"] for one in best], gold), records)


def _of_tags(model: TaskModel, data: DataSet) -> Result:
    assert isinstance(data.rows, TokenRows)
    examples, labels = data.examples, model.settings.labels
    tags, confidence = prediction.tags_of_rows(model, data.rows, examples)
    records = [
        {"tokens": e.tokens, "tags": e.tags, "predicted": predicted, "scores": [round(p, 4) for p in ps]}
        for e, predicted, ps in zip(examples, tags, confidence, strict=True)
    ]
    true = [e.tags for e in examples]
    by_kind = scores.by_entity(true, tags, labels)
    return Result(scores.tagging_scores(true, tags, labels), records, by_class=by_kind)


def _of_labels(model: TaskModel, examples: Sequence[Any], texts: Sequence[dict], logits: NDArray) -> Result:
    chances = prediction.sigmoid(logits)
    chosen = prediction.labels_over_thresholds(model.settings, chances)
    names = with_unseen(model.settings.labels, (name for e in examples for name in e.label))
    measures, figures = scores.multilabel_scores(
        multi_hot([e.label for e in examples], names), multi_hot(chosen, names), names
    )
    records = [
        {**text, "labels": list(e.label), "predicted": found, "scores": [round(float(p), 4) for p in ps]}
        for text, e, found, ps in zip(texts, examples, chosen, chances, strict=True)
    ]
    return Result(measures, records, by_class=figures)


def multi_hot(listed: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    """(B, C): which of the labels each text has."""
    index = {name: i for i, name in enumerate(names)}
    hot = np.zeros((len(listed), len(names)), np.bool_)
    for row, labels in enumerate(listed):
        hot[row, [index[name] for name in labels]] = True
    return hot


def tune_thresholds(model: TaskModel, data: DataSet) -> None:
    """Set the threshold of each label to the one with the best F1 on a labelled set."""
    chances = prediction.sigmoid(prediction.logits_of_texts(model, data.rows).astype(np.float64))
    labels = model.settings.labels
    true = multi_hot([[name for name in e.label if name in labels] for e in data.examples], labels)
    model.settings = replace(model.settings, thresholds=tuple(scores.best_thresholds(true, chances)))
