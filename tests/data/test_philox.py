"""Philox against its published vectors, permutations, thresholds."""

import numpy as np
import pytest

from fastbert.data.batches.philox import Permutation, Purpose, below, draw, philox4x32, threshold
from support import need_core


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The vectors of Random123's kat_vectors, philox 4x32, 10 rounds."""
    counter, key, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, expected))
    key = key[0] | key[1] << 32
    assert philox4x32(key, np.array([counter], np.uint32)).tolist() == [expected]
    module = need_core()
    columns = [np.array([word], np.uint32) for word in counter[:3]]
    for path in range(3):
        if module.philox_path_supported(path):
            assert module.philox(key, *columns, counter[3], path).tolist() == [expected]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 15, 16, 17, 63, 1000])
@pytest.mark.parametrize("path", [0, 1, 2])
def test_philox_paths_agree(path, count):
    module = need_core()
    if not module.philox_path_supported(path):
        pytest.skip("this machine lacks the instructions")
    counters = np.random.default_rng(count).integers(0, 2**32, (count, 4), dtype=np.uint32)
    counters[:, 3] = 77
    columns = [np.ascontiguousarray(counters[:, i]) for i in range(3)]
    key = 0xFEDCBA9876543210
    assert np.array_equal(module.philox(key, *columns, 77, path), philox4x32(key, counters))


def test_draws_never_share_a_counter():
    """Neighbours in every argument give different blocks."""
    cases = [(s, e, p, i, b) for s in (0, 1) for e in (0, 1) for p in (1, 2) for i in (0, 1, 2**32) for b in (0, 1)]
    blocks = {draw(s, e, p, i, b).tobytes() for s, e, p, i, b in cases}
    assert len(blocks) == len(cases)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 1000, 4097])
def test_permutation_hits_everything_once(n):
    permutation = Permutation(n, 5, 2, Purpose.ORDER)
    order = permutation(np.arange(n))
    assert sorted(order.tolist()) == list(range(n))
    assert permutation(np.array([n // 2])).tolist() == [order[n // 2]]  # asked alone, the same
    if n >= 64:
        assert not np.array_equal(order, Permutation(n, 5, 3, Purpose.ORDER)(np.arange(n)))
        assert not np.array_equal(order, Permutation(n, 6, 2, Purpose.ORDER)(np.arange(n)))


def test_permutation_is_even():
    """Over keys, every position goes everywhere alike: chi-square, 7 x 7 cells, 20,000 keys."""
    n, keys = 7, 20_000
    seen = np.zeros((n, n))
    for key in range(keys):
        seen[np.arange(n), Permutation(n, key, 0, Purpose.ORDER)(np.arange(n))] += 1
    chi_square = ((seen - keys / n) ** 2 / (keys / n)).sum()
    assert chi_square < 36 + 5 * np.sqrt(2 * 36)  # 36 degrees of freedom, 5 sigma


def test_thresholds():
    assert threshold(0) == 0 and threshold(1e-30) == 1 and threshold(1) == 2**32
    assert below(np.array([0, 2**32 - 1], np.uint32), 10).tolist() == [0, 9]
