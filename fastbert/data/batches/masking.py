"""Masking for masked language modeling: single tokens, whole words or spans of a packed batch.

Every decision is one Philox word keyed by (seed, epoch, sequence id) with the position in the sequence as counter. A
sequence is therefore masked identically wherever it is packed, for any number of threads, workers or ranks. The word is
compared with a threshold that grows with the rate, so a higher rate masks a superset of the tokens or words.
``csrc/data/masker.cpp`` is the fast, byte-identical twin of :func:`_mask_reference`.

Legend: B sequences, T packed tokens, V vocabulary, M masked positions.

References: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019 (80/10/10, whole words);
Joshi et al., "SpanBERT: Improving Pre-training by Representing and Predicting Spans", 2020;
Sahoo et al., "Simple and Effective Masked Diffusion Language Models", 2024 (one rate per sequence, weight 1 / rate).
"""

import functools
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fastbert.data.batches.philox import Purpose, below, check_seed, draw, threshold
from fastbert.system.errors import InputError
from fastbert.system.native import core

MaskUnit = Literal["token", "word", "span"]

# objective "diffusion": a sequence with few masked tokens must not dominate the loss
MAX_LABEL_WEIGHT = 10.0

# span lengths of SpanBERT: geometric with p = 0.2 on 1 … 10 units, mean 3.8
SPAN_P = 0.2
MAX_SPAN = 10

SPECIAL, CONTINUATION = 1, 2  # bits of Masker.flags
_NO_SPANS = np.zeros(MAX_SPAN, np.uint64)


class Masked(NamedTuple):
    """The tokens that :meth:`Masker.mask` selected."""

    masked_index: NDArray[np.int64]  # (M,) rows of the batch, ascending
    labels: NDArray[np.int64]  # (M,) original tokens


