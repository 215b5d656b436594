"""The parts of a fine-tuning: data sets from files, a head on a pretrained encoder, and the figures of a model."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastbert.model import BertForPreTraining
from fastbert.runs import checkpoint
from fastbert.system.errors import InputError
from fastbert.system.json_files import read_object
from fastbert.tasks import scores
from fastbert.tasks.examples import (
    FieldNames,
    Notes,
    TaggedExample,
    has_pairs,
    looks_like_numbers,
    read_examples,
)
from fastbert.tasks.features import Rows, SpanRows, TextRows, TokenRows, span_rows, text_rows, token_rows
from fastbert.tasks.figures import DataSet, multi_hot, with_unseen
from fastbert.tasks.held_out import hold_out
from fastbert.tasks.labels import label_ids, label_names, tag_names
from fastbert.tasks.model import TaskModel, TaskSettings, load_head, settings_of
from fastbert.text import Tokenizer

DEFAULT_LENGTH = {"qa": 384}
DEFAULT_TEXT_LENGTH = 256


@dataclass
class TaskData:
    """Everything in a fine-tuning that does not depend on the seed."""

    settings: TaskSettings
    train: DataSet
    eval: DataSet
    test: DataSet | None = None
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
    windows: bool = False,
    threshold: float = 0.5,
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
        windows: split texts that are longer into windows instead of truncating them.
        threshold: probability from which a text has a label, where it may have several.
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
    multi_label = task == "classification" and isinstance(read["train"][0].label, tuple)
    if task == "classification":
        require_one_kind_of_label(read)
    labels = labels_of(task, read["train"])  # of the whole file, held-out examples included
    keeps_head = previous is not None and _same_task(previous, task, multi_label, labels)
    if previous is not None and keeps_head:
        labels = previous.labels
    hold_out(read, train, limit)
    pairs = _pairs(read, pairs_required) if task in ("classification", "regression") else None
    settings = TaskSettings(
        task,
        labels,
        pairs,
        max_length=min(max_length or DEFAULT_LENGTH.get(task, DEFAULT_TEXT_LENGTH), positions),
        stride=stride,
        unanswerable=task == "qa" and any(not e.answers for e in read["train"]),
        max_answer_tokens=max_answer_tokens,
        multi_label=multi_label,
        windows=windows,
        thresholds=(threshold,) * len(labels) if multi_label else (),
    )
    data = TaskData(settings, **_sets(settings, read, tokenizer), keeps_head=keeps_head)
    describe_targets(data)
    for line in (*notes.lines(), *_limits(data), *_unseen(data), *_about_the_head(previous, data)):
        log(line)
    return data


def _sets(settings: TaskSettings, read: dict[str, list[Any]], tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        name: DataSet(name, examples, make_rows(settings, examples, tokenizer, with_targets=name == "train"))
        for name, examples in read.items()
    }


def _same_task(previous: TaskSettings, task: str, multi_label: bool, labels: Sequence[str]) -> bool:
    return (previous.task, previous.multi_label) == (task, multi_label) and set(labels) <= set(previous.labels)


def _pairs(read: dict[str, list[Any]], required: bool) -> bool:
    pairs = has_pairs([e for examples in read.values() for e in examples])
    if required and not pairs:
        raise InputError(f"{read['train'][0].where}: has one text, --task pairs needs two. Try: text_a and text_b")
    return pairs


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
                f"tokens and are truncated (--max-length{'' if settings.pairs else ', --windows'})"
            )
        if isinstance(part.rows, TextRows) and part.rows.owners is not None:
            long = int((np.bincount(part.rows.owners) > 1).sum())
            yield f"{part.name}: {long:,} of {total:,} texts are split: {len(part.rows):,} windows in all"
        if isinstance(part.rows, TokenRows) and part.rows.truncated:
            yield f"note: {part.name}: {part.rows.truncated:,} words are longer than half a row and are truncated"
        if isinstance(part.rows, SpanRows):
            if part.rows.truncated:
                yield (
                    f"note: {part.name}: {part.rows.truncated:,} of {total:,} questions are longer than half of "
                    f"{settings.max_length} tokens and are truncated (--max-length)"
                )
            lengths = part.rows.answer_lengths()
            if long := sum(length > settings.max_answer_tokens for length in lengths):
                yield (
                    f"note: {part.name}: {long:,} of {total:,} answers are longer than {settings.max_answer_tokens} "
                    "tokens, the longest the model gives (--max-answer-tokens)"
                )


def _unseen(data: TaskData) -> Iterator[str]:
    """A line for each evaluation set with labels that no training example has."""
    for part in (data.eval, data.test):
        if part is None or not data.settings.labels:
            continue
        counts = Counter(name for e in part.examples for name in labels_in(e))
        unseen = with_unseen(data.settings.labels, counts)[len(data.settings.labels) :]
        if unseen:
            names = ", ".join(map(repr, unseen[:8])) + (" …" if len(unseen) > 8 else "")
            yield (
                f"note: {part.name}: {sum(counts[name] for name in unseen):,} labels are not in the training file "
                f"({names}): they count as missed"
            )


def labels_in(example: Any) -> Sequence[str]:
    """The labels of an example: its class or classes, or its tags."""
    if isinstance(example, TaggedExample):
        return example.tags or ()
    return (example.label,) if isinstance(example.label, str) else example.label


def require_one_kind_of_label(read: dict[str, list[Any]]) -> None:
    """Check that all files have a class for each text, or all a list.

    Raises:
        InputError: they differ.
    """
    first = read["train"][0]
    for examples in read.values():
        if isinstance(examples[0].label, tuple) != isinstance(first.label, tuple):
            what = "lists of labels" if isinstance(first.label, tuple) else "a label for each text"
            raise InputError(f"{examples[0].where}: {first.where} has {what}, this file differs. Try: one form for all")


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
        names = label_names(name for e in examples for name in labels_in(e))
        if len(names) < 2:
            only = f"the label {names[0]!r}" if names else "no label"
            raise InputError(f"{examples[0].where}: all examples have {only}. Try: two or more classes")
        return tuple(names)
    if task == "tagging":
        return tuple(tag_names(tag for e in examples for tag in e.tags))
    return ()


def make_rows(settings: TaskSettings, examples: Sequence[Any], tokenizer: Tokenizer, with_targets: bool) -> Rows:
    """Examples as rows; only those of training need targets."""
    if settings.task == "qa":
        return span_rows(examples, tokenizer, settings.max_length, settings.stride, labelled=True)
    if settings.task == "tagging":
        listed = [[(e.where, tag) for tag in e.tags] for e in examples] if with_targets else None
        ids = None if listed is None else [label_ids(tags, settings.labels) for tags in listed]
        return token_rows(examples, tokenizer, settings.max_length, ids)
    rows = text_rows(examples, tokenizer, settings.max_length, settings.windows)
    if not with_targets:
        return rows
    if settings.task == "regression":
        rows.set_targets(np.array([e.label for e in examples], np.float32))
    elif settings.multi_label:
        rows.set_targets(multi_hot([e.label for e in examples], settings.labels).astype(np.float32))
    else:
        rows.set_targets(np.array(label_ids(((e.where, e.label) for e in examples), settings.labels), np.int64))
    return rows


def describe_targets(data: TaskData) -> None:
    """Count the classes; standardize the training numbers to mean 0 and deviation 1."""
    rows = data.train.rows
    if isinstance(rows, TextRows) and data.settings.task == "regression":
        assert rows.targets is not None
        numbers = rows.of_texts(rows.targets)
        deviation = float(numbers.std())
        if not deviation:
            raise InputError(f"{data.train.examples[0].where}: all examples have the same number: nothing to learn")
        data.scale = (float(numbers.mean()), deviation)
        rows.targets = ((rows.targets - data.scale[0]) / deviation).astype(np.float32)
    elif isinstance(rows, TextRows | TokenRows):
        assert rows.targets is not None
        targets = np.concatenate(rows.targets) if isinstance(rows, TokenRows) else rows.of_texts(rows.targets)
        if data.settings.multi_label:
            data.class_counts = targets.sum(0).astype(int).tolist()
        else:
            data.class_counts = np.bincount(targets, minlength=len(data.settings.labels)).tolist()


def fold_scale(model: TaskModel, scale: tuple[float, float]) -> None:
    """Make the classifier predict numbers on the original scale; undoes :func:`describe_targets`."""
    with torch.no_grad():
        model.classifier.weight.mul_(scale[1])
        model.classifier.bias.mul_(scale[1]).add_(scale[0])


def new_model(backbone: BertForPreTraining, settings: TaskSettings, dropout: float, pooling: str = "cls") -> TaskModel:
    """A fresh head on a pretrained encoder."""
    return TaskModel(backbone, replace(settings), dropout=dropout, pooling=pooling)


def choose_pooling(directory: str | Path, requested: str, as_is: bool = False) -> str:
    """What a sequence head reads: "cls" or "mean".

    "auto": as in config.json; for a modern model without an entry the mean, because masked-LM pretraining does not
    train its [CLS] to represent a text. Heads of the other architectures read [CLS] in transformers, and so do ours.

    Args:
        directory: of the model.
        requested: "auto", "cls" or "mean".
        as_is: as transformers reads the model's own config.json, which an adapter comes back to.

    Raises:
        InputError: "mean" for one of those, or another than as it is.
    """
    hf = read_object(checkpoint.resolve(Path(directory)) / "config.json", "give a directory with a model")
    modern = hf.get("model_type") == "modernbert"
    if requested == "mean" and not modern:
        raise InputError("--pooling mean: heads of this architecture read [CLS]. Try: leave it out, or a modern model")
    if as_is and modern:
        own = hf.get("classifier_pooling", "cls")
        if requested not in ("auto", own):
            raise InputError(
                f"--pooling {requested}: the model's config.json says {own}, which an adapter cannot change"
            )
        return own
    if requested != "auto":
        return requested
    return "mean" if modern and hf.get("classifier_pooling", "mean") == "mean" else "cls"
