"""Views of a model: tokens of a text, attention maps, and a map of its word embeddings.

Legend: V vocabulary, D hidden_size, L tokens, N heads.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbert.bert import Bert
from fastbert.data import TokenStore
from fastbert.system.errors import InputError

MAP_WORDS = 160
MAX_ATTENTION_TOKENS = 40  # more would not be legible


@dataclass(frozen=True)
class Piece:
    """A token of a text."""

    token: str
    id: int
    continues: bool  # the word of the previous token
    special: bool
    unknown: bool


def tokenization(bert: Bert, text: str) -> list[Piece]:
    """The tokens of a text, including special tokens."""
    tokenizer = bert.tokenizer
    encoding = tokenizer.encode(text)
    special = set(tokenizer.special_ids) - {tokenizer.unk_id}
    return [
        Piece(token, i, bool(tokenizer.is_continuation[i]), i in special, i == tokenizer.unk_id)
        for token, i in zip(encoding.tokens, encoding.ids, strict=True)
    ]


def attention(bert: Bert, text: str) -> dict[str, Any]:
    """Maps of all layers and heads for the page's script: bytes 0 … 255 for 0 … 1, base64, (layers, N, L, L).

    Longer texts are truncated at the end of a word.
    """
    text = shortened(bert, text, MAX_ATTENTION_TOKENS)
    tokens, weights = bert.attention(text)
    as_bytes = np.rint(np.clip(weights, 0.0, 1.0) * 255).astype(np.uint8)
    return {
        "tokens": list(tokens), "layers": int(weights.shape[0]), "heads": int(weights.shape[1]),
        "weights": base64.b64encode(as_bytes.tobytes()).decode("ascii"),
    }  # fmt: skip


def shortened(bert: Bert, text: str, most: int) -> str:
    """The text, or as many of its first words as fit in ``most`` tokens."""
    words = text.split(" ")
    while len(bert.tokenizer.encode(" ".join(words)).ids) > most and len(words) > 1:
        words.pop()
    return " ".join(words)


@dataclass(frozen=True)
class WordMap:
    """Words with positions in the plane."""

    words: list[str]  # the most frequent first
    positions: NDArray[np.float64]  # (words, 2)
    explained: float  # share of the vectors' variance along the two axes


def word_map(bert: Bert, run: Path, most: int = MAP_WORDS) -> WordMap | None:
    """The first two principal components of frequent whole words' embeddings (unit length); None for too few words."""
    tokenizer = bert.tokenizer
    counts = piece_counts(bert, run)
    chosen: list[int] = []
    for i in np.argsort(-counts, kind="stable").tolist():
        token = tokenizer.id_to_token(i) or ""
        if len(token) >= 3 and token.isalpha() and not tokenizer.is_continuation[i] and counts[i] > 0:
            chosen.append(i)
        if len(chosen) == most:
            break
    if len(chosen) < 8:
        return None
    table = bert.model.embeddings.word.weight.detach().float().cpu().numpy()[chosen]  # (words, D)
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    centred = unit - unit.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    positions = left[:, :2] * singular[:2]
    # the sign of an axis is arbitrary: the most frequent word is put at the top left
    positions = positions * np.where(positions[0] > 0, -1.0, 1.0)
    explained = float((singular[:2] ** 2).sum() / (singular**2).sum())
    return WordMap([tokenizer.id_to_token(i) or "" for i in chosen], positions, explained)


def piece_counts(bert: Bert, run: Path) -> NDArray[np.int64]:
    """(V,) occurrences in the run's tokens; without them the order of the vocabulary stands for frequency."""
    from fastbert.data.store.token_store import token_counts

    try:
        return token_counts(TokenStore.open(run / "tokens"), len(bert.tokenizer))
    except InputError:
        return np.arange(len(bert.tokenizer), 0, -1, dtype=np.int64)
