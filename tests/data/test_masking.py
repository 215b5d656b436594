"""The masker: statistics, invariances, and equal results of its two implementations."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.data.batches.masking import (
    CONTINUATION,
    MAX_SPAN,
    SPAN_P,
    Masked,
    Masker,
    diffusion_rates,
    label_weights,
    span_thresholds,
)
from fastbert.system.errors import InputError
from support import need_core

PAD, UNK, CLS, SEP, MASK = SPECIALS = range(5)
VOCAB = 1000
IS_CONTINUATION = (np.arange(VOCAB) % 3 == 0).astype(np.uint8)
UNITS = ("token", "word", "span")


def make_batch(seed, num_sequences, shortest=3, longest=128):
    """[CLS] words [SEP], as the loader makes them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, num_sequences)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    input_ids = rng.integers(len(SPECIALS), VOCAB, cu_seqlens[-1])
    input_ids[cu_seqlens[:-1]], input_ids[cu_seqlens[1:] - 1] = CLS, SEP
    return input_ids, cu_seqlens, rng.integers(0, 2**56, num_sequences)


def make_masker(unit="token", impl="reference", **options):
    options = {"mask_id": MASK, "vocab_size": VOCAB, "special_ids": SPECIALS, **options}
    return Masker(unit=unit, is_continuation=IS_CONTINUATION, impl=impl, **options)


def apply(masker, batch, seed=1, epoch=0, rate=0.15):
    input_ids = batch[0].copy()
    return input_ids, *masker.mask(input_ids, *batch[1:], seed=seed, epoch=epoch, rate=rate)


# ---- what is chosen and what stands in its place ----


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4])
def test_rates(unit, rate, impl):
    """Exactly the wished part, for every position of a sequence; 80/10/10 of it."""
    batch = make_batch(0, 1500 if impl == "cpp" else 600)
    masked_ids, index, labels = apply(make_masker(unit, impl), batch, rate=rate)
    maskable = np.flatnonzero(batch[0] >= len(SPECIALS))
    # words and spans come in lumps: their variance is larger by about the lump's size
    lump = {"token": 1, "word": 2, "span": 8}[unit]
    sigma = np.sqrt(lump * rate * (1 - rate) / len(maskable))
    assert abs(len(index) / len(maskable) - rate) < 5 * sigma
    first = batch[1][:-1] + 1  # right after [CLS]: the walk begins in its stationary state
    first = first[batch[0][first] >= len(SPECIALS)]
    assert abs(np.isin(first, index).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / len(first))

    sigma = np.sqrt(lump * 0.8 * 0.2 / len(index))
    is_mask, is_kept = masked_ids[index] == MASK, masked_ids[index] == labels
    assert abs(is_mask.mean() - 0.8) < 5 * sigma
    assert abs(is_kept.mean() - 0.1 * (1 + 1 / VOCAB)) < 5 * sigma


@pytest.mark.parametrize("unit", UNITS)
def test_only_masked_rows_change_and_specials_never(unit, impl):
    batch = make_batch(1, 200)
    batch[0][::17] = UNK
    masked_ids, index, labels = apply(make_masker(unit, impl), batch, rate=0.5)
    assert np.array_equal(labels, batch[0][index]) and (np.diff(index) > 0).all()
    assert (labels >= len(SPECIALS)).all()
    others = np.setdiff1d(np.arange(len(batch[0])), index)
    assert np.array_equal(masked_ids[others], batch[0][others])
    assert np.isin(masked_ids[masked_ids != batch[0]], [MASK, *range(len(SPECIALS), VOCAB)]).all()


