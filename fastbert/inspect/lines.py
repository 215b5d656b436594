"""Repeated lines and documents of a text of any size, in bounded memory, and what is said of them.

The counting is that of the C++ core; :mod:`fastbert.inspect.line_table` is its twin.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastbert.inspect.line_table import LineTable
from fastbert.system.native import core

MAX_LINES = 1 << 20  # distinct lines in the table, some 200 MB
MAX_WORD_CHARS = 1000  # longer words are counted as such, not kept
MIN_SHARED = 0.8  # of a document's lines are those of one other document: a near-duplicate
MIN_BOILERPLATE_DOCUMENTS = 5
MIN_BOILERPLATE_SHARE = 0.1  # of the documents
MIN_BOILERPLATE_TEXT = 0.01  # of the bytes


@dataclass(frozen=True)
class Totals:
    """Figures about lines and documents; those of ``sampled_lines`` and below are of the lines in the table.

    Attributes:
        lines, documents: all that were read.
        exact_documents: that an earlier one equals; near_documents: whose lines are mostly those of one earlier one.
        long_words: of more than MAX_WORD_CHARS characters.
        estimated: the table is a sample.
        distinct_lines: of the sampled ones; near_lines: with the letters of an earlier one, but not the same.
        bytes, distinct_bytes, repeated_bytes, shared_bytes: of all, of the distinct ones, of those that occur again, of
            those that several documents have.
    """

    lines: int
    documents: int
    exact_documents: int
    near_documents: int
    long_words: int
    estimated: int
    sampled_lines: int
    distinct_lines: int
    near_lines: int
    bytes: int
    distinct_bytes: int
    repeated_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class RepeatedLine:
    text: str
    count: int
    documents: int


class Lines:
    """Counts lines and documents with :meth:`add`, :meth:`add_text` and :meth:`end`; then tells what repeats."""

    def __init__(self, max_lines: int = MAX_LINES, impl: str = "auto") -> None:
        module = core(impl)
        make: Any = LineTable if module is None else module.LineTable
        self.table = make(max_lines, MAX_WORD_CHARS, MIN_SHARED)
        self.add, self.add_text, self.end = self.table.add, self.table.add_text, self.table.end

    @cached_property
    def totals(self) -> Totals:
        """The figures, once all is counted."""
        return Totals(**self.table.totals())

    @property
    def num_lines(self) -> int:
        return self.totals.lines

    @property
    def num_documents(self) -> int:
        return self.totals.documents

    @property
    def estimated(self) -> bool:
        """Whether figures about lines come from a sample."""
        return bool(self.totals.estimated)

    def duplicate_share(self) -> float:
        """The share of lines that are exactly those of an earlier line."""
        return 1 - _share(self.totals.distinct_lines, self.totals.sampled_lines, empty=1.0)

    def near_duplicate_share(self) -> float:
        """The share of lines that have the letters of an earlier one, but are not the same."""
        return _share(self.totals.near_lines, self.totals.sampled_lines)

    def overlap_share(self) -> float:
        """The share of the text in lines that another document also has (one document: that occur again)."""
        several = self.num_documents > 1
        return _share(self.totals.shared_bytes if several else self.totals.repeated_bytes, self.totals.bytes)

    def duplicate_text_share(self) -> float:
        """As :meth:`duplicate_share`, of the bytes: a short line that is often repeated weighs little."""
        return 1 - _share(self.totals.distinct_bytes, self.totals.bytes, empty=1.0)

    def boilerplate(self, most: int = 5) -> list[RepeatedLine]:
        """The lines that stand in most documents: in one of ten, or so many that they are a hundredth of the text."""
        least = max(MIN_BOILERPLATE_DOCUMENTS, 0.01 * self.num_documents)
        found = [line for line in self.table.frequent(MIN_BOILERPLATE_DOCUMENTS) if line[3] >= least]
        if sum(size * count for _, size, count, _ in found) < MIN_BOILERPLATE_TEXT * self.totals.bytes:
            found = [line for line in found if line[3] >= MIN_BOILERPLATE_SHARE * self.num_documents]
        found.sort(key=lambda line: (-line[3], line[0]))
        return [RepeatedLine(_shown(text), count, documents) for text, _, count, documents in found[:most]]


def _share(part: int, whole: int, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def _shown(text: bytes) -> str:
    return " ".join(text.decode("utf-8", "ignore").split())[:60]
