"""Repeated lines and documents of a text of any size, in bounded memory.

Every line has two keys: of its bytes, and of its letters only (case, digits, blanks and punctuation do not count). The
table keeps lines whose key is below a threshold, which is halved whenever there are too many: a uniform sample of the
distinct lines, from which shares are estimated without bias.

Reference: Gibbons, "Distinct sampling for highly-accurate answers to distinct values queries", 2001.
"""

import string
import zlib
from collections import Counter
from dataclasses import dataclass

MAX_LINES = 1 << 20  # distinct lines in the table, some 300 MB
MIN_SHARED = 0.8  # of a document's lines are those of one other document: a near-duplicate
MIN_BOILERPLATE_DOCUMENTS = 5
MIN_BOILERPLATE_SHARE = 0.1  # of the documents
MIN_BOILERPLATE_TEXT = 0.01  # of the bytes
_SHOWN_BYTES = 240
_IGNORED = (string.digits + string.punctuation + string.whitespace).encode()
_LOWER = bytes(range(256)).lower()


@dataclass(frozen=True)
class RepeatedLine:
    text: str
    count: int
    documents: int


@dataclass(slots=True)
class _Line:
    count: int
    first_document: int
    last_document: int
    documents: int
    size: int
    text: bytes


class LineTable:
    """Counts lines and documents; :meth:`add` takes the lines of a document, or of a part of one."""

    def __init__(self, max_lines: int = MAX_LINES):
        self.max_lines = max_lines
        self.num_lines = self.num_documents = 0
        self.exact_documents = self.near_documents = 0
        self._limit = 1 << 32  # keys below it are in the table
        self._lines: dict[tuple[int, int], _Line] = {}
        self._near: dict[int, int] = {}  # key of the letters -> key of the first such line
        self._near_lines = self._sampled_lines = 0
        self._documents: set[tuple[int, int]] = set()  # checksum and size of each
        self._document_key = self._document_bytes = 0  # of the open document
        self._shared: Counter[int] = Counter()  # lines of the open document by the document that had them first
        self._open_lines = 0

    @property
    def estimated(self) -> bool:
        """Whether figures about lines come from a sample."""
        return self._limit < 1 << 32

    def add(self, lines: list[bytes], continues: bool) -> None:
        """Count non-blank lines of a document; ``continues``: of the one before."""
        if not continues:
            self.end_document()
            self.num_documents += 1
        document, limit, table, crc32 = self.num_documents, self._limit, self._lines, zlib.crc32
        document_key, sampled = self._document_key, 0
        for line in lines:
            key = crc32(line)
            document_key = crc32(line, document_key)
            if key >= limit:
                continue
            sampled += 1
            known = table.get((key, len(line)))
            if known is None:
                table[key, len(line)] = _Line(1, document, document, 1, len(line), line[:_SHOWN_BYTES])
                self._add_near(line, key)
                continue
            known.count += 1
            self._shared[known.first_document] += known.first_document != document
            if known.last_document != document:
                known.last_document = document
                known.documents += 1
        self._document_key = document_key
        self._sampled_lines += sampled
        self._open_lines += sampled
        self._document_bytes += sum(map(len, lines))
        self.num_lines += len(lines)
        if len(table) > self.max_lines:
            self._halve()

    def _add_near(self, line: bytes, key: int) -> None:
        letters = zlib.crc32(line.translate(_LOWER, _IGNORED))
        if self._near.setdefault(letters, key) != key:
            self._near_lines += 1

    def end_document(self) -> None:
        """Decide whether the document read last was there before."""
        if self._document_bytes:
            key = self._document_key, self._document_bytes
            if key in self._documents:
                self.exact_documents += 1
            elif self._shared and self._shared.most_common(1)[0][1] >= MIN_SHARED * self._open_lines:
                self.near_documents += 1
            if len(self._documents) < self.max_lines:
                self._documents.add(key)
        self._document_key = self._document_bytes = self._open_lines = 0
        if self._shared:
            self._shared = Counter()

    def _halve(self) -> None:
        while len(self._lines) > self.max_lines:
            self._limit //= 2
            self._lines = {key: line for key, line in self._lines.items() if key[0] < self._limit}
        self._near = {letters: key for letters, key in self._near.items() if key < self._limit}
        self._sampled_lines = sum(line.count for line in self._lines.values())
        self._near_lines = min(self._near_lines // 2, len(self._lines))

    def duplicate_share(self) -> float:
        """The share of lines that are exactly those of an earlier line."""
        return 1 - len(self._lines) / self._sampled_lines if self._sampled_lines else 0.0

    def near_duplicate_share(self) -> float:
        """The share of lines that have the letters of an earlier one, but are not the same."""
        return self._near_lines / self._sampled_lines if self._sampled_lines else 0.0

    def overlap_share(self) -> float:
        """The share of the text in lines that another document also has (one document: that occur again)."""
        several = self.num_documents > 1
        repeated = total = 0
        for line in self._lines.values():
            total += line.count * line.size
            if (line.documents if several else line.count) > 1:
                repeated += line.count * line.size
        return repeated / total if total else 0.0

    def duplicate_text_share(self) -> float:
        """As :meth:`duplicate_share`, of the bytes: a short line that is often repeated weighs little."""
        total = sum(line.count * line.size for line in self._lines.values())
        return 1 - sum(line.size for line in self._lines.values()) / total if total else 0.0

    def boilerplate(self, most: int = 5) -> list[RepeatedLine]:
        """The lines that stand in most documents: in one of ten, or so many that they are a hundredth of the text."""
        least = max(MIN_BOILERPLATE_DOCUMENTS, 0.01 * self.num_documents)
        found = [line for line in self._lines.values() if line.documents >= least]
        total = sum(line.count * line.size for line in self._lines.values())
        if sum(line.count * line.size for line in found) < MIN_BOILERPLATE_TEXT * total:
            found = [line for line in found if line.documents >= MIN_BOILERPLATE_SHARE * self.num_documents]
        found.sort(key=lambda line: (-line.documents, line.text))
        return [RepeatedLine(_shown(line.text), line.count, line.documents) for line in found[:most]]


def _shown(text: bytes) -> str:
    return " ".join(text.decode("utf-8", "ignore").split())[:60]