def test_random_tokens_are_even_and_never_special(impl):
    specials = [0, 3, 4, 500, VOCAB - 1]  # at both ends and in the middle
    ids = np.full(400_000 if impl == "cpp" else 100_000, 7)
    masker = make_masker(impl=impl, special_ids=specials, mask_id=4, mask_prob=0.0, random_prob=1.0)
    masker.mask(ids, np.array([0, len(ids)], np.int32), np.array([0]), seed=3, epoch=0, rate=1.0)
    counts = np.bincount(ids, minlength=VOCAB)
    assert not counts[specials].any()
    ordinary = np.delete(counts, specials)
    expected = len(ids) / len(ordinary)
    chi_square = ((ordinary - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(ordinary)) < 5 * np.sqrt(2 * len(ordinary))


def words_of(input_ids, cu_seqlens):
    """Rows of each word, found the slow way."""
    words = []
    for begin, end in pairwise(cu_seqlens):
        open_word = False
        for row in range(begin, end):
            if input_ids[row] in SPECIALS:
                open_word = False
            elif open_word and IS_CONTINUATION[input_ids[row]]:
                words[-1].append(row)
            else:
                words.append([row])
                open_word = True
    return words


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_are_never_torn(unit, impl):
    batch = make_batch(2, 60)
    batch[0][5::29] = SEP
    _, index, _ = apply(make_masker(unit, impl), batch, rate=0.3)
    chosen = set(index.tolist())
    torn = [word for word in words_of(*batch[:2]) if 0 < len(chosen & set(word)) < len(word)]
    assert not torn and chosen


def test_pieces_of_a_word_act_alone_and_a_span_acts_as_one(impl):
    batch = make_batch(3, 300)
    word_ids, index, _ = apply(make_masker("word", impl), batch, rate=0.2)
    chosen = set(index.tolist())
    pairs = [w for w in words_of(*batch[:2]) if len(w) > 1 and w[0] in chosen]
    mixed = sum((word_ids[w[0]] == MASK) != (word_ids[w[1]] == MASK) for w in pairs) / len(pairs)
    assert abs(mixed - 2 * 0.8 * 0.2) < 5 * np.sqrt(0.32 * 0.68 / len(pairs))

    # one token a word, low rate: two neighbouring spans are rare, so a run of masked rows is one span
    masker = make_masker("span", impl, random_prob=0.2)
    masker.flags[masker.flags == CONTINUATION] = 0
    span_ids, index, _ = apply(masker, batch, rate=0.02)
    runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    mixed = [run for run in runs if 0 < (span_ids[run] == MASK).sum() < len(run)]
    assert len(mixed) <= 0.02 * len(runs)


def test_span_lengths_are_geometric(impl):
    """Inner spans at a low rate, tokens as units: the lengths of SpanBERT, chi-square."""
    length = 400_000 if impl == "cpp" else 100_000
    ids = np.full(length, 7)
    cu_seqlens = np.array([0, length], np.int32)
    masker = Masker(mask_id=MASK, vocab_size=VOCAB, special_ids=SPECIALS, unit="span", impl=impl)
    index, _ = masker.mask(ids, cu_seqlens, np.array([1]), seed=11, epoch=0, rate=0.02)
    runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)[1:-1]
    counts = np.bincount([len(run) for run in runs], minlength=MAX_SPAN + 1)[1 : MAX_SPAN + 1]
    pmf = SPAN_P * (1 - SPAN_P) ** np.arange(MAX_SPAN)
    expected = counts.sum() * pmf / pmf.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # neighbouring spans (0.5 %) merge, so a little more than chance is allowed: 9 degrees, 5 sigma, and 10
    assert chi_square < 9 + 5 * np.sqrt(18) + 10


@given(st.floats(0, 1))
def test_span_thresholds_are_a_stationary_walk(rate):
    """One step of the walk leaves P(inside) where it was."""
    span_below, run_below = (np.diff(t.astype(float), prepend=0) / 2**32 for t in span_thresholds(rate))
    inside = run_below.sum()  # with k units left, k = 1 ... 10
    assert inside == pytest.approx(rate, abs=1e-8)
    may_start = 1 - inside + run_below[0]
    after = np.append(run_below[1:], 0) + may_start * span_below
    assert np.allclose(after, run_below, atol=1e-8)


# ---- invariances ----


@pytest.mark.parametrize("unit", UNITS)
def test_a_sequence_is_masked_alike_wherever_it_is_packed(unit, impl):
    """Reversed order, and each sequence alone in its batch (every one has a masked token here, so no fallback)."""
    masker = make_masker(unit, impl)
    input_ids, cu_seqlens, sequence_ids = make_batch(4, 40, shortest=100, longest=3000)
    whole, *_ = apply(masker, (input_ids, cu_seqlens, sequence_ids), rate=0.4)
    pieces = np.split(input_ids, cu_seqlens[1:-1])
    backwards = np.concatenate(pieces[::-1])
    lengths = np.diff(cu_seqlens)
    cu_backwards = np.concatenate([[0], np.cumsum(lengths[::-1])]).astype(np.int32)
    masked, *_ = apply(masker, (backwards, cu_backwards, sequence_ids[::-1].copy()), rate=0.4)
    assert np.array_equal(np.concatenate(np.split(masked, cu_backwards[1:-1])[::-1]), whole)
    for b in range(0, 40, 7):
        batch = (pieces[b], np.array([0, lengths[b]], np.int32), sequence_ids[b : b + 1])
        assert np.array_equal(apply(masker, batch, rate=0.4)[0], np.split(whole, cu_seqlens[1:-1])[b])


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
@pytest.mark.parametrize("unit", UNITS)
def test_seed_and_epoch_change_the_mask(change, unit, impl):
    batch, masker = make_batch(5, 50), make_masker(unit, impl)
    assert not np.array_equal(apply(masker, batch)[1], apply(masker, batch, **change)[1])
    assert np.array_equal(apply(masker, batch)[1], apply(masker, batch)[1])


