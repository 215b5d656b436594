"""How much of a held-out text also stands in the training text, line by line.

A model is then tested on what it has read, and its loss says less about text that it has not.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastbert.data.types import Ints, TokenSource

# from the start of each text: a second or two
MAX_COMPARED_TOKENS = 20_000_000
MAX_HELDOUT_TOKENS = 2_000_000
_SENTENCES_AT_ONCE = 1 << 14
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_SHIFT = np.uint64(29)

Hashes = NDArray[np.uint64]


def repeated_share(store: TokenSource, heldout: Ints, train_store: TokenSource | None = None) -> float:
    """The share of held-out tokens in lines that are also lines of the training text, token by token.

    Args:
        store: has the held-out text.
        heldout: (K, 2) spans of sentences.
        train_store: the training text; None: everything else in ``store``.
    """
    held = _sentences(store, heldout)  # (n,) ascending
    hashes, lengths = _hash(store, held)
    known = np.unique(hashes)
    repeated = np.zeros(len(known), bool)
    for index in _chunks(train_store or store):
        others = index if train_store is not None else np.setdiff1d(index, held, assume_unique=True)
        found, _ = _hash(train_store or store, others)
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        repeated[place[known[place] == found]] = True
    return float(lengths[repeated[np.searchsorted(known, hashes)]].sum() / max(lengths.sum(), 1))


def _sentences(store: TokenSource, spans: Ints) -> Ints:
    """The sentences of spans, ascending, up to :data:`MAX_HELDOUT_TOKENS`."""
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.cumsum(np.diff(store.sentence_offsets[spans])[:, 0])
    spans = spans[: int(np.searchsorted(ends, MAX_HELDOUT_TOKENS)) + 1]
    counts = np.diff(spans)[:, 0]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(spans[:, 0], counts) + within


def _chunks(store: TokenSource) -> Iterator[Ints]:
    """The sentences of the first :data:`MAX_COMPARED_TOKENS` tokens, in parts."""
    last = int(np.searchsorted(store.sentence_offsets, MAX_COMPARED_TOKENS, side="right"))
    last = min(last, len(store.sentence_offsets) - 1)
    for first in range(0, last, _SENTENCES_AT_ONCE):
        yield np.arange(first, min(first + _SENTENCES_AT_ONCE, last))


def _hash(store: TokenSource, sentences: Ints) -> tuple[Hashes, Ints]:
    """(n,) a hash of the tokens of each sentence and (n,) their number: a sum of mixed ids times their odd place."""
    if not len(sentences):
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    starts = np.asarray(store.sentence_offsets[sentences], np.int64)
    lengths = np.asarray(store.sentence_offsets[sentences + 1], np.int64) - starts
    ids = store.gather(starts, lengths).astype(np.uint64)
    begins = np.cumsum(lengths) - lengths
    places = (np.arange(len(ids)) - np.repeat(begins, lengths)).astype(np.uint64)
    mixed = (ids + np.uint64(1)) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> _SHIFT)) * (np.uint64(2) * places + np.uint64(1)) * _MULTIPLIER
    return np.add.reduceat(mixed ^ (mixed >> _SHIFT), begins), lengths
