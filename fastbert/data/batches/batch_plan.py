"""The assignment of sequences to batches: a pure function of (seed, epoch, chunk, batch).

The sequences of an epoch are permuted by a keyed pseudo-random function and divided into chunks of about a hundred
batches. Each chunk is packed independently (:mod:`fastbert.data.batches.packing`) and its batches are permuted again.
Every sequence of an epoch is in exactly one batch, and any batch can be built without the ones before it.

Legend: B sequences, T packed tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbert.data.batches.packing import pack_batches
from fastbert.data.batches.philox import EVALUATION_EPOCH, Permutation, Purpose
from fastbert.data.batches.sequences import Sequences, SequenceSlices
from fastbert.data.types import Ints, TokenSource

# enough batches that one or two more than the tokens require cost about one percent
BATCHES_IN_CHUNK = 128
SMALLEST_CHUNK, LARGEST_CHUNK = 1024, 2**18  # sequences


@dataclass(frozen=True, order=True)
class Cursor:
    """The position of a batch in the endless stream of epochs."""

    epoch: int = 0
    chunk: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Chunk:
    """Some sequences of an epoch, packed into batches."""

    index: Ints  # (n,) index of each sequence in the epoch
    slices: SequenceSlices  # of n sequences
    rows: list[Ints]  # for each batch, its sequences among the n, ascending


@dataclass(frozen=True)
class UnmaskedBatch:
    """A batch before masking."""

    input_ids: NDArray[np.int64]  # (T,)
    position_ids: NDArray[np.int64]  # (T,)
    token_type_ids: NDArray[np.int64]  # (T,)
    cu_seqlens: NDArray[np.int32]  # (B + 1,)
    max_seqlen: int
    next_sentence_label: NDArray[np.int64]  # (B,)
    sequence_ids: NDArray[np.int64]  # (B,) index of each sequence in the epoch
    epoch: int


class BatchPlan:
    """The batches of every epoch of a split.

    Args:
        sequences: the sequences of every epoch.
        batch_tokens: maximum tokens per batch.
        seed: 0 … 2^64 - 1.
        shuffle: False takes the sequences of the evaluation epoch in text order, the same in every pass.
        subset: indices of the sequences to take, (m,) ascending; None takes all. Only without shuffle.
        impl: implementation of the packer.
    """

    def __init__(
        self,
        sequences: Sequences,
        *,
        batch_tokens: int,
        seed: int,
        shuffle: bool = True,
        subset: Ints | None = None,
        impl: str = "auto",
    ):
        if shuffle and subset is not None:
            raise ValueError("subset requires shuffle=False: the sequences differ between epochs")
        self.sequences, self.batch_tokens, self.seed, self.impl = sequences, batch_tokens, seed, impl
        self.shuffle, self.subset = shuffle, subset
        fitting = int(BATCHES_IN_CHUNK * batch_tokens / mean_length(sequences))
        self.chunk_sequences = min(max(fitting, SMALLEST_CHUNK), LARGEST_CHUNK)
        self._chunks: dict[tuple[int, int], Chunk] = {}  # the last two

    def content_epoch(self, epoch: int) -> int:
        """Return the epoch whose windows, pairs and masks are used."""
        return epoch if self.shuffle else EVALUATION_EPOCH

    def num_sequences(self, epoch: int) -> int:
        return len(self.subset) if self.subset is not None else self.sequences.count(self.content_epoch(epoch))

    def num_chunks(self, epoch: int) -> int:
        return max(1, self.num_sequences(epoch) // self.chunk_sequences)

    def chunk(self, epoch: int, chunk: int) -> Chunk:
        """Return chunk ``chunk`` of ``epoch``."""
        made = self._chunks.get((epoch, chunk))
        if made is None:
            made = self._make_chunk(epoch, chunk)
            self._chunks = dict([*self._chunks.items(), ((epoch, chunk), made)][-2:])
        return made

    def advance(self, cursor: Cursor, steps: int) -> Cursor:
        """Return the position ``steps`` batches later."""
        epoch, chunk, batch = cursor.epoch, cursor.chunk, cursor.batch + steps
        while batch and batch >= (count := len(self.chunk(epoch, chunk).rows)):
            batch -= count
            chunk += 1
            if chunk == self.num_chunks(epoch):
                epoch, chunk = epoch + 1, 0
        return Cursor(epoch, chunk, batch)

    def progress(self, cursor: Cursor) -> float:
        """Return the number of epochs completed before the batch at ``cursor``."""
        done = cursor.batch / len(self.chunk(cursor.epoch, cursor.chunk).rows) if cursor.batch else 0.0
        return cursor.epoch + (cursor.chunk + done) / self.num_chunks(cursor.epoch)

    def _make_chunk(self, epoch: int, chunk: int) -> Chunk:
        n, chunks = self.num_sequences(epoch), self.num_chunks(epoch)
        position = np.arange(n * chunk // chunks, n * (chunk + 1) // chunks)
        if self.shuffle:
            index = Permutation(n, self.seed, epoch, Purpose.ORDER)(position)
        else:
            index = position if self.subset is None else self.subset[position]
        slices = self.sequences.slices(self.content_epoch(epoch), index)
        batch_of, num_batches = pack_batches(slices.lengths, self.batch_tokens, impl=self.impl)
        ends = np.cumsum(np.bincount(batch_of, minlength=num_batches))[:-1]
        rows = np.split(np.argsort(batch_of, kind="stable"), ends)
        if self.shuffle:
            order = Permutation(num_batches, self.seed, epoch, Purpose.BATCHES, chunk)(np.arange(num_batches))
            rows = [rows[i] for i in order.tolist()]
        return Chunk(index, slices, rows)

    def unmasked_batch(self, cursor: Cursor, store: TokenSource, cls_id: int, sep_id: int) -> UnmaskedBatch:
        """Return the batch at ``cursor``."""
        chunk = self.chunk(cursor.epoch, cursor.chunk)
        rows = chunk.rows[cursor.batch]
        return assemble(
            store, chunk.slices.take(rows), chunk.index[rows], self.content_epoch(cursor.epoch), cls_id, sep_id
        )


def mean_length(sequences: Sequences) -> float:
    """Return the mean length of up to 4,096 evenly spaced sequences of epoch 0."""
    n = sequences.count(0)
    sample = np.arange(min(n, 4096)) * n // min(n, 4096)
    return float(sequences.slices(0, sample).lengths.mean())


def even_subset(sequences: Sequences, max_tokens: int) -> Ints:
    """Return indices of evenly spaced sequences of the evaluation epoch with at most ``max_tokens`` tokens in total
    (at least one sequence)."""
    n = sequences.count(EVALUATION_EPOCH)
    wanted = min(n, 1 + int(2 * max_tokens / mean_length(sequences)))
    while True:
        subset = np.arange(wanted) * n // wanted
        tokens = sum(
            int(sequences.slices(EVALUATION_EPOCH, part).lengths.sum())
            for part in np.array_split(subset, -(-wanted // LARGEST_CHUNK))
        )
        if tokens <= max_tokens or wanted == 1:
            return subset
        wanted = max(1, min(wanted - 1, int(wanted * max_tokens / tokens)))


def assemble(
    store: TokenSource, slices: SequenceSlices, index: Ints, epoch: int, cls_id: int, sep_id: int
) -> UnmaskedBatch:
    """Concatenate sequences: [CLS] A [SEP] or [CLS] A [SEP] B [SEP].

    Args:
        store: the tokens.
        slices: of B sequences.
        index: (B,) index of each in its epoch.
        epoch: that epoch.
        cls_id: id of [CLS].
        sep_id: id of [SEP].

    Returns:
        The batch; positions restart at 0 in every sequence, token types are 1 from B to its [SEP].
    """
    lengths = slices.lengths
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    first, last = cu_seqlens[:-1], cu_seqlens[1:] - 1  # [CLS], and [SEP] at the end
    middle = first + 1 + slices.length_a  # [SEP] after A
    total = int(cu_seqlens[-1])

    if slices.length_b.any():
        starts = np.stack([slices.start_a, slices.start_b], axis=1).ravel()
        tokens = store.gather(starts, np.stack([slices.length_a, slices.length_b], axis=1).ravel())
    else:
        tokens = store.gather(slices.start_a, slices.length_a)
    ordinary = np.ones(total, bool)
    ordinary[first] = ordinary[middle] = ordinary[last] = False
    input_ids = np.empty(total, np.int64)
    input_ids[ordinary] = tokens
    input_ids[first] = cls_id
    input_ids[middle] = input_ids[last] = sep_id

    position_ids = np.arange(total) - np.repeat(first, lengths)
    token_type_ids = (position_ids >= np.repeat(slices.length_a + 2, lengths)).astype(np.int64)
    longest = int(lengths.max()) if len(lengths) else 0
    return UnmaskedBatch(input_ids, position_ids, token_type_ids, cu_seqlens, longest, slices.label, index, epoch)
