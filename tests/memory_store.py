"""A token store in memory; the one on disk is :mod:`fastbert.data.store.token_store`."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray


class MemoryStore:
    """Documents as lists of sentences as lists of token ids (without special tokens).

    Args:
        documents: every sentence must hold at least one token.

    Raises:
        ValueError: an empty sentence.
    """

    def __init__(self, documents: Sequence[Sequence[Sequence[int]]]):
        sentences = list(chain.from_iterable(documents))
        if not all(len(sentence) for sentence in sentences):
            raise ValueError("a sentence is empty: expected at least one token in each")
        self.tokens = np.array(list(chain.from_iterable(sentences)), np.int32)
        self.sentence_offsets = _offsets([len(sentence) for sentence in sentences])
        self._first_sentences = _offsets([len(document) for document in documents])
        self.document_offsets = self.sentence_offsets[self._first_sentences]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def spans(self) -> NDArray[np.int64]:
        """(K, 2) the sentences of every document: all of them as one split."""
        return np.stack([self._first_sentences[:-1], self._first_sentences[1:]], axis=1)

    def gather(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the tokens of ``lengths[k]`` from ``starts[k]`` on, for every k, one after the other."""
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        return self.tokens[np.arange(total) + np.repeat(starts - (ends - lengths), lengths)]


def _offsets(sizes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