@pytest.mark.parametrize("unit", ["token", "word"])
def test_a_higher_rate_masks_the_same_and_more(unit, impl):
    batch, masker = make_batch(6, 100), make_masker(unit, impl)
    low_ids, low, _ = apply(masker, batch, rate=0.1)
    high_ids, high, _ = apply(masker, batch, rate=0.3)
    assert set(low) < set(high)
    assert np.array_equal(low_ids[low], high_ids[low])  # and with the same tokens in their place


def test_rate_of_each_sequence(impl):
    batch = make_batch(7, 300, shortest=100)
    rates = np.tile([0.0, 0.2, 1.0], 100)
    _, index, _ = apply(make_masker(impl=impl), batch, rate=rates)
    chosen, maskable = np.zeros(len(batch[0])), batch[0] >= len(SPECIALS)
    chosen[index] = 1
    sequence = np.repeat(np.arange(300), np.diff(batch[1]))
    for kind, rate in enumerate((0.0, 0.2, 1.0)):
        part = chosen[maskable & (sequence % 3 == kind)]
        assert abs(part.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / len(part))


@given(
    ids=st.lists(st.integers(0, 2**56 - 1), max_size=70),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
)
def test_diffusion_rates_are_alike_in_both(ids, seed, epoch):
    need_core()
    ids = np.array(ids, np.int64)
    rates = [diffusion_rates(ids, seed=seed, epoch=epoch, impl=i) for i in ("cpp", "reference")]
    assert np.array_equal(*rates) and rates[0].dtype == np.float64
    assert ((rates[0] > 0) & (rates[0] <= 1)).all()


def test_diffusion_rates_are_even_and_pure(impl):
    rates = diffusion_rates(np.arange(20_000), seed=1, epoch=2, impl=impl)
    counts, _ = np.histogram(rates, 20, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 19 + 5 * np.sqrt(38)
    assert np.array_equal(diffusion_rates(np.arange(7, 9), seed=1, epoch=2, impl=impl), rates[7:9])
    assert not np.array_equal(diffusion_rates(np.arange(20_000), seed=2, epoch=2, impl=impl), rates)
    with pytest.raises(ValueError, match="seed=-1"):
        diffusion_rates(np.arange(2), seed=-1, epoch=0, impl=impl)


def test_label_weights():
    masked = Masked(np.array([1, 2, 7, 8, 9]), np.array([5, 6, 7, 8, 9]))
    weights = label_weights(masked, np.array([0, 4, 6, 10], np.int32), np.array([0.5, 0.9, 0.001]))
    assert weights.tolist() == [2, 2, 10, 10, 10] and weights.dtype == np.float32


# ---- at least one ----


@pytest.mark.parametrize("unit", UNITS)
def test_at_least_one_token_is_masked(unit, impl):
    batch, masker = make_batch(8, 3), make_masker(unit, impl)
    for seed in range(20):
        _, index, _ = apply(masker, batch, seed=seed, rate=1e-9)
        words = [[row] for row in index] if unit == "token" else [w for w in words_of(*batch[:2]) if index[0] in w]
        assert index.tolist() == words[0]
    assert len(apply(masker, batch, rate=0.0)[1]) == 0


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_to_mask(unit, impl):
    masker = make_masker(unit, impl)
    specials_only = (np.array([CLS, UNK, SEP]), np.array([0, 3], np.int32), np.array([0]))
    empty_sequence = (np.array([], np.int64), np.array([0, 0], np.int32), np.array([0]))
    empty_batch = (np.array([], np.int64), np.array([0], np.int32), np.array([], np.int64))
    for batch in (specials_only, empty_sequence, empty_batch):
        ids, index, labels = apply(masker, batch, rate=1.0)
        assert np.array_equal(ids, batch[0]) and len(index) == len(labels) == 0
        assert index.dtype == labels.dtype == np.int64


# ---- both implementations alike ----


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [0.0, 1e-12, 0.15, 0.5, 0.999999, 1.0])
@pytest.mark.parametrize("lengths", [(1, 4), (3, 128), (1000, 9000)])
def test_twins(unit, rate, lengths):
    need_core()
    batch = make_batch(9, 30, *lengths)
    batch[0][::13] = SEP
    results = [
        apply(make_masker(unit, i), batch, seed=2**64 - 1, epoch=2**32 - 1, rate=rate) for i in ("cpp", "reference")
    ]
    for native_array, reference_array in zip(*results, strict=True):
        assert native_array.dtype == reference_array.dtype and np.array_equal(native_array, reference_array)


