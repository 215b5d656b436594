"""Predictions of a fine-tuned model: classes, numbers, entities, spans, similarities.

Heads run on packed rows, longest first, in float32; predictions are returned in the order of the inputs.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastbert.batch import by_token_budget
from fastbert.system.errors import InputError
from fastbert.tasks.examples import QuestionExample, TaggedExample, TextExample, tagged_text, word_spans
from fastbert.tasks.features import Rows, SpanRows, TextRows, TokenRows, span_rows, text_rows, token_rows
from fastbert.tasks.model import TaskModel, TaskSettings, require_token_types
from fastbert.tasks.tag_schemes import find_scheme
from fastbert.text import Tokenizer

BATCH_TOKENS = 8192
DEFAULT_THRESHOLD = 0.5
NUM_BEST = 20  # first tokens, last tokens and answers that are considered
NUM_BEST_OF_SEVERAL = 100  # where several answers are asked for, which must not overlap


def batches(rows: Rows, batch_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Row numbers in batches of about equal tokens, rows of similar length together."""
    lengths = rows.lengths
    order = np.argsort(-lengths, kind="stable")
    for part in by_token_budget(lengths[order].tolist(), batch_tokens):
        yield order[part].tolist()


def outputs(model: TaskModel, rows: Rows, batch_tokens: int = BATCH_TOKENS) -> list[NDArray[np.float32]]:
    """The logits of every row: (C,), (P, C) or (L, 2), in the rows' order."""
    found: list[Any] = [None] * len(rows)
    device = model.device
    with torch.no_grad():  # not inference mode: kernels' copies of the weights must remain valid for training
        for chosen in batches(rows, batch_tokens):
            batch = rows.batch(chosen).to(device)
            logits = model(batch).cpu().numpy()
            if isinstance(rows, TokenRows):
                cuts = np.cumsum([len(rows.positions[i]) for i in chosen])[:-1]
            elif isinstance(rows, SpanRows):
                cuts = np.cumsum([len(rows.ids[i]) for i in chosen])[:-1]
            else:
                cuts = np.arange(1, len(chosen))
            parts = np.split(logits, cuts)
            for i, part in zip(chosen, parts, strict=True):
                found[i] = part if isinstance(rows, TokenRows | SpanRows) else part[0]
    return found


# ---- classes and numbers ----
def softmax(logits: NDArray) -> NDArray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def classify(
    model: TaskModel, tokenizer: Tokenizer, examples: Sequence[TextExample], windows: bool | None = None
) -> list[dict[str, Any]] | list[float]:
    """``{"label", "score", "scores": {label: probability}}`` of each text or pair; numbers from a regression model.

    Texts that are too long are truncated, which is said; or split into ``windows`` (None: as the model was fine-tuned),
    whose logits are averaged.

    Raises:
        InputError: windows of pairs.
    """
    if not examples:
        return []
    if windows is None:
        windows = model.settings.windows and examples[0].pair is None
    if examples[0].pair is not None:
        require_token_types(model.backbone.config)
    rows = text_rows(examples, tokenizer, _length(model), windows)
    warn_of_truncated(rows, f"of {len(examples):,} texts are longer than {_length(model)} tokens: truncated")
    logits = logits_of_texts(model, rows)
    if model.settings.task == "regression":
        numbers = sigmoid(logits.astype(np.float64)) if model.settings.sigmoid else logits
        return [float(number) for number in numbers[:, 0]]
    labels = model.settings.labels
    if model.settings.multi_label:
        chances = sigmoid(logits.astype(np.float64))
        return [
            {"labels": chosen, "scores": {name: float(value) for name, value in zip(labels, p, strict=True)}}
            for chosen, p in zip(labels_over_thresholds(model.settings, chances), chances, strict=True)
        ]
    return [
        {
            "label": labels[int(p.argmax())],
            "score": float(p.max()),
            "scores": {name: float(value) for name, value in zip(labels, p, strict=True)},
        }
        for p in softmax(logits.astype(np.float64))
    ]


def logits_of_texts(model: TaskModel, rows: Rows) -> NDArray[np.float32]:
    """(B, C) logits of every text, the mean of its windows."""
    logits = np.stack(outputs(model, rows))
    return rows.mean_of_windows(logits) if isinstance(rows, TextRows) else logits


