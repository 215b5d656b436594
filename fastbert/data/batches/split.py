"""Which text is trained on and which is held out for evaluation: whole documents, wherever that is possible.

A sentence of a document tells about the others, so that a split by line would flatter the model.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastbert.data.batches.philox import Purpose, check_seed, draw
from fastbert.data.batches.spans import DocumentSpans, parts
from fastbert.system.errors import InputError

Ints = NDArray[np.int64]

# of fewer tokens nothing is held out: they say nothing about unseen text, and the model needs them
TINY_CORPUS_TOKENS = 2000
# more tell no more: the standard error of the accuracy over 150,000 masks is 0.1 %
MAX_HELDOUT_TOKENS = 1_000_000
# what is held out may be this much more than what was asked for
OVERSHOOT = 1.25
# where no document is small enough, the smallest one is held out if it is not a larger part of the text than this
LARGEST_PART = 0.2
# documents tried for the last place, behind those that fit without a question
MOST_TRIES = 10_000
NONE: Ints = np.empty((0, 2), np.int64)


class Store(Protocol):
    """What is needed of :class:`fastbert.data.TokenStore`."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def document_offsets(self) -> Ints: ...  # (documents + 1,) token positions
    @property
    def sentence_offsets(self) -> Ints: ...  # (sentences + 1,) token positions


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a store, in the order of the text.

    Attributes:
        train: (K, 2) spans of sentences, [first, last + 1) of each document or part of one.
        heldout: (K, 2) int64, the same; (0, 2) when the evaluation is on the training text.
        reason: why the split is not by whole documents; "" when it is.
    """

    train: DocumentSpans
    heldout: Ints
    reason: str = ""


def split_documents(store: Store, fraction: float = 0.05, max_tokens: int = MAX_HELDOUT_TOKENS, seed: int = 0) -> Split:
    """Choose documents at random until ``fraction`` of the tokens, but no more than ``max_tokens``, is held out.

    The choice is a pure function of the lengths of the documents and the arguments. A document that would overshoot by
    more than a quarter is passed over. Where (nearly) all of the text is in documents that large, the smallest of them
    is held out, if it is no more than a fifth of the text; else the last sentences of the largest one are.

    Args:
        store: the text.
        fraction: of the tokens, in [0, 1); 0 holds nothing out.
        max_tokens: most tokens held out, but for the overshoot.
        seed: 0 … 2^64 - 1.

    Raises:
        InputError: fraction or max_tokens out of range.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"heldout fraction {fraction}: expected at least 0 and less than 1")
    if max_tokens < 0:
        raise InputError(f"heldout max_tokens {max_tokens}: expected at least 0")
    check_seed(seed)
    whole = DocumentSpans(store)
    target = min(fraction * store.num_tokens, max_tokens)
    if target == 0:
        return Split(whole, NONE, "nothing was asked to be held out")
    if store.num_tokens < TINY_CORPUS_TOKENS:
        return Split(whole, NONE, f"the text has only {store.num_tokens:,} tokens")
    chosen, largest = _choose(store, target, seed)
    if len(chosen):
        return Split(DocumentSpans(store, without=chosen), whole[chosen])
    return _split_largest(store, whole, largest, target)


@dataclass
class _Candidates:
    """The documents that come first in a random order, as far as they can matter."""

    keys: NDArray[np.uint64]
    documents: Ints
    lengths: Ints

    def join(self, keys: NDArray[np.uint64], documents: Ints, lengths: Ints, target: float) -> None:
        """Take more documents in, and let go of those behind the target and the tries after it."""
        keys = np.concatenate([self.keys, keys])
        order = np.argsort(keys, kind="stable")
        lengths = np.concatenate([self.lengths, lengths])[order]
        order = order[: int(np.searchsorted(np.cumsum(lengths), target)) + 1 + MOST_TRIES]
        self.keys, self.lengths = keys[order], lengths[: len(order)]
        self.documents = np.concatenate([self.documents, documents])[order]


def _choose(store: Store, target: float, seed: int) -> tuple[Ints, int]:
    """Return the documents to hold out, ascending, and the number of the largest document.

    Never all are held out; none, when they are too large.
    """
    found = _Candidates(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    num_documents, small_tokens = len(store.document_offsets) - 1, 0
    largest = smallest_large = (0, -1)  # (tokens, document)
    for documents in parts(num_documents):
        lengths = np.diff(store.document_offsets[documents[0] : documents[-1] + 2])
        small = lengths <= OVERSHOOT * target
        small_tokens += int(lengths[small].sum())
        found.join(_keys(documents[small], seed), documents[small], lengths[small], target)
        longest = int(np.argmax(lengths))
        largest = max(largest, (int(lengths[longest]), int(documents[longest])), key=lambda pair: pair[0])
        if not small.all():
            shortest = int(np.argmin(np.where(small, np.iinfo(np.int64).max, lengths)))
            one = (int(lengths[shortest]), int(documents[shortest]))
            smallest_large = one if smallest_large[1] < 0 else min(smallest_large, one, key=lambda pair: pair[0])
    nothing = np.empty(0, np.int64)
    if num_documents < 2:
        return nothing, largest[1]
    if not len(found.documents) or small_tokens < target / 2:
        # a few scraps beside large documents would make a poor examination
        tokens, document = smallest_large
        alone = np.array([document], np.int64) if tokens <= LARGEST_PART * store.num_tokens else nothing
        return alone, largest[1]
    return np.sort(_fill(found, target)[: num_documents - 1]), largest[1]


def _fill(found: _Candidates, target: float) -> Ints:
    """As many of the first documents as stay below the target, then those that fit the rest."""
    held = np.cumsum(found.lengths)
    count = int(np.searchsorted(held, target))
    chosen = found.documents[:count].tolist()
    total = int(held[count - 1]) if count else 0
    rest = slice(count, count + MOST_TRIES)
    for document, length in zip(found.documents[rest].tolist(), found.lengths[rest].tolist(), strict=True):
        if total < target and total + length <= OVERSHOOT * target:
            chosen.append(document)
            total += length
    return np.array(chosen, np.int64)


def _keys(documents: Ints, seed: int) -> NDArray[np.uint64]:
    words = draw(seed, 0, Purpose.SPLIT, documents)
    return (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]


def _split_largest(store: Store, whole: DocumentSpans, document: int, target: float) -> Split:
    """Hold the last sentences of one document out, at least one and not all."""
    first, last = (int(bound) for bound in whole[document])
    if last - first < 2:
        return Split(whole, NONE, "the text is in documents of a single line, too large to be held out")
    end = int(store.sentence_offsets[last])
    cut = int(np.searchsorted(store.sentence_offsets[first : last + 1], end - target)) + first
    cut = min(max(cut, first + 1), last - 1)
    if end - int(store.sentence_offsets[cut]) > max(LARGEST_PART * store.num_tokens, OVERSHOOT * target):
        return Split(whole, NONE, "the lines of the text are too large for one to be held out")
    what = "the text is one document" if len(whole) == 1 else "the documents are too large"
    reason = f"{what}: the last {last - cut:,} lines of the {'text' if len(whole) == 1 else 'largest'} are held out"
    return Split(DocumentSpans(store, shortened=(document, cut)), np.array([[cut, last]], np.int64), reason)