class Masker:
    """Masks packed batches in place.

    Args:
        mask_id: id of [MASK].
        vocab_size: V; random replacements are drawn uniformly from the ids below it that are not special (the original
            BERT and Hugging Face's collator draw special ids too).
        special_ids: ids that are never masked; they also end a word or a span.
        unit: "token"; "word": all pieces of a selected word, each with its own 80/10/10 draw; "span": runs of 1 … 10
            words (tokens without ``is_continuation``) of geometric length, each replaced as a whole.
        is_continuation: (V,) non-zero for tokens that continue a word ("##ing").
        mask_prob: share of the selected tokens that become [MASK].
        random_prob: share that becomes a random token; the rest is unchanged.
        impl: "auto", "cpp" or "reference".

    Raises:
        InputError: a value outside its range.
    """

    def __init__(
        self,
        *,
        mask_id: int,
        vocab_size: int,
        special_ids: Iterable[int],
        unit: MaskUnit = "token",
        is_continuation: NDArray[np.uint8] | None = None,
        mask_prob: float = 0.8,
        random_prob: float = 0.1,
        impl: str = "auto",
    ):
        if unit not in get_args(MaskUnit):
            raise InputError(f"mask unit {unit!r}: expected one of {', '.join(get_args(MaskUnit))}")
        if not (mask_prob >= 0 and random_prob >= 0 and mask_prob + random_prob <= 1 + 1e-9):
            raise InputError(
                f"mask_prob={mask_prob}, random_prob={random_prob}: expected two probabilities that sum to at most 1"
            )
        specials = np.unique(np.asarray(list(special_ids), np.int64))
        if specials.size and not 0 <= specials[0] <= specials[-1] < vocab_size:
            raise InputError(
                f"special_ids {specials.tolist()}: expected ids from 0 to vocab_size - 1 = {vocab_size - 1}"
            )
        if not 0 <= mask_id < vocab_size:
            raise InputError(f"mask_id={mask_id}: expected an id from 0 to vocab_size - 1 = {vocab_size - 1}")
        if specials.size == vocab_size and random_prob > 0:
            raise InputError(
                f"random_prob={random_prob}: all {vocab_size} ids are special, none to draw. Try: random_prob=0"
            )
        flags = np.zeros(vocab_size, np.uint8)
        if is_continuation is not None:
            if np.shape(is_continuation) != (vocab_size,):
                raise ValueError(f"is_continuation has shape {np.shape(is_continuation)}: expected ({vocab_size},)")
            flags[np.asarray(is_continuation) != 0] = CONTINUATION
        elif unit == "word":
            raise ValueError('unit="word" requires is_continuation, (vocab_size,)')
        flags[specials] = SPECIAL  # a special token is its own word
        self.unit: MaskUnit = unit
        self._unit_number = get_args(MaskUnit).index(unit)
        self.mask_id, self.vocab_size, self.special_ids, self.flags = int(mask_id), int(vocab_size), specials, flags
        self.mask_below = threshold(mask_prob)
        self.random_below = min(2**32, self.mask_below + threshold(random_prob))
        self.core = core(impl)

    def mask(
        self,
        input_ids: NDArray[np.int64],
        cu_seqlens: NDArray[np.int32],
        sequence_ids: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        rate: float | NDArray[np.float64],
    ) -> Masked:
        """Select tokens of a packed batch and replace them in place.

        Every maskable token is selected with probability ``rate`` for every unit. If no unit of a batch is selected
        although the rate is not 0, the unit with the smallest random word is, so the loss is never 0 / 0. (This is the
        only case that depends on the rest of the batch.)

        Args:
            input_ids: (T,) int64, contiguous; modified in place.
            cu_seqlens: (B + 1,) int32, cumulative lengths.
            sequence_ids: (B,) int64 in [0, 2^56), index of each sequence in the epoch.
            seed: 0 … 2^64 - 1.
            epoch: 0 … 2^32 - 1.
            rate: share of the maskable tokens, 0 … 1; for unit "token" or "word" also (B,), one per sequence.

        Returns:
            The selected rows and their original tokens.

        Raises:
            InputError: rate outside 0 … 1.
            ValueError: wrong shape or dtype, or an id outside the vocabulary.
        """
        if np.ndim(rate):
            select_below, span_below, run_below = self._thresholds_of_each(np.asarray(rate)), _NO_SPANS, _NO_SPANS
        else:
            select_below, span_below, run_below = _thresholds(float(rate), self.unit == "span")
        if self.core is None:
            check_seed(seed)
            _check_batch(input_ids, cu_seqlens, sequence_ids)
            outside = np.flatnonzero((input_ids < 0) | (input_ids >= self.vocab_size))
            first_outside = int(outside[0]) if outside.size else -1
            if first_outside < 0:
                select_below = np.broadcast_to(select_below, sequence_ids.shape)
                return _mask_reference(
                    self, input_ids, cu_seqlens, sequence_ids, seed, epoch, select_below, span_below, run_below
                )
        else:
            try:
                first_outside, masked_index, labels = self.core.mask_batch(
                    input_ids, cu_seqlens, sequence_ids, select_below, self.flags, self.special_ids, seed, epoch,
                    self._unit_number, self.mask_id, self.mask_below, self.random_below, span_below, run_below,
                )  # fmt: skip
            except (TypeError, ValueError):  # checked only now, because the checks take longer than masking
                check_seed(seed)
                _check_batch(input_ids, cu_seqlens, sequence_ids)
                raise
            if first_outside < 0:
                return Masked(masked_index, labels)
        raise ValueError(
            f"input_ids[{first_outside}] is {input_ids[first_outside]}: expected an id from 0 to vocab_size - 1 = "
            f"{self.vocab_size - 1}"
        )

    @functools.cached_property
    def ordinary_ids(self) -> NDArray[np.int64]:
        """Ids of random replacements, ascending."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    def _thresholds_of_each(self, rates: NDArray[np.float64]) -> NDArray[np.uint64]:
        if self.unit == "span":
            raise ValueError('rate per sequence: requires unit "token" or "word", got "span"')
        outside = np.flatnonzero(~((rates >= 0) & (rates <= 1)))
        if outside.size:
            _thresholds(float(rates[outside[0]]), False)
        return np.where(rates > 0, np.maximum(1, (rates * 2.0**32).astype(np.uint64)), 0).astype(np.uint64)


def diffusion_rates(
    sequence_ids: NDArray[np.int64], *, seed: int, epoch: int, impl: str = "auto"
) -> NDArray[np.float64]:
    """Draw the mask rate of each sequence, uniform on (0, 1]: the noise level of masked diffusion.

    A pure function of each sequence id; packing does not matter.

    Args:
        sequence_ids: (B,) int64 in [0, 2^56).
        seed: 0 … 2^64 - 1.
        epoch: 0 … 2^32 - 1.
        impl: "auto", "cpp" or "reference".

    Returns:
        (B,) float64, whole multiples of 2^-32.
    """
    native = core(impl)
    if native is None:
        words = draw(check_seed(seed), epoch, Purpose.RATE, sequence_ids)[:, 0]
    else:
        words = native.draw_first(check_seed(seed), epoch, int(Purpose.RATE), sequence_ids)
    return (words.astype(np.float64) + 1) / 2.0**32


def label_weights(masked: Masked, cu_seqlens: NDArray[np.int32], rates: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (M,) float32, the loss weight of every masked token: 1 / rate of its sequence, at most 10.

    The weights of a sequence sum to about its number of maskable tokens for any rate. The diffusion bound on the
    likelihood is the weighted sum of the cross entropies, divided by the maskable tokens for a mean.

    Args:
        masked: result for the batch.
        cu_seqlens: (B + 1,) int32, cumulative lengths.
        rates: (B,) mask rates of the batch.
    """
    num_masked = np.diff(np.searchsorted(masked.masked_index, cu_seqlens))
    weights = 1 / np.maximum(rates, 1 / MAX_LABEL_WEIGHT)
    return np.repeat(weights.astype(np.float32), num_masked)


