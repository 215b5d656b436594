"""How good predictions are, by the measure each task is judged by. Shares are given from 0 to 1."""

import importlib.util
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastbert.system.errors import InputError
from fastbert.tasks.tag_schemes import find_scheme

# task -> (its measures, the one that chooses the best checkpoint)
MEASURES: dict[str, tuple[tuple[str, ...], str]] = {
    "classification": (("accuracy", "macro_f1", "f1", "mcc"), "accuracy"),
    "multilabel": (("micro_f1", "macro_f1", "exact_match", "label_accuracy"), "micro_f1"),
    "regression": (("pearson", "spearman", "mse"), "pearson"),
    "tagging": (("f1", "precision", "recall", "token_accuracy"), "f1"),
    "qa": (("f1", "exact_match"), "f1"),
}
LOWER_IS_BETTER = ("mse", "loss")


def confusion(true: NDArray, predicted: NDArray, num_classes: int) -> NDArray[np.int64]:
    """(C, C) counts, a row for each true class."""
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def classification_scores(matrix: NDArray[np.int64], num_classes: int | None = None) -> dict[str, float]:
    """Accuracy, macro F1, Matthews' correlation, and for two classes the F1 of the second.

    Args:
        matrix: (C, C) counts, a row for each true class.
        num_classes: those of the model, if the matrix has others after them; None: C.

    Reference: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004.
    """
    counts = matrix.astype(np.float64)
    total, right = counts.sum(), np.diag(counts)
    true, guessed = counts.sum(1), counts.sum(0)
    f1 = np.divide(2 * right, true + guessed, out=np.zeros_like(right), where=true + guessed > 0)
    present = true + guessed > 0
    spread = np.sqrt((total**2 - (guessed**2).sum()) * (total**2 - (true**2).sum()))
    scores = {
        "accuracy": right.sum() / total,
        "macro_f1": f1[present].mean(),
        "mcc": (right.sum() * total - (true * guessed).sum()) / spread if spread else 0.0,
    }
    if (num_classes or len(counts)) == 2:
        scores["f1"] = f1[1]
    return {name: float(value) for name, value in scores.items()}


def by_class(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of examples of each class, from a confusion matrix."""
    return _figures(np.diag(matrix), matrix.sum(0), matrix.sum(1), names)


def _figures(right: NDArray, guessed: NDArray, true: NDArray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    def share(of: NDArray) -> NDArray:
        return np.divide(right, of, out=np.zeros(len(right)), where=of > 0)

    f1 = np.divide(2 * right, guessed + true, out=np.zeros(len(right)), where=guessed + true > 0)
    columns = zip(names, share(guessed), share(true), f1, true, strict=True)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in columns
    }


def multilabel_scores(
    true: NDArray[np.bool_], guessed: NDArray[np.bool_], names: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures of (B, C) labels, and the figures of each label.

    Micro F1 counts every decision, macro F1 is the mean over the labels that occur; exact match is the share of texts
    with all labels right, label accuracy that of right decisions.
    """
    figures = _figures((true & guessed).sum(0), guessed.sum(0), true.sum(0), names)
    present = [figures[name]["f1"] for name, count in zip(names, (true | guessed).sum(0), strict=True) if count]
    decided = true.sum() + guessed.sum()
    return {
        "micro_f1": float(2 * (true & guessed).sum() / decided) if decided else 1.0,
        "macro_f1": float(np.mean(present)) if present else 1.0,
        "exact_match": float((true == guessed).all(1).mean()),
        "label_accuracy": float((true == guessed).mean()),
    }, figures


def best_thresholds(true: NDArray[np.bool_], chances: NDArray) -> list[float]:
    """For each label the probability from which on its F1 is highest; 0.5 for a label that does not occur."""
    found = []
    for label in range(true.shape[1]):
        column, p = true[:, label], chances[:, label]
        order = np.argsort(-p, kind="stable")
        hits = column[order].cumsum()
        f1 = 2 * hits / (np.arange(1, len(p) + 1) + column.sum())
        # a threshold lies between two different probabilities
        f1[:-1][p[order][:-1] == p[order][1:]] = -1.0
        best = int(f1.argmax())
        below = p[order][best + 1] if best + 1 < len(p) else 0.0
        found.append(float((p[order][best] + below) / 2) if column.any() else 0.5)
    return found


def regression_scores(true: NDArray, predicted: NDArray) -> dict[str, float]:
    """Pearson's and Spearman's correlation, mean squared error; a constant correlates with nothing: 0."""
    true, predicted = true.astype(np.float64), predicted.astype(np.float64)
    return {
        "pearson": _correlation(true, predicted),
        "spearman": _correlation(_ranks(true), _ranks(predicted)),
        "mse": float(((true - predicted) ** 2).mean()),
    }


def _correlation(x: NDArray, y: NDArray) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norm) if norm else 0.0


