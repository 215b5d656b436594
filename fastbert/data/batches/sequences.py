"""Training sequences as slices of the token store.

A sequence is one or two slices of the store; special tokens are added when a batch is assembled
(:mod:`fastbert.data.batches.batch_plan`). The sequences of an epoch are numbered 0 … n - 1 in text order. The slices of
sequence i are a pure function of (seed, epoch, i), computed on demand; nothing is stored per sequence.

:class:`MlmSequences` cuts running text into windows; :class:`NextSentenceSequences` makes the original BERT's pairs.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastbert.data.batches.philox import EVALUATION_EPOCH, Purpose, below, check_seed, draw, threshold
from fastbert.data.batches.spans import MAX_LISTED_SPANS, DocumentSpans, ListedSpans, RunningSums, Spans
from fastbert.data.types import Ints, TokenSource
from fastbert.system.errors import InputError

SHORTEST_MAX_LENGTH = 8  # [CLS] a b c [SEP] d e [SEP]

# share of single segments among the examples that could be pairs, and of random second segments among the pairs
SINGLE_PROB = 0.2
RANDOM_PROB = 0.5
# share of examples whose segments are runs of sentences that fill the sequence, instead of one sentence each
LONG_PROB = 0.5
# minimum of next-sentence examples per epoch: a text of a few lines has many more pairs than sentences
MIN_EXAMPLES = 256


@dataclass(frozen=True)
class SequenceSlices:
    """The slices of the store that make up n sequences, without special tokens."""

    start_a: Ints  # (n,)
    length_a: Ints  # (n,)
    start_b: Ints  # (n,)
    length_b: Ints  # (n,) 0 without a second segment
    label: Ints  # (n,) 0: B follows A, 1: it does not, -100: ignored

    @property
    def lengths(self) -> Ints:
        """(n,) tokens including [CLS] and one [SEP] per segment."""
        return self.length_a + self.length_b + 2 + (self.length_b > 0)

    def take(self, rows: Ints) -> "SequenceSlices":
        return SequenceSlices(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class Sequences(Protocol):
    """The sequences of every epoch of a split."""

    def count(self, epoch: int) -> int:
        """Return the number of sequences in the epoch."""
        ...

    def slices(self, epoch: int, index: Ints) -> SequenceSlices:
        """Return the slices of the sequences ``index``, (n,) in [0, count(epoch))."""
        ...


def check_spans(store: TokenSource, spans: Ints | DocumentSpans, max_length: int, by_document: bool = False) -> Spans:
    """Check ``spans`` and drop those without tokens.

    Raises:
        InputError: max_length below 8, or no tokens.
        ValueError: spans of the wrong shape or outside the store.
    """
    if max_length < SHORTEST_MAX_LENGTH:
        raise InputError(f"max_length={max_length}: expected at least {SHORTEST_MAX_LENGTH} tokens a sequence")
    if isinstance(spans, DocumentSpans) and len(spans) > MAX_LISTED_SPANS:
        return spans  # documents of a store are never empty
    spans = np.asarray(spans, np.int64)
    if spans.ndim != 2 or spans.shape[1] != 2:
        raise ValueError(f"spans has shape {spans.shape}: expected (K, 2), first and last + 1 sentence of each span")
    sentences = len(store.sentence_offsets) - 1
    if spans.size and not (spans.min() >= 0 and spans.max() <= sentences and (spans[:, 0] <= spans[:, 1]).all()):
        raise ValueError(f"spans: expected ranges of sentences from 0 to {sentences}, the number in the store")
    listed = ListedSpans(store, spans, by_document)
    if not len(listed):
        raise InputError("this split has no tokens. Try: more text, or another held-out fraction")
    return listed


class MlmSequences:
    """Windows of running text: [CLS] up to max_length - 2 tokens of one document [SEP].

    Every token of the split is in exactly one window per epoch. Epoch 0 and evaluation cut documents from their start.
    In later epochs the first window of a document with several windows has a random length, so windows differ between
    epochs.

    Args:
        store: the tokens.
        spans: (K, 2) int64, [first sentence, last sentence + 1) of each document or part of one.
        max_length: maximum tokens per sequence, including special tokens.
        seed: 0 … 2^64 - 1.

    Raises:
        InputError: max_length below 8, or a split without tokens.
    """

    def __init__(self, store: TokenSource, spans: Ints | DocumentSpans, max_length: int, seed: int):
        self.spans = check_spans(store, spans, max_length)
        self.seed = check_seed(seed)
        self.window = max_length - 2
        self._sums: dict[int, RunningSums] = {}  # cache of two epochs: training and evaluation

    def count(self, epoch: int) -> int:
        return self._windows(epoch).total

    def slices(self, epoch: int, index: Ints) -> SequenceSlices:
        span, before = self._windows(epoch).locate(index)
        window = index - before  # within its span
        start, size = self.spans.tokens(span)
        first_length = self._first_length(epoch, span, size)
        begin = np.where(window == 0, 0, first_length + (window - 1) * self.window)
        end = np.minimum(first_length + window * self.window, size)
        none = np.zeros_like(begin)
        return SequenceSlices(start + begin, end - begin, none, none, np.full_like(begin, -100))

    def _first_length(self, epoch: int, span: Ints, size: Ints) -> Ints:
        """(n,) tokens in the first window of each span."""
        first_length = np.minimum(size, self.window)
        if 0 < epoch < EVALUATION_EPOCH:
            long = np.flatnonzero(size > self.window)
            word = draw(self.seed, epoch, Purpose.CUT, self.spans.bounds(span[long])[:, 0])[:, 0]
            first_length[long] = 1 + below(word, self.window)
        return first_length

    def _windows(self, epoch: int) -> RunningSums:
        """The number of windows of each span."""
        sums = self._sums.get(epoch)
        if sums is None:

            def windows(span: Ints) -> Ints:
                _, size = self.spans.tokens(span)
                return 1 + -(-(size - self._first_length(epoch, span, size)) // self.window)

            sums = RunningSums(len(self.spans), windows)
            self._sums = dict(
                [*self._sums.items(), (epoch, sums)][-2:]
            )  # a new dict, because the prefetch thread reads it too
        return sums


class NextSentenceSequences:
    """Single segments and pairs of segments: [CLS] A [SEP] or [CLS] A [SEP] B [SEP].

    Every sentence begins segment A of one example per epoch. One example in five is a single segment (label -100). In
    half of the others B follows A (label 0), in half B comes from a random other document (label 1). The last sentence
    of a document has no successor, so its B is always random. Half of all examples are short, with one sentence per
    segment. Half are long: A and B are runs of sentences that together fill max_length, divided at a random sentence.

    If the split has only one document, a random B is a sentence of that document outside A that does not follow A. (A
    document of two sentences has none, so B follows A.)

    A text of fewer than ``MIN_EXAMPLES`` sentences gives several examples per sentence, so that an epoch, and each
    batch, contains many of the possible pairs.

    Pairs that are too long are truncated, the longer segment first, by random amounts at both ends (Devlin et al.
    remove single tokens from either end).

    Args: as :class:`MlmSequences`.

    Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019.
    """

    def __init__(self, store: TokenSource, spans: Ints | DocumentSpans, max_length: int, seed: int):
        # spans of one document are adjacent
        self.spans = check_spans(store, spans, max_length, by_document=True)
        self.seed = check_seed(seed)
        self.max_length = max_length
        self.store = store
        self.sums = RunningSums(len(self.spans), lambda span: np.diff(self.spans.bounds(span))[:, 0])  # of examples
        self.repeats = -(-MIN_EXAMPLES // self.sums.total)

    @property
    def offsets(self) -> Ints:
        return self.store.sentence_offsets  # asked again each time: the store checks its file

    def count(self, epoch: int) -> int:
        return self.sums.total * self.repeats

    def slices(self, epoch: int, index: Ints) -> SequenceSlices:
        repeat, index = np.divmod(index, self.sums.total)
        span, before = self.sums.locate(index)
        first, end = self.spans.bounds(span).T
        first = first + index - before  # (n,) first sentence of A
        item = first + repeat * (len(self.offsets) - 1)
        # word 0 single? 1 long? 2 where a long pair divides 3 random? | 4 other document 5 its sentence 6, 7 cuts
        words = np.concatenate([draw(self.seed, epoch, Purpose.PAIR, item, block) for block in (0, 1)], axis=1)
        single = words[:, 0] < threshold(SINGLE_PROB)
        last = first + 1 >= end  # it has no successor
        long = words[:, 1] < threshold(LONG_PROB)
        budget = np.where(single, self.max_length - 2, self.max_length - 3)  # (n,) tokens without special ones

        run_end = np.where(long, self._run_end(first, end, budget), np.where(single, first + 1, first + 2))
        run_end = np.minimum(np.maximum(run_end, np.where(single, first + 1, first + 2)), end)
        end_a = np.where(single, run_end, first + 1 + below(words[:, 2], np.maximum(run_end - first - 1, 1)))
        start_a, length_a = self._tokens(first, end_a)
        first_b, end_b = end_a, run_end

        other_first, other_end, found = self._unrelated(span, first, end_a, words)
        single |= last & ~found
        unrelated = ~single & found & (last | (words[:, 3] < threshold(RANDOM_PROB)))
        room = np.maximum(budget - length_a, 1)
        other_run = np.where(long, self._run_end(other_first, other_end, room), other_first + 1)
        first_b = np.where(unrelated, other_first, first_b)
        end_b = np.where(unrelated, np.minimum(other_run, other_end), end_b)
        start_b, length_b = self._tokens(first_b, end_b)
        length_b = np.where(single, 0, length_b)

        kept_a, kept_b = _longest_first(length_a, length_b, budget)
        start_a = start_a + below(words[:, 6], length_a - kept_a + 1)
        start_b = start_b + below(words[:, 7], length_b - kept_b + 1)
        label = np.where(single | (kept_b == 0), -100, unrelated.astype(np.int64))
        return SequenceSlices(start_a, kept_a, np.where(single, 0, start_b), kept_b, label)

    def _tokens(self, first: Ints, end: Ints) -> tuple[Ints, Ints]:
        start = np.asarray(self.offsets[first], np.int64)
        return start, np.asarray(self.offsets[end], np.int64) - start

    def _run_end(self, first: Ints, end: Ints, room: Ints) -> Ints:
        """Return the end of the shortest run of sentences from ``first`` that fills ``room`` tokens."""
        filled = np.searchsorted(self.offsets, np.asarray(self.offsets[first], np.int64) + room, side="left")
        return np.clip(filled, first + 1, np.maximum(end, first + 1))

    def _unrelated(self, span: Ints, first: Ints, end_a: Ints, words: NDArray[np.uint32]) -> tuple[Ints, Ints, Ints]:
        """Return the range of sentences [first, end) for a B that does not follow A, and whether it exists."""
        own_first, own_end = self.spans.own(span)
        own = own_end - own_first
        others = len(self.spans) - own  # (n,) spans of other documents
        pick = below(words[:, 4], np.maximum(others, 1))
        other = np.where(pick >= own_first, pick + own, pick)
        other = np.where(others > 0, other, span)
        begin, end = self.spans.bounds(other).T
        # only one document: all its sentences except A and the one after A
        num_before, after = first - begin, np.minimum(end_a + 1, end)
        num = np.where(others > 0, end - begin, num_before + end - after)
        offset = below(words[:, 5], np.maximum(num, 1))
        is_before = offset < num_before
        fallback = np.where(is_before, begin + offset, after + offset - num_before)
        other_first = np.where(others > 0, begin + offset, np.minimum(fallback, end - 1))
        other_end = np.where((others == 0) & is_before, first, end)  # a run before A must not reach into it
        return other_first, other_end, num > 0


def _longest_first(length_a: Ints, length_b: Ints, budget: Ints) -> tuple[Ints, Ints]:
    """Return the lengths after removing tokens from the longer segment until both fit ``budget``."""
    half = budget // 2
    kept_a = np.where(length_b <= half, np.minimum(length_a, budget - length_b), np.minimum(length_a, budget - half))
    kept_b = np.minimum(length_b, budget - kept_a)
    return kept_a, kept_b
