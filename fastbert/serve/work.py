"""The kinds of work: which method of the library answers a list of texts, and how many tokens a text costs.

A cost is the number of tokens that go through the model. A text that is scored goes through it once for each of its
tokens, one that is generated once for each step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastbert.bert import Bert

Options = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A kind of work."""

    run: Callable[["Bert", list[Any], Options], Sequence[Any]]
    cost: Callable[["Bert", list[Any], Options], list[int]]


@dataclass(frozen=True)
class Key:
    """What texts of one batch have in common."""

    model: str
    kind: str
    options: tuple[tuple[str, Any], ...] = ()


def lengths(bert: "Bert", texts: list[str]) -> list[int]:
    """Tokens of each text, special tokens included."""
    return np.diff(bert.tokenizer.encode_batch(texts).offsets).tolist()


def embedding_limit(bert: "Bert") -> int:
    """Tokens that an embedding takes of a text; the rest is truncated."""
    limit = bert.model.config.max_position_embeddings
    return min(limit, (bert.embedding.max_length if bert.embedding else None) or limit)


def truncated_rows(bert: "Bert", items: list[tuple[str, str | None]]) -> int:
    """How many texts or pairs are longer than the fine-tuned model takes."""
    assert bert.task_model is not None
    limit = min(bert.task_model.settings.max_length, bert.model.config.max_position_embeddings)
    costs = _pair_cost(bert, items, {})  # [CLS] is counted with both texts of a pair
    return sum(cost - (second is not None) > limit for cost, (_, second) in zip(costs, items, strict=True))


# ---- answers ----
def _classify(bert: "Bert", items: list[tuple[str, str | None]], _options: Options) -> Sequence[Any]:
    pairs = [second for _, second in items if second is not None]
    return bert.classify([first for first, _ in items], pairs or None)


def _fill(bert: "Bert", items: list[str], options: Options) -> Sequence[Any]:
    answers = bert.fill_mask(items, **options)
    if options["method"] != "independent":
        return answers
    # a list of guesses for each mask, also for a single one
    return [[answer] if isinstance(answer[0], dict) else answer for answer in answers]


def _answer(bert: "Bert", items: list[tuple[str, str]], options: Options) -> Sequence[Any]:
    found = bert.answer([question for question, _ in items], [context for _, context in items], **options)
    return [best if isinstance(best, list) else [best] for best in found]


def _attention(bert: "Bert", items: list[str], _options: Options) -> Sequence[Any]:
    from fastbert.report.model_views import attention

    return [attention(bert, text) for text in items]


# ---- costs ----
def _once(bert: "Bert", items: list[str], _options: Options) -> list[int]:
    return lengths(bert, items)


def _embed_cost(bert: "Bert", items: list[str], _options: Options) -> list[int]:
    return np.minimum(lengths(bert, items), embedding_limit(bert)).tolist()


def _pair_cost(bert: "Bert", items: list[tuple[str, str | None]], _options: Options) -> list[int]:
    firsts = lengths(bert, [first for first, _ in items])
    seconds = iter(lengths(bert, [second for _, second in items if second is not None]))
    return [length + (0 if pair[1] is None else next(seconds)) for length, pair in zip(firsts, items, strict=True)]


def _score_cost(bert: "Bert", items: list[str], _options: Options) -> list[int]:
    return [length * length for length in lengths(bert, items)]


def _fill_cost(bert: "Bert", items: list[str], options: Options) -> list[int]:
    """Joint filling runs a beginning for each mask."""
    masks = [text.count("[MASK]") for text in items]
    passes = {"independent": 1, "best-first": options["top_k"], "beam": options["beam"], "exact": options["passes"]}
    each = passes[options["method"]] * (options["max_pieces"] if options["method"] != "independent" else 1)
    steps = [1 if options["method"] == "independent" else max(count, 1) for count in masks]
    return [length * each * step for length, step in zip(lengths(bert, items), steps, strict=True)]


def _generate_cost(bert: "Bert", items: list[str], options: Options) -> list[int]:
    return [(length + options["length"]) * options["length"] for length in lengths(bert, items)]


KINDS: dict[str, Work] = {
    "embed": Work(lambda bert, items, _: list(bert.embed(items)), _embed_cost),
    "fill": Work(_fill, _fill_cost),
    "score": Work(lambda bert, items, options: bert.score(items, per_token=True, **options), _score_cost),
    "classify": Work(_classify, _pair_cost),
    "tag": Work(lambda bert, items, _: bert.tag(items), _once),
    "answer": Work(_answer, _pair_cost),
    "similarity": Work(lambda bert, items, _: bert.similarity(*map(list, zip(*items, strict=True))), _pair_cost),
    "generate": Work(lambda bert, items, options: [bert.generate(text, **options) for text in items], _generate_cost),
    "attention": Work(_attention, _once),
}