def warn_of_truncated(rows: TextRows | TokenRows | SpanRows, what: str) -> None:
    """A warning with the number of what is read only in part, if there is any."""
    if rows.truncated:
        warnings.warn(f"{rows.truncated:,} {what}", stacklevel=3)


def sigmoid(logits: NDArray) -> NDArray:
    return 1.0 / (1.0 + np.exp(-logits))


def labels_over_thresholds(settings: TaskSettings, chances: NDArray) -> list[list[str]]:
    """The labels of each row of probabilities (B, C), of a task with several labels per text."""
    over = chances >= np.array(settings.thresholds or [DEFAULT_THRESHOLD] * len(settings.labels))
    return [[name for name, chosen in zip(settings.labels, row, strict=True) if chosen] for row in over]


def _length(model: TaskModel) -> int:
    return min(model.settings.max_length, model.backbone.config.max_position_embeddings)


# ---- tags ----
def tag_words(
    model: TaskModel, tokenizer: Tokenizer, examples: Sequence[TaggedExample]
) -> tuple[list[list[str]], list[list[float]]]:
    """Tags of the words of each example, and their probabilities."""
    rows = token_rows(examples, tokenizer, _length(model), None)
    warn_of_truncated(rows, f"words are longer than half a row of {_length(model)} tokens: truncated")
    return tags_of_rows(model, rows, examples)


def tags_of_rows(
    model: TaskModel, rows: TokenRows, examples: Sequence[TaggedExample]
) -> tuple[list[list[str]], list[list[float]]]:
    """As :func:`tag_words`, from rows."""
    labels = model.settings.labels
    tags = [["O"] * len(e.tokens) for e in examples]
    scores = [[0.0] * len(e.tokens) for e in examples]
    for (example, first), logits in zip(rows.origins, outputs(model, rows), strict=True):
        probabilities = softmax(logits.astype(np.float64))
        for word, p in enumerate(probabilities, start=first):
            tags[example][word], scores[example][word] = labels[int(p.argmax())], float(p.max())
    return tags, scores


