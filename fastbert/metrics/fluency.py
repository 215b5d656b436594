"""Texts under a masked language model: pseudo-perplexity for fluency, and the gain from the previous sentence.

The figures depend on the model: compare texts under one model, not models with different vocabularies on one text
(``bits_per_character``, among the details, is comparable).
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from fastbert.metrics.score import Score, mean, signature
from fastbert.system.errors import InputError

Method = Literal["l2r", "pll"]
# a sentence ends at . ! ? … (and closing quotes), or at the end of a line
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|\n+")


class LanguageModel(Protocol):
    """A model that scores texts, such as :func:`fastbert.load` returns."""

    def score(self, texts: Any, method: Any = ..., per_token: bool = ...) -> Any:
        """Per text the log-probability of each token, with the tokens' characters."""


def perplexity(texts: Sequence[str], model: LanguageModel, *, method: Method = "l2r") -> Score:
    """Fluency: pseudo-perplexity of the texts, exp(−mean log-probability of a token given all others); 1 is best.

    Args:
        texts: raw texts; each is scored on its own and must fit the model.
        model: from :func:`fastbert.load`.
        method: "l2r" masks the rest of a word with each of its tokens (Kauf & Ivanova 2023), "pll" the token alone.

    Returns:
        The score over all tokens of all texts, and the score of each text.

    Raises:
        InputError: no texts, an empty text, one that does not fit the model; a model without a masked-LM head.

    Reference: Salazar et al., Masked Language Model Scoring, 2020.
    """
    _check(texts, model)
    scored = model.score(list(texts), method=method, per_token=True)
    count = sum(len(text.log_probs) for text in scored)
    if not count:
        raise InputError("the texts hold no token to score: the tokenizer drops all their characters. Try: other texts")
    nats = -sum(text.score for text in scored)
    characters = sum(len(text) for text in texts)
    return Score(
        "perplexity",
        math.exp(min(nats / count, 700.0)),
        math.inf,
        signature(model=_name(model), method=method, average="tokens"),
        [text.pseudo_perplexity for text in scored],
        {"tokens": count, "nats_per_token": nats / count, "bits_per_character": nats / math.log(2) / characters},
    )


def coherence(texts: Sequence[str], model: LanguageModel, *, method: Method = "l2r") -> Score:
    """Coherence: how much more probable a sentence is after its predecessor than after an unrelated one, in nats.

    For every sentence except a text's first: the mean over its tokens of log p(token | previous sentence) − log p(token
    | unrelated sentence). 0: the order of the sentences tells the model nothing; higher is better. The unrelated
    sentence is the one half the list away, so the figure is reproducible.

    Args:
        texts: some of them with two or more sentences; a sentence ends at . ! ? … or at the end of a line.
        model, method: as for :func:`perplexity`.

    Returns:
        The mean over all sentences; ``per_text`` is nan for a text with one sentence.

    Raises:
        InputError: fewer than three sentences, or no text with two; otherwise as :func:`perplexity`.
    """
    _check(texts, model)
    split = [[part.strip() for part in _SENTENCE_END.split(text) if part.strip()] for text in texts]
    every = [sentence for sentences in split for sentence in sentences]
    if len(every) < 3 or all(len(sentences) < 2 for sentences in split):
        raise InputError("coherence: needs three or more sentences, two of them in one text. Try: join a text's lines")
    pairs: list[tuple[str, str, str]] = []  # previous, unrelated, sentence
    owner: list[int] = []
    position = 0
    for number, sentences in enumerate(split):
        for index, sentence in enumerate(sentences):
            if index:
                previous = sentences[index - 1]
                pairs.append((previous, _unrelated(every, position, previous, sentence), sentence))
                owner.append(number)
            position += 1
    after = _conditional(model, [(previous, sentence) for previous, _, sentence in pairs], method)
    elsewhere = _conditional(model, [(unrelated, sentence) for _, unrelated, sentence in pairs], method)
    gains = [a - b for a, b in zip(after, elsewhere, strict=True)]
    by_text: list[list[float]] = [[] for _ in split]
    for number, gain in zip(owner, gains, strict=True):
        by_text[number].append(gain)
    return Score(
        "coherence",
        mean(gains),
        math.inf,
        signature(model=_name(model), method=method, context="one sentence", stranger="half the list away"),
        [mean(found) if found else math.nan for found in by_text],
        {"sentences": len(gains), "after_its_predecessor": mean(after), "after_a_stranger": mean(elsewhere)},
    )


def _unrelated(every: list[str], position: int, previous: str, sentence: str) -> str:
    """The sentence half the list away, or the next that differs from both."""
    for step in range(len(every)):
        other = every[(position + len(every) // 2 + step) % len(every)]
        if other not in (previous, sentence):
            return other
    return every[0]


def _conditional(model: LanguageModel, pairs: Sequence[tuple[str, str]], method: Method) -> list[float]:
    """Mean log-probability of the tokens of the second sentence, given the first."""
    scored = model.score([f"{first} {second}" for first, second in pairs], method=method, per_token=True)
    return [
        mean([p for p, (start, _) in zip(text.log_probs, text.offsets, strict=True) if start > len(first)])
        for text, (first, _) in zip(scored, pairs, strict=True)
    ]


def _check(texts: Sequence[str], model: LanguageModel) -> None:
    if not hasattr(model, "score"):
        raise InputError(f"model: expected a model, got {type(model).__name__}. Try: fastbert.load(directory)")
    if isinstance(texts, str) or not texts:
        raise InputError("texts: expected a list of at least one text")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            got = "empty" if isinstance(text, str) else f"{type(text).__name__}, not a string"
            raise InputError(f"text {number}: is {got}. Try: leave it out")


def _name(model: Any) -> str:
    """Size of the model, for the signature."""
    config = getattr(getattr(model, "model", None), "config", None)
    if config is None:
        return type(model).__name__
    return f"{config.num_hidden_layers}x{config.hidden_size},{config.vocab_size} pieces"