@settings(max_examples=200, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(0, 19), max_size=40), max_size=12),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    rate=st.floats(0, 1),
    unit=st.sampled_from(UNITS),
    continuation=st.lists(st.booleans(), min_size=20, max_size=20),
    specials=st.sets(st.integers(0, 19), max_size=19),
    probs=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    data=st.data(),
)
def test_twins_on_anything(sequences, seed, epoch, rate, unit, continuation, specials, probs, data):
    need_core()
    cu_seqlens = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int32)
    input_ids = np.array([token for s in sequences for token in s], np.int64)
    ids = st.lists(st.integers(0, 2**56 - 1), min_size=len(sequences), max_size=len(sequences))
    batch = (input_ids, cu_seqlens, np.array(data.draw(ids), np.int64))
    options = {
        "mask_id": 4,
        "vocab_size": 20,
        "special_ids": specials,
        "unit": unit,
        "is_continuation": np.array(continuation, np.uint8),
        "mask_prob": probs[0],
        "random_prob": probs[1] * (1 - probs[0]),
    }
    results = [apply(Masker(**options, impl=i), batch, seed, epoch, rate) for i in ("cpp", "reference")]
    for native_array, reference_array in zip(*results, strict=True):
        assert np.array_equal(native_array, reference_array)


# ---- errors ----


@pytest.mark.parametrize(
    "options, message",
    [
        ({"unit": "sentence"}, "token, word, span"),
        ({"mask_prob": 0.9, "random_prob": 0.2}, "sum to at most 1"),
        ({"mask_prob": -0.1}, "sum to at most 1"),
        ({"mask_id": VOCAB}, "mask_id=1000"),
        ({"special_ids": [VOCAB]}, "vocab_size - 1 = 999"),
        ({"special_ids": range(VOCAB)}, "none to draw"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        make_masker(**options)


def test_word_masking_needs_to_know_the_words():
    with pytest.raises(ValueError, match="is_continuation"):
        Masker(mask_id=4, vocab_size=10, special_ids=range(5), unit="word")
    with pytest.raises(ValueError, match=r"shape \(9,\)"):
        Masker(mask_id=4, vocab_size=10, special_ids=range(5), is_continuation=np.zeros(9, np.uint8))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_bad_rate(rate, impl):
    with pytest.raises(InputError, match="from 0 to 1"):
        apply(make_masker(impl=impl), make_batch(0, 2), rate=rate)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda i, c, s: (i.astype(np.int32), c, s), "input_ids: expected a 1-d numpy array of int64"),
        (lambda i, c, s: (i[::2], c, s), "contiguous"),
        (lambda i, c, s: (i, c[:-1], s), "one more than"),
        (lambda i, c, s: (i, c - 1, s), "cumulative lengths from 0"),
        (lambda i, c, s: (i, c[[0, 2, 1, 3]], s), "cumulative lengths from 0"),
        (lambda i, c, s: (i, c, s - 2**60), "sequence_ids"),
        (lambda i, c, s: (np.where(np.arange(len(i)) == 5, VOCAB, i), c, s), r"input_ids\[5\] is 1000"),
        (lambda i, c, s: (np.where(np.arange(len(i)) == 5, -1, i), c, s), r"input_ids\[5\] is -1"),
    ],
)
def test_bad_batch(change, message, impl):
    batch = change(*make_batch(0, 3, shortest=20))
    before = batch[0].copy()
    with pytest.raises(ValueError, match=message):
        make_masker(impl=impl).mask(*batch, seed=0, epoch=0, rate=1.0)
    assert np.array_equal(batch[0], before)


def test_bad_seed_and_span_rates(impl):
    with pytest.raises(ValueError, match="seed=-1"):
        apply(make_masker(impl=impl), make_batch(0, 2), seed=-1)
    with pytest.raises(ValueError, match='"span"'):
        apply(make_masker("span", impl), make_batch(0, 2), rate=np.array([0.1, 0.2]))
