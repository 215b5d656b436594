"""The parts of a fine-tuning: data sets from files, a head on a pretrained encoder, and the figures of a model."""

from collections.abc import Callable, Iterator, Sequence
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
from fastbert.tasks.model import TaskModel, TaskSettings, load_head, settings_of
from fastbert.text import Tokenizer

HELD_OUT_SHARE = 0.1  # of the training file, without an evaluation file
ORDER_SEED = 20_190_524  # decides what is held out and what a limit keeps; the same for every run
DEFAULT_LENGTH = {"qa": 384}
DEFAULT_TEXT_LENGTH = 256


@dataclass
class DataSet:
    """The examples of a file, and their token ids."""

    name: str
    examples: list[Any]
    rows: Rows


@dataclass
class TaskData:
    """Everything in a fine-tuning that does not depend on the seed."""

    settings: TaskSettings
    train: DataSet
    eval: DataSet
    test: DataSet | None
    class_counts: list[int] = field(default_factory=list)  # of the training labels
    scale: tuple[float, float] = (0.0, 1.0)  # mean and deviation of the training numbers
    keeps_head: bool = False  # training starts from the head of the given model


def load_backbone(directory: str | Path, dropout: float, impl: str = "auto") -> BertForPreTraining:
    """A pretrained encoder with the same dropout everywhere."""
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
    max_answer_tokens: int = 60,
    previous: TaskSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> TaskData:
    """Read, check and tokenize the files of a task.

    Args:
        task: classification, regression, tagging, qa, or pairs (classes or numbers, as the labels are).
        eval: None: a tenth of ``train`` is held out.
        max_length: tokens of a row; None: 384 for questions, else 256, but no more than ``positions``.
        limit: maximum number of training examples, chosen at random (always the same ones).
        max_answer_tokens: of the answers that the model will give.
        previous: what the model was fine-tuned for, if it was; its labels are kept if they include those of the file.
        log: called with each line about the data.

    Raises:
        InputError: one line with file, line number and remedy.
    """
    fields, notes = fields or FieldNames(), Notes()
    if pairs_required := task == "pairs":
        task = "regression" if looks_like_numbers(train, fields) else "classification"
    if task == "tagging":
        scores.require_seqeval()
    files = {name: path for name, path in (("train", train), ("eval", eval), ("test", test)) if path}
    read = {name: read_examples(path, task, fields=fields, notes=notes) for name, path in files.items()}  # type: ignore[arg-type]
    labels = labels_of(task, read["train"])  # of the whole file, held-out examples included
    keeps_head = previous is not None and previous.task == task and set(labels) <= set(previous.labels)
    if previous is not None and keeps_head:
        labels = previous.labels
    shuffled = np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(read["train"]))
    if eval is None:
        if len(shuffled) < 2:
            raise InputError(f"{train}: has one example. Try: more examples, or --eval")
        count = max(1, round(HELD_OUT_SHARE * len(shuffled)))
        read["eval"] = [read["train"][i] for i in sorted(shuffled[:count])]
        shuffled = shuffled[count:]
    if limit is not None or eval is None:
        read["train"] = [read["train"][i] for i in sorted(shuffled[:limit])]
    pairs = None
    if task in ("classification", "regression"):
        pairs = has_pairs([e for examples in read.values() for e in examples])
        if pairs_required and not pairs:
            raise InputError(f"{read['train'][0].where}: has one text, --task pairs needs two. Try: text_a and text_b")
    settings = TaskSettings(
        task,
        labels,
        pairs,
        max_length=min(max_length or DEFAULT_LENGTH.get(task, DEFAULT_TEXT_LENGTH), positions),
        stride=stride,
        unanswerable=task == "qa" and any(not e.answers for e in read["train"]),
        max_answer_tokens=max_answer_tokens,
    )
    sets = {name: DataSet(name, examples, make_rows(settings, examples, tokenizer)) for name, examples in read.items()}
    data = TaskData(settings, sets["train"], sets["eval"], sets.get("test"), keeps_head=keeps_head)
    describe_targets(data)
    for line in (*notes.lines(), *_limits(data), *_about_the_head(previous, data)):
        log(line)
    return data


def _limits(data: TaskData) -> Iterator[str]:
    """A line for every limit that cuts something, with the number of examples it cuts."""
    settings = data.settings
    for part in (data.train, data.eval, data.test):
        if part is None:
            continue
        total = len(part.examples)
        if isinstance(part.rows, TextRows) and part.rows.truncated:
            yield (
                f"note: {part.name}: {part.rows.truncated:,} of {total:,} texts are longer than {settings.max_length} "
                "tokens and are truncated (--max-length)"
            )
        if isinstance(part.rows, SpanRows):
            lengths = part.rows.answer_lengths()
            if long := sum(length > settings.max_answer_tokens for length in lengths):
                yield (
                    f"note: {part.name}: {long:,} of {total:,} answers are longer than {settings.max_answer_tokens} "
                    "tokens, the longest the model gives (--max-answer-tokens)"
                )


def _about_the_head(previous: TaskSettings | None, data: TaskData) -> Iterator[str]:
    if previous is None:
        return
    if data.keeps_head:
        yield f"the model is fine-tuned for {previous.task} with these labels: training starts from its head"
        return
    labels = f" ({', '.join(previous.labels[:8])}{' …' if len(previous.labels) > 8 else ''})" if previous.labels else ""
    yield f"note: the model's head, for {previous.task}{labels}, does not fit this data: a new one starts at random"