def entities(
    text: str,
    spans: Sequence[tuple[int, int]],
    tags: Sequence[str],
    scores: Sequence[float],
    labels: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Entities of a text as ``{"entity", "text", "start", "end", "score"}``, with characters of ``text``.

    Args:
        text: the text.
        spans: characters of each word.
        tags, scores: of each word; the score of an entity is the mean of its words'.
        labels: all labels of the model, which decide the tagging scheme; without them the tags do.
    """
    found = []
    for entity in find_scheme(labels or tags).entities(tags):
        start, end = spans[entity.start][0], spans[entity.end - 1][1]
        score = float(np.mean(scores[entity.start : entity.end]))
        found.append({"entity": entity.kind, "text": text[start:end], "start": start, "end": end, "score": score})
    return found


def tag_texts(model: TaskModel, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Entities of running texts, with character offsets; words as in :func:`word_spans`."""
    examples = [tagged_text(text) for text in texts]
    tags, scores = tag_words(model, tokenizer, examples)
    labels = model.settings.labels
    return [entities(text, word_spans(text), a, b, labels) for text, a, b in zip(texts, tags, scores, strict=True)]


# ---- questions ----
def answer(
    model: TaskModel,
    tokenizer: Tokenizer,
    examples: Sequence[QuestionExample],
    top_k: int = 1,
    max_answer_tokens: int | None = None,
    unanswerable: bool | None = None,
) -> list[list[dict[str, Any]]]:
    """The best answers to each question: ``{"answer", "score", "start", "end"}``, with characters of the context.

    No two of them overlap, so there may be fewer than ``top_k``.

    "" with start = end = 0 means that there is none (only where a question may be ``unanswerable``; None: as trained).
    """
    if not examples:
        return []
    settings = model.settings
    require_token_types(model.backbone.config)
    rows = span_rows(examples, tokenizer, _length(model), settings.stride, labelled=False)
    warn_of_truncated(
        rows, f"of {len(examples):,} questions are longer than half of {_length(model)} tokens: truncated"
    )
    return answers_of_rows(model, rows, examples, top_k, max_answer_tokens, unanswerable)


def answers_of_rows(
    model: TaskModel,
    rows: SpanRows,
    examples: Sequence[QuestionExample],
    top_k: int = 1,
    max_answer_tokens: int | None = None,
    unanswerable: bool | None = None,
) -> list[list[dict[str, Any]]]:
    """As :func:`answer`, from windows."""
    max_tokens = max_answer_tokens or model.settings.max_answer_tokens
    may_be_nothing = model.settings.unanswerable if unanswerable is None else unanswerable
    pool = NUM_BEST if top_k == 1 else NUM_BEST_OF_SEVERAL
    candidates: list[list[tuple[float, int, int]]] = [[] for _ in examples]
    nothing = [float("inf")] * len(examples)  # the lowest score of "not in this window"
    for number, offsets, logits in zip(rows.examples, rows.offsets, outputs(model, rows), strict=True):
        nothing[number] = min(nothing[number], float(logits[0, 0] + logits[0, 1]))
        candidates[number] += best_spans(logits, offsets, max_tokens, pool)
    found = []
    for example, listed, none in zip(examples, candidates, nothing, strict=True):
        if may_be_nothing or not listed:
            listed = [*listed, (none, 0, 0)]
        listed.sort(key=lambda c: -c[0])
        probabilities = softmax(np.array([score for score, _, _ in listed[:pool]], np.float64))
        chosen: dict[tuple[int, int], float] = {}
        for (_, start, end), p in zip(listed[:pool], probabilities, strict=True):
            chosen[start, end] = chosen.get((start, end), 0.0) + float(p)  # windows overlap
        ranked = apart(sorted(chosen.items(), key=lambda item: -item[1]), top_k)
        found.append([{"answer": example.context[a:b], "score": p, "start": a, "end": b} for (a, b), p in ranked])
    return found


def apart(ranked: Sequence[tuple[tuple[int, int], float]], count: int) -> list[tuple[tuple[int, int], float]]:
    """The first ``count`` spans that share no character with a better one."""
    kept: list[tuple[tuple[int, int], float]] = []
    for (start, end), score in ranked:
        if len(kept) == count:
            break
        if all(end <= a or b <= start for (a, b), _ in kept):
            kept.append(((start, end), score))
    return kept


def best_spans(
    logits: NDArray, offsets: NDArray, max_tokens: int = 60, count: int = NUM_BEST
) -> list[tuple[float, int, int]]:
    """(score, first character, end) of the most probable spans of a window, none longer than ``max_tokens``."""
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(inside):
        return []
    first = inside[np.argsort(-logits[inside, 0], kind="stable")[:count]]
    last = inside[np.argsort(-logits[inside, 1], kind="stable")[:count]]
    scores = logits[first, 0][:, None] + logits[last, 1][None]
    length = last[None] - first[:, None]
    scores = np.where((length >= 0) & (length < max_tokens), scores, -np.inf)
    best = np.argsort(-scores, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(best, scores.shape), strict=True)
    return [
        (float(scores[i, j]), int(offsets[first[i], 0]), int(offsets[last[j], 1]))
        for i, j in pairs
        if np.isfinite(scores[i, j])
    ]


# ---- similarity ----
# (B, D), (B, D) → (B,); names and signs of sentence-transformers
SIMILARITIES: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "cosine": lambda a, b: (a * b).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum(-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(-1),
}


def similarity(
    model: TaskModel | None,
    embed: Callable[[list[str]], NDArray[np.float32]],
    tokenizer: Tokenizer,
    first: Sequence[str],
    second: Sequence[str],
    kind: str = "cosine",
) -> list[float]:
    """Similarity of text pairs: the number of a model fine-tuned on pairs, otherwise that of embeddings.

    Args:
        model: fine-tuned, or None.
        embed: texts → (B, D); of length 1 for the cosine.
        tokenizer: the model's.
        first, second: the same number of each.
        kind: of SIMILARITIES.

    Raises:
        InputError: lists of unequal length, or another kind.
    """
    if len(first) != len(second):
        raise InputError(f"{len(first)} first and {len(second)} second texts. Try: the same number of each")
    if not first:
        return []
    if model is not None and model.settings.task == "regression" and model.settings.pairs is not False:
        pairs = [TextExample("", a, b) for a, b in zip(first, second, strict=True)]
        return classify(model, tokenizer, pairs)  # type: ignore[return-value]
    if kind not in SIMILARITIES:
        raise InputError(
            f"similarity_fn_name is {kind!r:.40} (config_sentence_transformers.json), not supported. Try: embed(texts)"
        )
    both = embed([*first, *second])
    return [float(x) for x in SIMILARITIES[kind](both[: len(first)], both[len(first) :])]
