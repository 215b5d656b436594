"""Packing of sequences into batches with a token budget.

Best-fit-decreasing gives the number of batches. Its batches group sequences by length (the longest together, the
shortest last) and the last one is nearly empty, so the sequences are distributed again, longest first, each into the
emptiest of that many batches. All batches are then equally full and mix long and short sequences. If a batch would
overflow (few free slots), one percent more batches are tried; if that fails too (a few long sequences fill a batch),
the best-fit batches are kept. ``csrc/data/packer.cpp`` is the fast twin; results are byte-identical.

References: Johnson, "Near-optimal bin packing algorithms", 1973 (best-fit-decreasing); Graham, "Bounds on
multiprocessing timing anomalies", 1969 (longest first to the emptiest); Krell et al., "Efficient sequence packing
without cross-contamination", 2021.
"""

import heapq
from bisect import bisect_left, insort

import numpy as np

from fastbert.data.types import Ints
from fastbert.system.native import core


def pack_batches(lengths: Ints, batch_tokens: int, *, impl: str = "auto") -> tuple[Ints, int]:
    """Assign every sequence to a batch.

    Args:
        lengths: (n,) int64 tokens per sequence, 1 … batch_tokens.
        batch_tokens: maximum tokens per batch.
        impl: "auto", "cpp" or "reference".

    Returns:
        ``(batch_of, num_batches)``: (n,) int64 in [0, num_batches).

    Raises:
        ValueError: a length outside 1 … batch_tokens.
    """
    lengths = np.ascontiguousarray(lengths, np.int64)
    if not 0 < batch_tokens < 2**31:
        raise ValueError(f"batch_tokens={batch_tokens}: expected 1 to 2^31 - 1")
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= batch_tokens):
        raise ValueError(
            f"lengths from {lengths.min()} to {lengths.max()} tokens: expected 1 to batch_tokens = {batch_tokens}"
        )
    native = core(impl)
    if native is not None:
        return native.pack_batches(lengths, batch_tokens)
    sizes = lengths.tolist()
    order = np.argsort(-lengths, kind="stable").tolist()
    batch_of, fewest = _best_fit(sizes, order, batch_tokens)
    for num_batches in (fewest, fewest + fewest // 100):
        even = _deal(sizes, order, num_batches, batch_tokens)
        if even is not None:
            return np.array(even, np.int64), num_batches
    return np.array(batch_of, np.int64), fewest


def _best_fit(sizes: list[int], order: list[int], batch_tokens: int) -> tuple[list[int], int]:
    """Put each sequence into the fullest batch with room for it; ties go to the batch that reached that level last."""
    batch_of = [0] * len(sizes)
    rooms: list[int] = []  # distinct free sizes, ascending
    with_room: dict[int, list[int]] = {}  # free size -> batches, latest last
    num_batches = 0
    for i in order:
        at = bisect_left(rooms, sizes[i])
        if at == len(rooms):
            batch, room = num_batches, batch_tokens
            num_batches += 1
        else:
            room = rooms[at]
            batch = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        batch_of[i] = batch
        room -= sizes[i]
        if room not in with_room:
            with_room[room] = []
            insort(rooms, room)
        with_room[room].append(batch)
    return batch_of, num_batches


def _deal(sizes: list[int], order: list[int], num_batches: int, batch_tokens: int) -> list[int] | None:
    """Put each sequence into the emptiest batch, ties into the first; None if a batch would overflow."""
    batch_of = [0] * len(sizes)
    emptiest = [(0, batch) for batch in range(num_batches)]
    for i in order:
        tokens, batch = emptiest[0]
        if tokens + sizes[i] > batch_tokens:
            return None
        batch_of[i] = batch
        heapq.heapreplace(emptiest, (tokens + sizes[i], batch))
    return batch_of