def previous_settings(directory: str | Path) -> TaskSettings | None:
    """What a model was fine-tuned for; None for a pretrained one, or a head that is not supported."""
    path = checkpoint.resolve(Path(directory)) / "config.json"
    try:
        return settings_of(read_object(path, "give a directory with a model"), str(path))
    except InputError:
        return None


def restore_head(model: TaskModel, directory: str | Path, scale: tuple[float, float]) -> None:
    """Load the head of a fine-tuned model of the same task and labels; its numbers are put on ``scale``."""
    load_head(model, checkpoint.resolve(Path(directory)))
    with torch.no_grad():
        model.classifier.weight.div_(scale[1])
        model.classifier.bias.sub_(scale[0]).div_(scale[1])


def labels_of(task: str, examples: Sequence[Any]) -> tuple[str, ...]:
    """The labels of the training examples."""
    if task == "classification":
        names = label_names(e.label for e in examples)
        if len(names) < 2:
            raise InputError(f"{examples[0].where}: all examples have the label {names[0]!r}. Try: two or more classes")
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
    """Count the classes; standardize the training numbers to mean 0 and deviation 1."""
    rows = data.train.rows
    if isinstance(rows, TextRows) and data.settings.task == "regression":
        assert rows.targets is not None
        deviation = float(rows.targets.std())
        if not deviation:
            raise InputError(f"{data.train.examples[0].where}: all examples have the same number: nothing to learn")
        data.scale = (float(rows.targets.mean()), deviation)
        rows.targets = ((rows.targets - data.scale[0]) / deviation).astype(np.float32)
    elif isinstance(rows, TextRows | TokenRows):
        assert rows.targets is not None
        targets = np.concatenate(rows.targets) if isinstance(rows, TokenRows) else rows.targets
        data.class_counts = np.bincount(targets, minlength=len(data.settings.labels)).tolist()


def fold_scale(model: TaskModel, scale: tuple[float, float]) -> None:
    """Make the classifier predict numbers on the original scale; undoes :func:`describe_targets`."""
    with torch.no_grad():
        model.classifier.weight.mul_(scale[1])
        model.classifier.bias.mul_(scale[1]).add_(scale[0])


# ---- figures and predictions ----
@dataclass
class Result:
    """Measures of a model on a data set, and a prediction for each example."""

    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    confusion: NDArray[np.int64] | None = None  # (C, C), a row for each true class


def measure(model: TaskModel, data: DataSet, scale: tuple[float, float] = (0.0, 1.0)) -> Result:
    """Predict a labelled set and score it.

    Args:
        scale: of a regression model before :func:`fold_scale`.
    """
    task, labels = model.settings.task, model.settings.labels
    examples, rows = data.examples, data.rows
    if task == "qa":
        assert isinstance(rows, SpanRows)
        best = [found[0] for found in prediction.answers_of_rows(model, rows, examples)]
        gold = [e.gold_texts for e in examples]
        records = [
            {"id": e.id, "question": e.question, **one, "answers": texts}
            for e, one, texts in zip(examples, best, gold, strict=True)
        ]
        return Result(scores.answer_scores([one["answer"] for one in best], gold), records)
    if task == "tagging":
        assert isinstance(rows, TokenRows)
        tags, confidence = prediction.tags_of_rows(model, rows, examples)
        records = [
            {"tokens": e.tokens, "tags": e.tags, "predicted": predicted, "scores": [round(p, 4) for p in ps]}
            for e, predicted, ps in zip(examples, tags, confidence, strict=True)
        ]
        return Result(scores.tagging_scores([e.tags for e in examples], tags, labels), records)
    logits = np.stack(prediction.outputs(model, rows)).astype(np.float64)
    texts = [{"text_a": e.text, "text_b": e.pair} if e.pair is not None else {"text": e.text} for e in examples]
    if task == "regression":
        numbers = logits[:, 0] * scale[1] + scale[0]
        records = [
            {**text, "label": e.label, "predicted": float(n)}
            for text, e, n in zip(texts, examples, numbers, strict=True)
        ]
        return Result(scores.regression_scores(np.array([e.label for e in examples]), numbers), records)
    probabilities, guessed = prediction.softmax(logits), logits.argmax(-1)
    true = np.array(label_ids(((e.where, e.label) for e in examples), labels), np.int64)
    matrix = scores.confusion(true, guessed, len(labels))
    records = [
        {**text, "label": e.label, "predicted": labels[g], "score": float(p[g])}
        for text, e, g, p in zip(texts, examples, guessed, probabilities, strict=True)
    ]
    return Result(scores.classification_scores(matrix), records, matrix)


def new_model(backbone: BertForPreTraining, settings: TaskSettings, dropout: float, pooling: str = "cls") -> TaskModel:
    """A fresh head on a pretrained encoder."""
    return TaskModel(backbone, replace(settings), dropout=dropout, pooling=pooling)


def choose_pooling(directory: str | Path, requested: str) -> str:
    """What a sequence head reads: "cls" or "mean".

    "auto": as in config.json; for a modern model without an entry the mean, because masked-LM pretraining does not
    train its [CLS] to represent a text. Heads of the other architectures read [CLS] in transformers, and so do ours.

    Raises:
        InputError: "mean" for one of those.
    """
    hf = read_object(checkpoint.resolve(Path(directory)) / "config.json", "give a directory with a model")
    modern = hf.get("model_type") == "modernbert"
    if requested == "mean" and not modern:
        raise InputError("--pooling mean: heads of this architecture read [CLS]. Try: leave it out, or a modern model")
    if requested != "auto":
        return requested
    return "mean" if modern and hf.get("classifier_pooling", "mean") == "mean" else "cls"
