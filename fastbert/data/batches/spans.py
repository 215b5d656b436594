"""Spans of a token store and running sums over them, in memory that barely grows with their number.

A split of a large corpus is all its documents but a few. :class:`DocumentSpans` keeps those few and reads everything
else from the memory-mapped offsets of the store. :class:`ListedSpans` is an explicit list.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbert.data.types import Ints, TokenOffsets

ITEMS_AT_ONCE = 1 << 14  # chunk size of a pass over all items
# up to this many spans an explicit list is faster and costs a few megabytes
MAX_LISTED_SPANS = 1 << 17
ITEMS_PER_SUM = 8  # of longer lists only every eighth running sum is stored


class DocumentSpans:
    """(K, 2) [first sentence, last sentence + 1) of the documents of a store, indexed like an array.

    Args:
        store: the offsets.
        without: indices of the excluded documents, ascending.
        shortened: (document, sentence): this document ends before that sentence.
    """

    def __init__(self, store: TokenOffsets, without: Any = (), shortened: tuple[int, int] | None = None):
        self.store, self.shortened = store, shortened
        self.without = np.asarray(without, np.int64)
        self._gaps = self.without - np.arange(len(self.without))  # documents kept before each excluded one

    def __len__(self) -> int:
        return len(self.store.document_offsets) - 1 - len(self.without)

    def __getitem__(self, index: Any) -> Ints:
        """(2,) for one index, (n, 2) for a slice or an array of indices."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        number = np.asarray(index, np.int64)
        if number.size and not (-len(self) <= number.min() and number.max() < len(self)):
            raise IndexError(f"spans: index out of range for {len(self)} spans")
        return self.bounds(np.where(number < 0, number + len(self), number))

    def __iter__(self) -> Iterator[Ints]:
        for part in item_chunks(len(self)):
            yield from self.bounds(part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self.bounds(np.arange(len(self))).astype(dtype or np.int64, copy=False)

    def documents(self, index: Ints) -> Ints:
        """The document index of each span."""
        return index + np.searchsorted(self._gaps, index, side="right")

    def bounds(self, index: Ints) -> Ints:
        """(…, 2) sentences."""
        document = self.documents(index)
        positions = self.store.document_offsets[np.stack([document, document + 1], axis=-1)]
        found = np.searchsorted(self.store.sentence_offsets, positions).astype(np.int64)
        if self.shortened is not None:
            found[..., 1] = np.where(document == self.shortened[0], self.shortened[1], found[..., 1])
        return found

    def tokens(self, index: Ints) -> tuple[Ints, Ints]:
        """(n,) position of the first token, (n,) number of tokens."""
        document = self.documents(index)
        start = np.asarray(self.store.document_offsets[document], np.int64)
        end = np.asarray(self.store.document_offsets[document + 1], np.int64)
        if self.shortened is not None:
            end = np.where(document == self.shortened[0], self.store.sentence_offsets[self.shortened[1]], end)
        return start, end - start

    def own(self, index: Ints) -> tuple[Ints, Ints]:
        """First and last + 1 index of the spans of the same document."""
        return index, index + 1

    def digest(self, start: int) -> int:
        """CRC-32 of the spans, continued from ``start``."""
        facts = np.array([len(self), *(self.shortened or (-1, -1)), *self.without.tolist()], np.int64)
        return zlib.crc32(facts.tobytes(), start)


class ListedSpans:
    """Spans from a list, in any order, possibly several per document; spans without tokens are dropped.

    Args:
        spans: (K, 2) int64.
        by_document: sort spans by document, which :meth:`own` needs.
    """

    def __init__(self, store: TokenOffsets, spans: Ints, by_document: bool = False):
        offsets = store.sentence_offsets
        self.store, self._list = store, spans
        spans = spans[np.asarray(offsets[spans[:, 1]]) > np.asarray(offsets[spans[:, 0]])]
        if by_document:
            document = np.searchsorted(store.document_offsets, offsets[spans[:, 0]], side="right") - 1
            order = np.lexsort((spans[:, 0], document))
            spans, document = spans[order], document[order]
            self._own = [np.searchsorted(document, document, side=side) for side in ("left", "right")]
        self._spans = spans
        self._starts = np.asarray(offsets[spans[:, 0]], np.int64)
        self._sizes = np.asarray(offsets[spans[:, 1]], np.int64) - self._starts

    def __len__(self) -> int:
        return len(self._spans)

    def bounds(self, index: Ints) -> Ints:
        return self._spans[index]

    def tokens(self, index: Ints) -> tuple[Ints, Ints]:
        return self._starts[index], self._sizes[index]

    def own(self, index: Ints) -> tuple[Ints, Ints]:
        return self._own[0][index], self._own[1][index]

    def digest(self, start: int) -> int:
        return zlib.crc32(self._list.tobytes(), start)


Spans = DocumentSpans | ListedSpans


class RunningSums:
    """Running sums of the counts of many items. Of long lists only every eighth sum is stored.

    Args:
        num_items: number of items.
        counts: (n,) item indices → (n,) counts; must be deterministic.
    """

    def __init__(self, num_items: int, counts: Callable[[Ints], Ints]):
        self.num_items, self._counts = num_items, counts
        self.block = 1 if num_items <= MAX_LISTED_SPANS else ITEMS_PER_SUM
        sums = [
            np.add.reduceat(found, np.arange(0, len(found), self.block))
            for found in map(counts, item_chunks(num_items))
        ]
        self._ends = np.cumsum(np.concatenate(sums)) if sums else np.zeros(0, np.int64)
        self.total = int(self._ends[-1]) if sums else 0

    def locate(self, position: Ints) -> tuple[Ints, Ints]:
        """Return the item that each position in [0, total) falls in, (n,), and the sum before that item, (n,)."""
        if self.block == 1:
            return self._block_of(position)
        chunks = [self._within(position[chunk]) for chunk in item_chunks(len(position))]
        items, sums = zip(*chunks, strict=True) if chunks else ((position,), (position,))
        return np.concatenate(items), np.concatenate(sums)

    def _block_of(self, position: Ints) -> tuple[Ints, Ints]:
        block = np.searchsorted(self._ends, position, side="right")
        return block, np.where(block > 0, self._ends[block - 1], 0)

    def _within(self, position: Ints) -> tuple[Ints, Ints]:
        block, before = self._block_of(position)
        blocks, first_row, row = np.unique(block, return_index=True, return_inverse=True)
        items = blocks[:, None] * self.block + np.arange(self.block)  # (blocks, items of a block)
        counts = np.zeros(items.shape, np.int64)
        counts[items < self.num_items] = self._counts(items[items < self.num_items])
        ends = np.cumsum(counts, axis=1) + before[first_row, None]
        column = (position[:, None] >= ends[row]).sum(axis=1)
        return blocks[row] * self.block + column, ends[row, column] - counts[row, column]


def item_chunks(num_items: int) -> Iterator[Ints]:
    """Yield 0 … num_items - 1 in chunks of :data:`ITEMS_AT_ONCE`."""
    for start in range(0, num_items, ITEMS_AT_ONCE):
        yield np.arange(start, min(start + ITEMS_AT_ONCE, num_items))
