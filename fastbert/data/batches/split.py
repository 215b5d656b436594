"""The split of a corpus into training and held-out text, by whole documents where possible.

Sentences of one document are related, so a split by line would overestimate the model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbert.data.batches.philox import Purpose, check_seed, draw
from fastbert.data.batches.spans import DocumentSpans, item_chunks
from fastbert.data.types import Ints, TokenOffsets
from fastbert.system.errors import InputError

# a smaller corpus is not split: held-out text would be too short to measure anything, and training needs it
MIN_SPLIT_TOKENS = 2000
# enough: the standard error of the accuracy over 150,000 masked tokens is 0.1 %
MAX_HELDOUT_TOKENS = 1_000_000
# held-out tokens may exceed the target by this factor
MAX_OVERSHOOT = 1.25
# if no document is small enough, the smallest is held out unless it is a larger share of the text than this
MAX_HELDOUT_SHARE = 0.2
# documents tried for the remaining room after those that fit for certain
MAX_TRIES = 10_000
NO_SPANS: Ints = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a store, in the order of the text.

    Attributes:
        train: (K, 2) spans of sentences, [first, last + 1) of each document or part of one.
        heldout: (K, 2) int64, the same; (0, 2) if evaluation uses the training text.
        reason: why the split is not by whole documents; "" if it is.
    """

    train: DocumentSpans
    heldout: Ints
    reason: str = ""


def split_documents(
    store: TokenOffsets, fraction: float = 0.05, max_tokens: int = MAX_HELDOUT_TOKENS, seed: int = 0
) -> Split:
    """Hold out random documents with ``fraction`` of the tokens, at most ``max_tokens``.

    The choice is a pure function of the document lengths and the arguments. A document that would exceed the target by
    more than a quarter is skipped. If (nearly) all text is in such large documents, the smallest of them is held out,
    provided it is at most a fifth of the text; otherwise the last sentences of the largest one are.

    Args:
        store: the text.
        fraction: of the tokens, in [0, 1); 0 holds nothing out.
        max_tokens: upper limit of held-out tokens, which may be exceeded by a quarter.
        seed: 0 … 2^64 - 1.

    Raises:
        InputError: fraction or max_tokens out of range.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"held-out fraction {fraction}: expected at least 0 and less than 1")
    if max_tokens < 0:
        raise InputError(f"held-out max_tokens {max_tokens}: expected at least 0")
    check_seed(seed)
    whole = DocumentSpans(store)
    target = min(fraction * store.num_tokens, max_tokens)
    if target == 0:
        return Split(whole, NO_SPANS, "no held-out text was requested")
    if store.num_tokens < MIN_SPLIT_TOKENS:
        return Split(whole, NO_SPANS, f"the text has only {store.num_tokens:,} tokens")
    chosen, largest = _choose(store, target, seed)
    if len(chosen):
        return Split(DocumentSpans(store, without=chosen), whole[chosen])
    return _split_largest(store, whole, largest, target)


@dataclass
class _Candidates:
    """The first documents of a random order, as many as can be chosen."""

    keys: NDArray[np.uint64]
    documents: Ints
    lengths: Ints

    def join(self, keys: NDArray[np.uint64], documents: Ints, lengths: Ints, target: float) -> None:
        """Add documents and drop those beyond the target and :data:`MAX_TRIES`."""
        keys = np.concatenate([self.keys, keys])
        order = np.argsort(keys, kind="stable")
        lengths = np.concatenate([self.lengths, lengths])[order]
        order = order[: int(np.searchsorted(np.cumsum(lengths), target)) + 1 + MAX_TRIES]
        self.keys, self.lengths = keys[order], lengths[: len(order)]
        self.documents = np.concatenate([self.documents, documents])[order]


def _choose(store: TokenOffsets, target: float, seed: int) -> tuple[Ints, int]:
    """Return the documents to hold out, ascending, and the index of the largest document.

    At least one document is kept for training. No document is held out if all are too large.
    """
    found = _Candidates(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    num_documents, small_tokens = len(store.document_offsets) - 1, 0
    largest = smallest_large = (0, -1)  # (tokens, document)
    for documents in item_chunks(num_documents):
        lengths = np.diff(store.document_offsets[documents[0] : documents[-1] + 2])
        small = lengths <= MAX_OVERSHOOT * target
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
        # a few short documents would not represent a corpus of large ones
        tokens, document = smallest_large
        alone = np.array([document], np.int64) if tokens <= MAX_HELDOUT_SHARE * store.num_tokens else nothing
        return alone, largest[1]
    return np.sort(_fill(found, target)[: num_documents - 1]), largest[1]


def _fill(found: _Candidates, target: float) -> Ints:
    """The first documents up to the target, then those that fit into the remaining room."""
    held = np.cumsum(found.lengths)
    count = int(np.searchsorted(held, target))
    chosen = found.documents[:count].tolist()
    total = int(held[count - 1]) if count else 0
    rest = slice(count, count + MAX_TRIES)
    for document, length in zip(found.documents[rest].tolist(), found.lengths[rest].tolist(), strict=True):
        if total < target and total + length <= MAX_OVERSHOOT * target:
            chosen.append(document)
            total += length
    return np.array(chosen, np.int64)


def _keys(documents: Ints, seed: int) -> NDArray[np.uint64]:
    words = draw(seed, 0, Purpose.SPLIT, documents)
    return (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]


def _split_largest(store: TokenOffsets, whole: DocumentSpans, document: int, target: float) -> Split:
    """Hold out the last sentences of one document: at least one, not all."""
    first, last = (int(bound) for bound in whole[document])
    if last - first < 2:
        return Split(whole, NO_SPANS, "each document is a single line, too large to be held out")
    end = int(store.sentence_offsets[last])
    cut = int(np.searchsorted(store.sentence_offsets[first : last + 1], end - target)) + first
    cut = min(max(cut, first + 1), last - 1)
    if end - int(store.sentence_offsets[cut]) > max(MAX_HELDOUT_SHARE * store.num_tokens, MAX_OVERSHOOT * target):
        return Split(whole, NO_SPANS, "the lines of the text are too large to hold one out")
    what = "the text is one document" if len(whole) == 1 else "the documents are too large"
    reason = f"{what}: the last {last - cut:,} lines of the {'text' if len(whole) == 1 else 'largest'} are held out"
    return Split(DocumentSpans(store, shortened=(document, cut)), np.array([[cut, last]], np.int64), reason)
