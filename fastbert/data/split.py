"""Which text is trained on and which is held out for evaluation: whole documents, wherever that is possible.

A sentence of a document tells about the others, so that a split by line would flatter the model.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastbert.errors import InputError
from fastbert.philox import Purpose, check_seed, draw

Ints = NDArray[np.int64]
Spans = NDArray[np.int64]  # (K, 2) [first sentence, last sentence + 1) of a document, or of a part of one

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
        train: (K, 2) int64 spans of sentences, one for each document or part of one.
        heldout: the same; (0, 2) when the evaluation is on the training text.
        reason: why the split is not by whole documents; "" when it is.
    """

    train: Spans
    heldout: Spans
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
    spans = _document_spans(store)
    target = min(fraction * store.num_tokens, max_tokens)
    if target == 0:
        return Split(spans, spans[:0], "nothing was asked to be held out")
    if store.num_tokens < TINY_CORPUS_TOKENS:
        return Split(spans, spans[:0], f"the text has only {store.num_tokens:,} tokens")
    lengths = np.diff(store.document_offsets)
    chosen = _choose(lengths, target, seed)
    if len(chosen):
        heldout = np.zeros(len(spans), bool)
        heldout[chosen] = True
        return Split(spans[~heldout], spans[heldout])
    return _split_largest(store, spans, int(np.argmax(lengths)), target)


def _document_spans(store: Store) -> Spans:
    """(K, 2) the sentences of every document."""
    bounds = np.searchsorted(store.sentence_offsets, store.document_offsets).astype(np.int64)
    return np.stack([bounds[:-1], bounds[1:]], axis=1)


def _choose(lengths: Ints, target: float, seed: int) -> Ints:
    """Return the documents to hold out, never all of them, none when they are too large."""
    if len(lengths) < 2:
        return np.empty(0, np.int64)
    order = _shuffled(np.flatnonzero(lengths <= OVERSHOOT * target), seed)
    held = np.cumsum(lengths[order])
    if not len(order) or held[-1] < target / 2:
        # a few scraps beside large documents would make a poor examination
        large = np.flatnonzero(lengths > OVERSHOOT * target)
        smallest = large[np.argmin(lengths[large])]
        return np.array([smallest] if lengths[smallest] <= LARGEST_PART * lengths.sum() else [], np.int64)
    count = int(np.searchsorted(held, target))
    chosen = order[:count].tolist()
    total = int(held[count - 1]) if count else 0
    for document in order[count : count + MOST_TRIES].tolist():
        if total < target and total + lengths[document] <= OVERSHOOT * target:
            chosen.append(document)
            total += int(lengths[document])
    return np.array(chosen[: len(lengths) - 1], np.int64)


def _shuffled(documents: Ints, seed: int) -> Ints:
    words = draw(seed, 0, Purpose.SPLIT, documents)
    keys = (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]
    return documents[np.argsort(keys, kind="stable")]


def _split_largest(store: Store, spans: Spans, document: int, target: float) -> Split:
    """Hold the last sentences of one document out, at least one and not all."""
    first, last = (int(bound) for bound in spans[document])
    if last - first < 2:
        return Split(spans, spans[:0], "the text is in documents of a single line, too large to be held out")
    end = int(store.sentence_offsets[last])
    cut = int(np.searchsorted(store.sentence_offsets[first : last + 1], end - target)) + first
    cut = min(max(cut, first + 1), last - 1)
    if end - int(store.sentence_offsets[cut]) > max(LARGEST_PART * store.num_tokens, OVERSHOOT * target):
        return Split(spans, spans[:0], "the lines of the text are too large for one to be held out")
    train = spans.copy()
    train[document, 1] = cut
    what = "the text is one document" if len(spans) == 1 else "the documents are too large"
    reason = f"{what}: the last {last - cut:,} lines of the {'text' if len(spans) == 1 else 'largest'} are held out"
    return Split(train, np.array([[cut, last]], np.int64), reason)
