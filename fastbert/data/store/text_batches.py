"""Batches of a corpus for the tokenizer: plain text stays UTF-8 bytes, records are lists of lines.

The document boundaries of plain text are found after tokenizing: blank lines, which are among those without tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbert.data.corpus.documents import Corpus
from fastbert.data.corpus.sources import Source
from fastbert.data.store.token_store import token_dtype
from fastbert.data.types import Ints

Encoding = tuple[NDArray[np.integer], Ints, Ints]  # (T,) ids, (lines + 1,) offsets, (n,) lines after a document end

# bytes (for records: characters) of a batch; bounds the memory of writing a store
BATCH_SIZE = 4 << 20

# white space for Python but not for other rules: a line of only these might give tokens
_RARE_BLANKS = (b"\x1c", b"\x1d", b"\x1e", b"\x1f")


class Encoded(Protocol):
    @property
    def input_ids(self) -> NDArray[np.integer]: ...  # (T,)
    @property
    def offsets(self) -> Ints: ...  # (B + 1,)


class BatchTokenizer(Protocol):
    """The part of :class:`fastbert.Tokenizer` that is needed."""

    def encode_batch(
        self, texts: Any, /, *, add_special_tokens: bool, split_special_tokens: bool, threads: int | None, dtype: str
    ) -> Encoded: ...
    def encode_file(
        self, data: Any, /, *, add_special_tokens: bool, split_special_tokens: bool, threads: int | None, dtype: str
    ) -> Encoded: ...
    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...


@dataclass
class LineBatch:
    """Lines of records; ``firsts`` are the first lines of documents."""

    lines: list[str] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, lines: list[str], continues: bool) -> None:
        if not continues:
            self.firsts.append(len(self.lines))
        self.lines += lines
        self.size += sum(map(len, lines))

    def encode(self, tokenizer: BatchTokenizer, threads: int | None) -> Encoding:
        encoded = tokenizer.encode_batch(self.lines, **_options(tokenizer, threads))
        return encoded.input_ids, encoded.offsets, np.array(self.firsts, np.int64)


@dataclass
class TextBatch:
    """Blocks of UTF-8 text; ``firsts`` are the first lines of files, ``rests`` the ends of cut lines."""

    blocks: list[bytes] = field(default_factory=list)
    num_lines: int = 0
    firsts: list[int] = field(default_factory=list)
    rests: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, block: bytes, first: bool, rest: bool) -> None:
        if first:
            self.firsts.append(self.num_lines)
        if rest:
            self.rests.append(self.num_lines)
        self.blocks.append(block)
        self.num_lines += block.count(b"\n")
        self.size += len(block)
        if not block.endswith(b"\n"):
            self.blocks.append(b"\n")
            self.num_lines += 1

    def encode(self, tokenizer: BatchTokenizer, threads: int | None) -> Encoding:
        data = b"".join(self.blocks)
        encoded = tokenizer.encode_file(data, **_options(tokenizer, threads))
        blank = self._blank_lines(data, encoded.offsets)
        firsts = np.union1d(blank, np.array(self.firsts, np.int64))
        return encoded.input_ids, encoded.offsets, firsts

    def _blank_lines(self, data: bytes, offsets: Ints) -> Ints:
        """(n,) blank lines, except the ends of cut lines."""
        if any(rare in data for rare in _RARE_BLANKS):
            candidates = np.arange(self.num_lines)
        else:
            candidates = np.flatnonzero(np.diff(offsets) == 0)
        candidates = np.setdiff1d(candidates, self.rests, assume_unique=True)
        if not len(candidates):
            return candidates
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        ends = newlines[candidates]
        starts = np.where(candidates > 0, newlines[candidates - 1] + 1, 0)
        blank = starts == ends
        for k in np.flatnonzero(~blank):
            blank[k] = data[starts[k] : ends[k]].decode().isspace()
        return candidates[blank]


def batches(corpus: Corpus, shard: tuple[int, int] = (0, 1)) -> Iterator[LineBatch | TextBatch]:
    """Yield a corpus, or one of n shards of it, in deterministic batches.

    Raises:
        InputError: bad text, or none.
    """
    files = corpus.files_of(shard)
    if files:
        yield from _batches_of_files(corpus, files)
        return
    batch = LineBatch()
    for document in corpus.documents(shard):
        batch.add(document.lines, document.continues)
        if batch.size >= BATCH_SIZE:
            yield batch
            batch = LineBatch()
    if batch.size:
        yield batch


def _batches_of_files(corpus: Corpus, files: list[Source]) -> Iterator[LineBatch | TextBatch]:
    batch: LineBatch | TextBatch | None = None
    last: Source | None = None
    cut = False  # the last block ended within a line
    for file, raw in corpus.raw_parts(files):
        full = batch is not None and batch.size >= BATCH_SIZE
        if isinstance(raw, bytes):
            if full or not isinstance(batch, TextBatch):
                if batch is not None:
                    yield batch
                batch = TextBatch()
            batch.add(raw, first=file is not last, rest=cut and file is last)
            cut = not raw.endswith(b"\n")
        else:
            if full or not isinstance(batch, LineBatch):
                if batch is not None:
                    yield batch
                batch = LineBatch()
            batch.add(*raw)
        last = file
    if batch is not None:
        yield batch


def _options(tokenizer: BatchTokenizer, threads: int | None) -> dict[str, Any]:
    return {
        "add_special_tokens": False,
        # "[SEP]" in a text is ordinary text, not the end of a segment; added special tokens are tokens (of_corpora)
        "split_special_tokens": getattr(tokenizer, "splits_special_tokens", True),
        "threads": threads,
        "dtype": "uint16" if token_dtype(len(tokenizer)).itemsize == 2 else "int32",
    }
