"""A corpus: documents from files, folders, globs, standard input, the bundled texts and URLs, streamed.

    corpus = Corpus(["texts/", "more/*.jsonl.zst"], text_field="body")
    for document in corpus.documents():
        ...

A corpus can be read several times (first to train a vocabulary, then to tokenize); standard input and pipes are copied
to a temporary file for this. Memory does not grow with the corpus: a document of more than about two million characters
is yielded in parts (``formats.PART_CHARS``).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, TypeVar

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.formats import Part, format_of
from fastbert.data.corpus.reading import Normalization, ReadingRules
from fastbert.data.corpus.sources import Source, SpooledInput, find_sources
from fastbert.data.corpus.text_blocks import utf8_blocks
from fastbert.system.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or a part of a very long one.

    Attributes:
        lines: its non-blank lines, which are the sentences of next-sentence prediction.
        source: its file.
        continues: this is a further part of the previous document.
    """

    lines: list[str]
    source: str
    continues: bool = False


class Corpus:
    """Text from any number of sources, in order; can be read several times.

    Args:
        sources: paths, globs, directories (searched recursively, in sorted order, for known file name endings; hidden
            files are skipped), "-" for standard input, "bundled:pt", "bundled:en", or fsspec URLs.
        text_field: the field with the text in .json, .jsonl, .csv, .tsv and .parquet; by default "text". "a.b" is field
            b of the object in field a, "a,b" joins two fields.
        documents: what ends a document of plain text: a "blank" line, each "line", only the "file", or another string.
        normalize: "nfc", or "none" to keep letters and their accents as they are (:class:`ReadingRules`).

    Raises:
        InputError: a source that does not exist, cannot be read or is empty. Errors in the text are raised on reading.
    """

    def __init__(
        self,
        sources: Sequence[str],
        text_field: str | None = None,
        documents: str = "blank",
        normalize: Normalization = "nfc",
    ):
        if isinstance(sources, str):
            raise TypeError(f"sources={sources!r}: expected a sequence of str, got one str; wrap it in a list")
        self.rules = ReadingRules(text_field, documents, normalize)
        self.sources: list[Source] = find_sources([str(source) for source in sources])
        self._spooled = {source.path: SpooledInput(source) for source in self.sources if source.once}

    def with_rules(self, rules: ReadingRules) -> "Corpus":
        """The same files, read in another way; not to be closed on its own."""
        other = copy.copy(self)
        other.rules = rules
        return other

    @property
    def name(self) -> str:
        """Its file, or the first one and the number of the others."""
        more = len(self.sources) - 1
        return self.sources[0].name + (f" and {more:,} more" if more else "")

    def identity(self) -> list[list]:
        """Name, size and modification time (for pipes: checksum) of every source, to recognize a corpus."""
        return [
            self._spooled[source.path].identity() if source.once else [source.name, source.size, source.modified_ns]
            for source in self.sources
        ]

    def documents(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Document]:
        """Yield every document.

        Args:
            shard: (i, n) selects the i-th of n shards, i from 0. With at least n files, file k belongs to shard
                k mod n; otherwise document k does.

        Raises:
            InputError: bad text (with file, line or byte), or no text at all.
        """
        sources = self.files_of(shard)
        number = -1
        for source, (lines, continues) in self._read(sources or self.sources, self._parts, lambda part: True):
            number += not continues
            if sources or number % shard[1] == shard[0]:
                yield Document(lines, source.name, continues)

    def text_chunks(self) -> Iterator[str]:
        """Yield the whole text in large chunks that end between words; the fast way to count words.

        Raises:
            InputError: as :meth:`documents`.
        """
        for _, chunk in self._read(self.sources, self._chunks, lambda chunk: not chunk.isspace()):
            yield chunk

    def raw_parts(self, sources: Sequence[Source]) -> Iterator[tuple[Source, bytes | Part]]:
        """Yield (file, content): UTF-8 blocks of plain text (``utf8_blocks``) or parts of documents of other formats.

        Raises:
            InputError: as :meth:`documents`.
        """
        return self._read(sources, self._raw, lambda raw: not isinstance(raw, bytes) or not raw.decode().isspace())

    def opener(self, source: Source) -> Callable[[], IO[bytes]]:
        """Opens a file of the corpus, or the copy of what can be read only once."""
        return self._spooled[source.path].open if source.once else source.open

    def files_of(self, shard: tuple[int, int]) -> list[Source]:
        """The files of a shard; none if shards consist of single documents."""
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard={shard}: expected (i, n) with 0 <= i < n")
        return self.sources[index::count] if len(self.sources) >= count else []

    def _parts(self, source: Source, stream: ByteStream) -> Iterator[Part]:
        return format_of(source.format).documents(stream, self.rules)

    def _chunks(self, source: Source, stream: ByteStream) -> Iterator[str]:
        return format_of(source.format).chunks(stream, self.rules)

    def _raw(self, source: Source, stream: ByteStream) -> Iterator[bytes | Part]:
        return utf8_blocks(stream, self.rules) if source.format == "text" else self._parts(source, stream)

    def _read(
        self,
        sources: Sequence[Source],
        reader: Callable[[Source, ByteStream], Iterator[Item]],
        has_text: Callable[[Item], bool],
    ) -> Iterator[tuple[Source, Item]]:
        """Yield the items of ``reader`` for each file; a named file without text, or no text at all, is an error."""
        found = False
        for source in sources:
            found_here = False
            with ByteStream(self.opener(source), source.name, source.compression) as stream:
                for piece in reader(source, stream):
                    found_here = found_here or has_text(piece)
                    yield source, piece
            if source.named and not found_here:
                raise InputError(f"{source.name}: contains no text. Try: add text, or omit the file")
            found = found or found_here
        if not found:
            names = ", ".join(source.name for source in islice(sources, 3)) + (", …" if len(sources) > 3 else "")
            raise InputError(f"{names}: no text in any of {len(sources)} files. Try: files that contain text")

    def close(self) -> None:
        """Delete the temporary copies of standard input and pipes."""
        for spool in self._spooled.values():
            spool.close()

    def __enter__(self) -> "Corpus":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
