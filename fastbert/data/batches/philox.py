"""Philox4x32-10: stateless random numbers from a key and a counter; C++ and Triton produce the same stream.

The words for (seed, epoch, purpose, item, block) do not depend on call order or on the number of threads, workers or
ranks, so a resumed run has no random state to restore. ``csrc/data/philox.cpp`` is the byte-identical C++ twin.
(NumPy's Philox is the 64-bit variant with a different counter layout.)

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1: added to the key in every round
ROUNDS = 10

# reserved for evaluation, so that its masks never change
EVALUATION_EPOCH = 2**32 - 1


class Purpose(IntEnum):
    """The purpose of a draw. It is part of the counter, so different purposes never share random words."""

    SELECT = 1  # which tokens, words or spans are masked; same value in csrc/data/philox.h
    REPLACE = 2  # how a masked token is replaced; same value in csrc/data/philox.h
    ORDER = 3  # round keys of the permutation of an epoch's sequences
    BATCHES = 4  # round keys of the permutation of a chunk's batches
    CUT = 5  # length of a document's first window
    PAIR = 6  # all choices of a next-sentence example
    SPLIT = 7  # the order in which documents are held out
    RATE = 8  # mask rate of a sequence (diffusion)


def check_seed(seed: int) -> int:
    """Return ``seed``; raise ValueError unless it is a whole number in [0, 2^64)."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed!r}: expected a whole number from 0 to 2^64 - 1")
    return int(seed)


def philox4x32(key: int, counters: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the blocks of the given counters.

    Args:
        key: 64 bits; the low half is the paper's key word 0.
        counters: (n, 4) uint32.

    Returns:
        (n, 4) uint32, four random words per counter.
    """
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    x0, x1, x2, x3 = (counters[:, i].astype(np.uint32) for i in range(4))
    for _ in range(ROUNDS):
        p0 = x0.astype(np.uint64) * MULTIPLIERS[0]
        p1 = x2.astype(np.uint64) * MULTIPLIERS[1]
        x0 = (p1 >> np.uint64(32)).astype(np.uint32) ^ x1 ^ np.uint32(k0)
        x2 = (p0 >> np.uint64(32)).astype(np.uint32) ^ x3 ^ np.uint32(k1)
        x1, x3 = p1.astype(np.uint32), p0.astype(np.uint32)
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=1)


def draw(seed: int, epoch: int, purpose: Purpose, item: Any, block: Any = 0) -> NDArray[np.uint32]:
    """Return four random words for each (item, block).

    The counter is (block, item low, item high 24 bits | purpose << 24, epoch) and the key is the seed, so different
    arguments never share a counter.

    Args:
        seed: 0 … 2^64 - 1.
        epoch: 0 … 2^32 - 1.
        purpose: of the draw.
        item: integer or (n,) integers in [0, 2^56): the sequence, document or chunk.
        block: integer or (n,) integers in [0, 2^32).

    Returns:
        (n, 4) uint32.
    """
    item, block = np.broadcast_arrays(np.atleast_1d(item).astype(np.uint64), np.atleast_1d(block).astype(np.uint64))
    counters = np.empty((item.size, 4), np.uint32)
    counters[:, 0] = block
    counters[:, 1] = item & np.uint64(0xFFFFFFFF)
    counters[:, 2] = (item >> np.uint64(32)) | np.uint64(int(purpose) << 24)
    counters[:, 3] = epoch
    return philox4x32(seed, counters)


def below(word: NDArray[np.uint32], bound: Any) -> NDArray[np.int64]:
    """Scale words to integers in [0, bound): ``word * bound >> 32`` (bias at most bound / 2^32)."""
    return ((word.astype(np.uint64) * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def threshold(probability: float) -> int:
    """Return t such that ``word < t`` has the given probability; at least 1 unless the probability is 0."""
    return max(1, int(probability * 2.0**32)) if probability > 0 else 0


class Permutation:
    """A keyed pseudo-random permutation of 0 … n - 1 with random access and no storage.

    A Feistel network on the smallest power of two that is at least n, with cycle walking: a result past the end is fed
    in again until it is inside (fewer than two rounds on average).

    Reference: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
    """

    ROUNDS = 8

    def __init__(self, n: int, seed: int, epoch: int, purpose: Purpose, item: int = 0):
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self.low_bits = np.uint64(bits // 2)
        self.low_mask = np.uint64((1 << (bits // 2)) - 1)
        self.high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self.round_keys = draw(seed, epoch, purpose, item, np.arange(self.ROUNDS // 4)).ravel().astype(np.uint64)

    def __call__(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Map positions, (k,) int64 in [0, n), to (k,) int64."""
        x = self._once(np.asarray(position).astype(np.uint64))
        outside = np.flatnonzero(x >= self.n)
        while outside.size:
            x[outside] = self._once(x[outside])
            outside = outside[x[outside] >= self.n]
        return x.astype(np.int64)

    def _once(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        low, high = x & self.low_mask, x >> self.low_bits
        for i in range(0, self.ROUNDS, 2):
            low = low ^ (_mix(high, self.round_keys[i]) & self.low_mask)
            high = high ^ (_mix(low, self.round_keys[i + 1]) & self.high_mask)
        return (high << self.low_bits) | low


def _mix(x: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """The keyed 64-bit finalizer of MurmurHash3 (Appleby); its high bits are the best mixed."""
    x = (x + key + np.uint64(1)) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