def span_thresholds(rate: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return (span_below, run_below), each (10,): a word below entry k but not k - 1 starts a span of k + 1 units.

    Outside a span every unit starts one with probability q. With mean length m the masked share is rate if
    q = rate / (rate + m (1 - rate)). This holds from the first unit on if the walk starts in its stationary state: the
    first unit of a run (``run_below``) is inside a span with probability rate, with k units left in proportion to
    P(length >= k).
    """
    pmf = SPAN_P * (1 - SPAN_P) ** np.arange(MAX_SPAN)
    pmf /= pmf.sum()
    mean = float(pmf @ np.arange(1, MAX_SPAN + 1))
    starts = rate / (rate + mean * (1 - rate))
    at_least = pmf[::-1].cumsum()[::-1]
    return _cumulative(starts * pmf, starts), _cumulative(rate * at_least / mean, rate)


@functools.lru_cache(maxsize=1024)
def _thresholds(rate: float, spans: bool) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return select_below (1,), span_below (10,) and run_below (10,) for a rate."""
    if not 0 <= rate <= 1:
        raise InputError(f"mask rate {rate}: expected a share of the tokens from 0 to 1 (BERT uses 0.15)")
    return np.array([threshold(rate)], np.uint64), *(span_thresholds(rate) if spans else (_NO_SPANS, _NO_SPANS))


def _cumulative(parts: NDArray[np.floating[Any]], total: float) -> NDArray[np.uint64]:
    ends = (np.cumsum(parts) * 2.0**32).astype(np.uint64)
    ends[-1] = threshold(total)  # without rounding: rate 1 selects all
    return np.minimum(ends, ends[-1])


def _check_batch(input_ids: Any, cu_seqlens: Any, sequence_ids: Any) -> None:
    expected = {"input_ids": (input_ids, np.int64), "cu_seqlens": (cu_seqlens, np.int32)}
    expected["sequence_ids"] = (sequence_ids, np.int64)
    for name, (array, dtype) in expected.items():
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"{name}: expected a 1-d numpy array of {np.dtype(dtype).name}, got {_describe(array)}")
    if not (input_ids.flags.c_contiguous and input_ids.flags.writeable):
        raise ValueError("input_ids is not contiguous and writable, but it is modified in place. Try: a copy")
    if len(cu_seqlens) != len(sequence_ids) + 1:
        raise ValueError(f"cu_seqlens has {len(cu_seqlens)} entries: expected one more than the sequence_ids")
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != len(input_ids) or (np.diff(cu_seqlens) < 0).any():
        raise ValueError(f"cu_seqlens: expected cumulative lengths from 0 to {len(input_ids)}, the number of input_ids")
    if sequence_ids.size and not (sequence_ids.min() >= 0 and sequence_ids.max() < 2**56):
        raise ValueError("sequence_ids: expected whole numbers from 0 to 2^56 - 1")


