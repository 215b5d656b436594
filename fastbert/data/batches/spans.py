"""The parts of a store that are trained on, and running sums over them, in memory that hardly grows with their number.

A split of a large corpus is all its documents but a few: :class:`DocumentSpans` remembers the few, and reads what it is
asked for from the store's own offsets, which are mapped files. :class:`ListedSpans` is an explicit list.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PART = 1 << 14  # items looked at in one go where all of them are
# up to here lists cost less than they save: a few megabytes
FEW = 1 << 17
BLOCK = 8  # items a kept sum stands for, where there are more


class Offsets(Protocol):
    """What is needed of a token store."""

    @property
    def document_offsets(self) -> Ints: ...  # (documents + 1,) token positions
    @property
    def sentence_offsets(self) -> Ints: ...  # (sentences + 1,) token positions


class DocumentSpans:
    """(K, 2) [first sentence, last sentence + 1) of every document of a store but some; read like an array.

    Args:
        store: the offsets.
        without: ascending numbers of the documents left out.
        shortened: (document, sentence): this document ends before that sentence.
    """

    def __init__(self, store: Offsets, without: Any = (), shortened: tuple[int, int] | None = None):
        self.store, self.shortened = store, shortened
        self.without = np.asarray(without, np.int64)
        self._gaps = self.without - np.arange(len(self.without))  # documents kept before each that is left out

    def __len__(self) -> int:
        return len(self.store.document_offsets) - 1 - len(self.without)

    def __getitem__(self, index: Any) -> Ints:
        """(2,) of a number, (n, 2) of a slice or of an array of numbers."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        number = np.asarray(index, np.int64)
        if number.size and not (-len(self) <= number.min() and number.max() < len(self)):
            raise IndexError(f"spans: number outside the {len(self)} there are")
        return self.bounds(np.where(number < 0, number + len(self), number))

    def __iter__(self) -> Iterator[Ints]:
        for part in parts(len(self)):
            yield from self.bounds(part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self.bounds(np.arange(len(self))).astype(dtype or np.int64, copy=False)

    def documents(self, index: Ints) -> Ints:
        """The document of each number."""
        return index + np.searchsorted(self._gaps, index, side="right")

    def bounds(self, index: Ints) -> Ints:
        """(…, 2) sentences."""
        document = self.documents(index)
        places = self.store.document_offsets[np.stack([document, document + 1], axis=-1)]
        found = np.searchsorted(self.store.sentence_offsets, places).astype(np.int64)
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
        """First and last + 1 number of the spans of the same document."""
        return index, index + 1

    def digest(self, start: int) -> int:
        """CRC-32 of what they are, continued from ``start``."""
        facts = np.array([len(self), *(self.shortened or (-1, -1)), *self.without.tolist()], np.int64)
        return zlib.crc32(facts.tobytes(), start)


class ListedSpans:
    """Spans from a list, in any order, several of one document among them; those without a token are left out.

    Args:
        spans: (K, 2) int64.
        by_document: put those of one document together, so that :meth:`own` may be asked.
    """

    def __init__(self, store: Offsets, spans: Ints, by_document: bool = False):
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
    """The sums of the counts of items 0 … i, for every i; of many items only every eighth sum is kept.

    Args:
        num_items: how many there are.
        counts: (n,) numbers of items → (n,) their counts, the same whenever it is asked.
    """

    def __init__(self, num_items: int, counts: Callable[[Ints], Ints]):
        self.num_items, self._counts = num_items, counts
        self.block = 1 if num_items <= FEW else BLOCK
        sums = [np.add.reduceat(found, np.arange(0, len(found), self.block)) for found in map(counts, parts(num_items))]
        self._ends = np.cumsum(np.concatenate(sums)) if sums else np.zeros(0, np.int64)
        self.total = int(self._ends[-1]) if sums else 0

    def locate(self, position: Ints) -> tuple[Ints, Ints]:
        """(n,) the item each position in [0, total) falls in, and (n,) the sum before that item."""
        if self.block == 1:
            return self._block_of(position)
        pieces = [self._within(position[start : start + PART]) for start in range(0, len(position), PART)]
        items, sums = zip(*pieces, strict=True) if pieces else ((position,), (position,))
        return np.concatenate(items), np.concatenate(sums)

    def _block_of(self, position: Ints) -> tuple[Ints, Ints]:
        block = np.searchsorted(self._ends, position, side="right")
        return block, np.where(block > 0, self._ends[block - 1], 0)

    def _within(self, position: Ints) -> tuple[Ints, Ints]:
        block, before = self._block_of(position)
        asked, first_row, row = np.unique(block, return_index=True, return_inverse=True)
        items = asked[:, None] * self.block + np.arange(self.block)  # (blocks asked, block)
        counts = np.zeros(items.shape, np.int64)
        counts[items < self.num_items] = self._counts(items[items < self.num_items])
        ends = np.cumsum(counts, axis=1) + before[first_row, None]
        place = (position[:, None] >= ends[row]).sum(axis=1)
        return asked[row] * self.block + place, ends[row, place] - counts[row, place]


def parts(num_items: int) -> Iterator[Ints]:
    """0 … num_items - 1, :data:`PART` at a time."""
    for start in range(0, num_items, PART):
        yield np.arange(start, min(start + PART, num_items))
