"""The packer: budgets kept, slots filled, batches alike, both implementations alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbert.data.batches.packing import _best_fit, pack_batches
from fastbert.system import native
from support import need_core

LENGTHS = {
    "windows of 128": lambda rng, n: np.where(rng.random(n) < 0.6, 128, rng.integers(3, 129, n)),
    "windows of 512": lambda rng, n: np.where(rng.random(n) < 0.6, 512, rng.integers(3, 513, n)),
    "sentence pairs": lambda rng, n: np.where(rng.random(n) < 0.45, 128, rng.integers(8, 90, n)),
    "sentences": lambda rng, n: np.clip(rng.lognormal(3, 0.5, n), 4, 128).astype(int),
    "even": lambda rng, n: rng.integers(3, 513, n),
}


def loads_of(lengths, batch_of, num_batches):
    return np.bincount(batch_of, weights=lengths, minlength=num_batches)


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("budget", [4096, 5000, 16384, 65536])
def test_slots_are_filled_and_batches_alike(kind, budget, impl):
    rng = np.random.default_rng(budget)
    make = LENGTHS[kind]
    lengths = make(rng, int(128 * budget / make(rng, 1000).mean()))
    batch_of, num_batches = pack_batches(lengths, budget, impl=impl)
    loads = loads_of(lengths, batch_of, num_batches)
    assert loads.max() <= budget and loads.min() > 0
    assert lengths.sum() / (num_batches * budget) >= 0.98
    assert loads.min() >= 0.9 * loads.max()
    # long and short sequences in every batch alike: the means do not wander from the mean
    means = loads / np.bincount(batch_of)
    assert np.std(means) < 0.15 * np.mean(means)


def test_best_fit_stands_where_dealing_overflows(impl):
    """5 + 5, 4 + 3 + 3 fill two batches of 10 to the brim; dealt to the emptiest they do not fit."""
    lengths = np.array([3, 5, 4, 3, 5])
    batch_of, num_batches = pack_batches(lengths, 10, impl=impl)
    assert num_batches == 2 and loads_of(lengths, batch_of, 2).tolist() == [10, 10]
    assert batch_of[1] == batch_of[4] and batch_of[0] == batch_of[2] == batch_of[3]


def test_full_length_windows(impl):
    batch_of, num_batches = pack_batches(np.full(800, 512), 4096, impl=impl)
    assert num_batches == 100 and (np.bincount(batch_of) == 8).all()


def test_edges(impl):
    assert pack_batches(np.array([], np.int64), 10, impl=impl)[1] == 0
    batch_of, num_batches = pack_batches(np.array([10]), 10, impl=impl)
    assert batch_of.tolist() == [0] and num_batches == 1 and batch_of.dtype == np.int64
    for bad in ([0], [11], [5, -1]):
        with pytest.raises(ValueError, match="expected 1 to batch_tokens = 10"):
            pack_batches(np.array(bad), 10, impl=impl)
    with pytest.raises(ValueError, match="batch_tokens=0"):
        pack_batches(np.array([1]), 0, impl=impl)


def plain_best_fit_decreasing(lengths, budget):
    """As in a textbook, quadratic: how many batches."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(budget - length)
    return len(rooms)


@settings(max_examples=300, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), max_size=120), spare=st.integers(0, 5000))
def test_twins_on_anything(lengths, spare):
    budget = max(lengths, default=1) + spare
    batch_of, num_batches = pack_batches(np.array(lengths, np.int64), budget, impl="reference")
    fewest = plain_best_fit_decreasing(lengths, budget)
    assert num_batches in (fewest, fewest + fewest // 100)
    if lengths:
        assert loads_of(np.array(lengths), batch_of, num_batches).max() <= budget
        assert set(batch_of.tolist()) == set(range(num_batches))
    if not native.status()[0]:
        return
    native_of, native_batches = pack_batches(np.array(lengths, np.int64), budget, impl="cpp")
    assert native_batches == num_batches and np.array_equal(native_of, batch_of)


@pytest.mark.parametrize("budget", [63, 64, 65, 4095, 4096, 4097, 300_000])
def test_twins_on_large_inputs(budget):
    """Budgets around the sizes of the levels of the C++ bit set."""
    need_core()
    lengths = np.random.default_rng(0).integers(1, min(budget, 600) + 1, 5000)
    ours, reference = (pack_batches(lengths, budget, impl=i) for i in ("cpp", "reference"))
    assert ours[1] == reference[1] and np.array_equal(ours[0], reference[0])


def test_best_fit_alone_keeps_the_budget():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    order = np.argsort(-lengths, kind="stable").tolist()
    batch_of, num_batches = _best_fit(lengths.tolist(), order, 128)
    assert loads_of(lengths, batch_of, num_batches).max() <= 128
