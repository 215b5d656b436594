"""Texts under a masked language model: fluency is pseudo-perplexity, coherence what a sentence owes to the one before.

Figures depend on the model: compare texts under one model, not models of different vocabularies on one text
(``bits_per_character``, among the details, can be compared).
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastbert.metrics.score import Score, mean, signature
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.bert import Bert

Method = Literal["l2r", "pll"]
# a sentence ends at . ! ? … (and closing quotes), or at the end of a line
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|\n+")


def perplexity(texts: Sequence[str], model: "Bert | str | Path", *, method: Method = "l2r") -> Score:
    """Fluency: pseudo-perplexity of the texts, exp(−mean log-probability of a token given all others); 1 is best.

    Args:
        texts: not tokenized; each is scored by itself and fits the model.
        model: from :func:`fastbert.load`, or the directory of one.
        method: "l2r" hides the rest of a word with each of its tokens (Kauf & Ivanova 2023), "pll" the token alone.

    Returns:
        The score of all tokens of all texts together, and of each text.

    Raises:
        InputError: no texts, an empty one, one that does not fit the model; a model without a masked-LM head.

    Reference: Salazar et al., Masked Language Model Scoring, 2020.
    """
    bert, name = _open(model)
    _check(texts)
    scored = bert.score(list(texts), method=method, per_token=True)
    count = sum(len(text.log_probs) for text in scored)
    nats = -sum(text.score for text in scored)
    characters = sum(len(text) for text in texts)
    return Score(
        "perplexity",
        math.exp(min(nats / count, 700.0)),
        math.inf,
        signature(model=name, method=method, average="tokens"),
        [text.pseudo_perplexity for text in scored],
        {"tokens": count, "nats_per_token": nats / count, "bits_per_character": nats / math.log(2) / characters},
    )


def coherence(texts: Sequence[str], model: "Bert | str | Path", *, method: Method = "l2r") -> Score:
    """Coherence: how much better a sentence is guessed after the sentence before it than after a stranger, in nats.

    For each sentence but a text's first: the mean over its tokens of log p(token | the sentence before) − log p(token |
    a sentence of elsewhere in the list). 0: the order of the sentences tells the model nothing; more is better. The
    stranger is the one half the list away, so the figure is the same each time.

    Args:
        texts: with some of two or more sentences; a sentence ends at . ! ? … or at the end of a line.
        model, method: as for :func:`perplexity`.

    Returns:
        The mean over all sentences; for a text of one sentence ``per_text`` holds nan.

    Raises:
        InputError: fewer than three sentences, or no text of two; otherwise as :func:`perplexity`.
    """
    bert, name = _open(model)
    _check(texts)
    split = [[part.strip() for part in _SENTENCE_END.split(text) if part.strip()] for text in texts]
    every = [sentence for sentences in split for sentence in sentences]
    if len(every) < 3 or all(len(sentences) < 2 for sentences in split):
        raise InputError("coherence needs texts of several sentences, three or more in all: join the lines of a text")
    pairs: list[tuple[str, str, str]] = []  # before, stranger, sentence
    owner: list[int] = []
    place = 0
    for number, sentences in enumerate(split):
        for index, sentence in enumerate(sentences):
            if index:
                pairs.append((sentences[index - 1], _stranger(every, place, sentences[index - 1], sentence), sentence))
                owner.append(number)
            place += 1
    after = _given(bert, [(before, sentence) for before, _, sentence in pairs], method)
    elsewhere = _given(bert, [(stranger, sentence) for _, stranger, sentence in pairs], method)
    gains = [a - b for a, b in zip(after, elsewhere, strict=True)]
    by_text: list[list[float]] = [[] for _ in split]
    for number, gain in zip(owner, gains, strict=True):
        by_text[number].append(gain)
    return Score(
        "coherence",
        mean(gains),
        math.inf,
        signature(model=name, method=method, context="one sentence", stranger="half the list away"),
        [mean(found) if found else math.nan for found in by_text],
        {"sentences": len(gains), "after_its_predecessor": mean(after), "after_a_stranger": mean(elsewhere)},
    )


def _stranger(every: list[str], place: int, before: str, sentence: str) -> str:
    """The sentence half the list away, or the next that is neither of the two."""
    for step in range(len(every)):
        other = every[(place + len(every) // 2 + step) % len(every)]
        if other not in (before, sentence):
            return other
    return every[0]


def _given(bert: "Bert", pairs: Sequence[tuple[str, str]], method: Method) -> list[float]:
    """Mean log-probability of the tokens of the second sentence, read after the first."""
    scored = bert.score([f"{first} {second}" for first, second in pairs], method=method, per_token=True)
    return [
        mean([p for p, (start, _) in zip(text.log_probs, text.offsets, strict=True) if start > len(first)])
        for text, (first, _) in zip(scored, pairs, strict=True)
    ]


def _check(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not texts:
        raise InputError("texts: expected a list of at least one text")
    if empty := next((n for n, text in enumerate(texts, start=1) if not text.strip()), None):
        raise InputError(f"text {empty} is empty: leave it out")


def _open(model: "Bert | str | Path") -> tuple["Bert", str]:
    """The model, and a name of it for the signature."""
    if not isinstance(model, (str, Path)):
        config = model.model.config
        return model, f"{config.num_hidden_layers}x{config.hidden_size},{config.vocab_size} pieces"
    from fastbert.bert import load

    return load(model), Path(model).name