def _describe(array: Any) -> str:
    return f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__


def _mask_reference(
    masker: Masker,
    input_ids: NDArray[np.int64],
    cu_seqlens: NDArray[np.int32],
    sequence_ids: NDArray[np.int64],
    seed: int,
    epoch: int,
    select_below: NDArray[np.uint64],
    span_below: NDArray[np.uint64],
    run_below: NDArray[np.uint64],
) -> Masked:
    """The readable twin of ``csrc/data/masker.cpp``."""
    lengths = np.diff(cu_seqlens)
    sequence = np.repeat(np.arange(len(lengths)), lengths)  # (T,) sequence of each row
    position = np.arange(len(input_ids)) - cu_seqlens[sequence]  # (T,) position in the sequence
    item = sequence_ids[sequence]
    # word p % 4 of block p // 4 belongs to position p
    word = draw(seed, epoch, Purpose.SELECT, item, position // 4)[np.arange(len(position)), position % 4]

    special = masker.flags[input_ids] == SPECIAL
    if masker.unit == "token":
        starts = ~special
    else:
        after_break = (position == 0) | np.roll(special, 1)
        starts = ~special & (after_break | (masker.flags[input_ids] != CONTINUATION))
    unit_start = np.maximum.accumulate(
        np.where(starts | special, np.arange(len(input_ids)), 0)
    )  # (T,) first row of the unit
    live = select_below[sequence] > 0

    span_start = unit_start
    if masker.unit == "span":
        span_start = _choose_spans(word, starts & live, special | (position == 0), span_below, run_below)[unit_start]
        selected = ~special & (span_start >= 0)
    else:
        selected = ~special & (word.astype(np.uint64) < select_below[sequence])[unit_start]
    rows = np.flatnonzero(selected)
    candidates = np.flatnonzero(starts & live)
    if not rows.size and candidates.size:
        smallest = candidates[np.argmin(word[candidates])]
        rows = np.flatnonzero((unit_start == smallest) & ~special)
        span_start = unit_start

    labels = input_ids[rows]
    block = draw(seed, epoch, Purpose.REPLACE, item[rows], position[rows])
    action = block[:, 0]
    if masker.unit == "span":  # a span is replaced as a whole
        action = action[np.searchsorted(rows, span_start[rows])]
    ordinary = masker.ordinary_ids
    random_token = ordinary[below(block[:, 1], len(ordinary))] if len(ordinary) else labels
    becomes_random = action.astype(np.uint64) < np.uint64(masker.random_below)
    becomes_mask = action.astype(np.uint64) < np.uint64(masker.mask_below)
    input_ids[rows] = np.where(becomes_mask, masker.mask_id, np.where(becomes_random, random_token, labels))
    return Masked(rows, labels)


def _choose_spans(word, starts, breaks, span_below, run_below) -> NDArray[np.int64]:
    """Return, for each row that starts a unit, the first row of its span or -1, (T,)."""
    span_start = np.full(len(word), -1)
    remaining, current, after_break = 0, -1, True
    for row in np.flatnonzero(starts | breaks).tolist():
        if breaks[row]:
            after_break = True
        if not starts[row]:
            continue
        remaining -= 1
        if after_break or remaining <= 0:
            table = run_below if after_break else span_below
            length = int(np.searchsorted(table, word[row], side="right")) + 1
            remaining, current = (length, row) if length <= MAX_SPAN else (0, -1)
        after_break = False
        span_start[row] = current
    return span_start
