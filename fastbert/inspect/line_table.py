"""The readable twin of csrc/data/line_table.h: what :class:`fastbert.inspect.lines.Lines` counts.

Every line has two keys: of its bytes, and of its letters only (case, digits, blanks and punctuation do not count). The
table keeps lines whose key is below a threshold, which is halved whenever there are too many: a uniform sample of the
distinct lines, from which shares are estimated without bias.

Reference: Gibbons, "Distinct sampling for highly-accurate answers to distinct values queries", 2001.
"""

import string
import zlib
from collections import Counter
from dataclasses import dataclass

SHOWN_BYTES = 240
_IGNORED = (string.digits + string.punctuation + string.whitespace).encode()
_LOWER = bytes(range(256)).lower()
_ALL_KEYS = 1 << 32


@dataclass(slots=True)
class _Line:
    count: int
    first_document: int
    last_document: int
    documents: int
    text: bytes


class LineTable:
    """Counts lines and documents.

    Args:
        max_lines: distinct lines in the table.
        max_word_chars: longer words are counted, as long ones.
        min_shared: lines of a document in one other, as a share, that make it a near-duplicate.
    """

    def __init__(self, max_lines: int, max_word_chars: int, min_shared: float) -> None:
        self.max_lines, self.max_word_chars, self.min_shared = max_lines, max_word_chars, min_shared
        self._totals = Counter[str]()
        self._limit = _ALL_KEYS  # keys below it are in the table
        self._lines: dict[tuple[int, int], _Line] = {}
        self._near: dict[int, int] = {}  # key of the letters -> key of the first such line
        self._documents: set[tuple] = set()  # lines and size of each, hashed
        self._key: int = 0  # of the open document
        self._bytes = self._num_lines = self._open_lines = 0
        self._shared: Counter[int] = Counter()  # its lines, by the document that had them first
        self._inside_line = self._is_open = False  # the block before ended within a line, within a document

    def add(self, text: bytes, continues: bool) -> int:
        """Count the lines of a document, or with ``continues`` of a part of one.

        Returns:
            The bytes of the document that ends before it, 0 for none.
        """
        ended = 0 if continues else self._begin_document()
        for line in text.removesuffix(b"\n").split(b"\n") if text else ():
            self._add_line(line)
        return ended

    def add_text(self, block: bytes) -> list[int]:
        """Count the documents of a block of plain text, which blank lines divide; returns the bytes of each that ends.

        Blocks end with lines, or within one: its rest then begins the next block.
        """
        ended: list[int] = []
        if not block:
            return ended
        for line in block.removesuffix(b"\n").split(b"\n"):
            if line and not line.isspace():
                if not self._is_open and (size := self._begin_document()):
                    ended.append(size)
                self._is_open = True
                self._add_line(line)
            elif not self._inside_line:  # otherwise the end of a line that was cut
                self._is_open = False
            self._inside_line = False
        self._inside_line = not block.endswith(b"\n")
        return ended

    def end(self) -> int:
        """End the document that is open, and the text; returns its bytes."""
        self._inside_line = self._is_open = False
        return self._end_document()

    def _begin_document(self) -> int:
        ended = self._end_document()
        self._totals["documents"] += 1
        return ended

    def _end_document(self) -> int:
        size = self._bytes + self._num_lines  # with the line feeds
        if self._bytes:
            key = self._key, self._bytes
            if key in self._documents:
                self._totals["exact_documents"] += 1
            else:
                most = max(self._shared.values(), default=-1)
                self._totals["near_documents"] += most >= self.min_shared * self._open_lines
                if len(self._documents) < self.max_lines:
                    self._documents.add(key)
        self._key = self._bytes = self._num_lines = self._open_lines = 0
        self._shared.clear()
        return size

    def _add_line(self, line: bytes) -> None:
        key, document = zlib.crc32(line), self._totals["documents"]
        self._key = hash((self._key, key, len(line)))
        self._bytes += len(line)
        self._num_lines += 1
        self._totals["lines"] += 1
        if len(line) > self.max_word_chars:
            words = (word.decode("utf-8", "ignore") for word in line.split() if len(word) > self.max_word_chars)
            self._totals["long_words"] += sum(len(word) > self.max_word_chars for word in words)
        if key >= self._limit or not line:
            return
        self._totals["sampled_lines"] += 1
        self._open_lines += 1
        known = self._lines.get((key, len(line)))
        if known is None:
            self._lines[key, len(line)] = _Line(1, document, document, 1, line[:SHOWN_BYTES])
            letters = zlib.crc32(line.translate(_LOWER, _IGNORED))
            self._totals["near_lines"] += self._near.setdefault(letters, key) != key
            if len(self._lines) > self.max_lines:
                self._halve()
            return
        known.count += 1
        if known.first_document != document:
            self._shared[known.first_document] += 1
        if known.last_document != document:
            known.last_document = document
            known.documents += 1

    def _halve(self) -> None:
        while len(self._lines) > self.max_lines:
            self._limit //= 2
            self._lines = {key: line for key, line in self._lines.items() if key[0] < self._limit}
        self._near = {letters: key for letters, key in self._near.items() if key < self._limit}
        self._totals["sampled_lines"] = sum(line.count for line in self._lines.values())
        self._totals["near_lines"] = min(self._totals["near_lines"] // 2, len(self._lines))

    def totals(self) -> dict[str, int]:
        """The figures, as :class:`fastbert.inspect.lines.Totals` describes them."""
        names = ("lines", "documents", "exact_documents", "near_documents", "sampled_lines", "near_lines", "long_words")
        sizes = [(size, line) for (_, size), line in self._lines.items()]
        return {
            **{name: self._totals[name] for name in names},
            "distinct_lines": len(self._lines),
            "bytes": sum(size * line.count for size, line in sizes),
            "distinct_bytes": sum(size for size, _ in sizes),
            "repeated_bytes": sum(size * line.count for size, line in sizes if line.count > 1),
            "shared_bytes": sum(size * line.count for size, line in sizes if line.documents > 1),
            "estimated": int(self._limit < _ALL_KEYS),
        }

    def frequent(self, least_documents: int) -> list[tuple[bytes, int, int, int]]:
        """(beginning of the line, its size, count, documents) of the lines that so many documents have."""
        return [
            (line.text, size, line.count, line.documents)
            for (_, size), line in self._lines.items()
            if line.documents >= least_documents
        ]