def _ranks(values: NDArray) -> NDArray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[group]


def tagging_scores(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str] = ()
) -> dict[str, float]:
    """Precision, recall and F1 of whole entities as seqeval (CoNLL-2003's rules) counts them, and token accuracy.

    Args:
        true, predicted: tags of each sentence.
        labels: all labels of the task, which decide the tagging scheme; without them the tags do. With plain labels
            (parts of speech) each word is an entity.

    Raises:
        InputError: seqeval is not installed.
    """
    require_seqeval()
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    scheme = find_scheme(labels or {tag for tags in (*true, *predicted) for tag in tags})
    spelled = [[scheme.as_bio(tags) for tags in side] for side in (true, predicted)]
    precision, recall, f1, _ = precision_recall_fscore_support(*spelled, average="micro", zero_division=0)
    flat = [(a, b) for x, y in zip(true, predicted, strict=True) for a, b in zip(x, y, strict=True)]
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "token_accuracy": sum(a == b for a, b in flat) / max(len(flat), 1),
    }


def by_entity(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], labels: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of each kind of entity; arguments as for :func:`tagging_scores`."""
    scheme = find_scheme(labels or {tag for tags in (*true, *predicted) for tag in tags})
    counts: dict[str, NDArray[np.int64]] = {}  # right, guessed, true
    for theirs, ours in zip(true, predicted, strict=True):
        gold, guessed = set(scheme.entities(theirs)), set(scheme.entities(ours))
        for column, found in enumerate((gold & guessed, guessed, gold)):
            for entity in found:
                counts.setdefault(entity.kind, np.zeros(3, np.int64))[column] += 1
    kinds = sorted(counts)
    table = np.array([counts[kind] for kind in kinds]).reshape(-1, 3)
    return _figures(table[:, 0], table[:, 1], table[:, 2], kinds)


def require_seqeval() -> None:
    """Check for the package that scores entities before training, not after it.

    Raises:
        InputError: seqeval is not installed.
    """
    if importlib.util.find_spec("seqeval") is None:
        raise InputError('--task tagging: needs the package seqeval. Try: pip install "fastbert[tasks]"')


def answer_scores(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and token F1 by SQuAD's rules, the best over the gold answers; no gold answer: "" is right."""
    from fastbert.metrics import exact_match, token_f1

    most = max(len(texts) for texts in gold)
    references = [[*texts, *[None] * (most - len(texts))] if texts else ["", *[None] * (most - 1)] for texts in gold]
    return {
        "exact_match": exact_match(predicted, references).score / 100,
        "f1": token_f1(predicted, references).score / 100,
    }


def check_measure(task: str, measure: str | None, num_labels: int = 2) -> str:
    """The measure that chooses the best checkpoint.

    Raises:
        InputError: not a measure of the task.
    """
    known, usual = MEASURES[task]
    if measure is None:
        return usual
    if measure == "f1" and task == "classification" and num_labels != 2:
        raise InputError(f"--metric f1: needs two classes, and there are {num_labels}. Try: --metric macro_f1")
    if measure not in known:
        raise InputError(f"--metric {measure}: not a measure of {task}. Try: {', '.join(known)}")
    return measure


def better(measure: str, new: float, old: float | None) -> bool:
    """Whether a score beats the best so far."""
    return old is None or (new < old if measure in LOWER_IS_BETTER else new > old)
