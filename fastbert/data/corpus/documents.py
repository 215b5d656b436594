"""A corpus: documents from files, folders, globs, standard input, the bundled texts and URLs, streamed.

    corpus = Corpus(["texts/", "more/*.jsonl.zst"], text_field="body")
    for document in corpus.documents():
        ...

The same corpus can be read several times (a vocabulary is trained first, tokens are made then); standard input and
pipes are copied to a temporary file for it. Memory does not grow with the corpus: a document of more than about
two million characters comes in parts (``formats.PART_CHARS``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fastbert.data.corpus.compression import ByteStream
from fastbert.data.corpus.formats import Part, format_of
from fastbert.data.corpus.sources import Source, Spool, find_sources
from fastbert.data.corpus.text_blocks import utf8_blocks
from fastbert.system.errors import InputError

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or a part of a very long one.

    Attributes:
        lines: its lines that are not blank; the sentences of next-sentence prediction.
        source: the file it is from.
        continues: it is a further part of the document before it.
    """

    lines: list[str]
    source: str
    continues: bool = False


class Corpus:
    """Text from any number of sources, in their order; to be read as often as needed.

    Args:
        sources: paths, globs, directories (searched through, in sorted order, for known endings; hidden files are left
            out), "-" for standard input, "bundled:pt", "bundled:en", or fsspec URLs.
        text_field: the field of .jsonl, .csv, .tsv and .parquet that holds the text; "text" when not given.

    Raises:
        InputError: a source that does not exist, cannot be read or is empty. Faults in the text come while reading.
    """

    def __init__(self, sources: Sequence[str], text_field: str | None = None):
        if isinstance(sources, str):
            raise TypeError(f"sources={sources!r}: expected a sequence of str, got one str; wrap it in a list")
        self.text_field = text_field
        self.sources: list[Source] = find_sources([str(source) for source in sources])
        self._spools = {source.path: Spool(source) for source in self.sources if source.once}

    def identity(self) -> list[list]:
        """Name, size and modification time (of pipes: checksum) of every source, to know a corpus again by."""
        return [
            self._spools[source.path].identity() if source.once else [source.name, source.size, source.modified_ns]
            for source in self.sources
        ]

    def documents(self, shard: tuple[int, int] = (0, 1)) -> Iterator[Document]:
        """Yield every document.

        Args:
            shard: (i, n) gives the i-th of n parts, i from 0. Where there are at least n files, file k belongs to part
                k mod n; else document k of the corpus does.

        Raises:
            InputError: bad text (file, line or byte, and remedy), or no text at all.
        """
        sources = self.files_of(shard)
        number = -1
        for source, (lines, continues) in self._read(sources or self.sources, self._parts, lambda part: True):
            number += not continues
            if sources or number % shard[1] == shard[0]:
                yield Document(lines, source.name, continues)

    def text_chunks(self) -> Iterator[str]:
        """Yield the whole text in large pieces that end between words; the quick way to count words.

        Raises:
            InputError: as :meth:`documents`.
        """
        for _, chunk in self._read(self.sources, self._chunks, lambda chunk: not chunk.isspace()):
            yield chunk

    def raw_parts(self, sources: Sequence[Source]) -> Iterator[tuple[Source, bytes | Part]]:
        """Yield (file, what is in it): UTF-8 blocks of plain text (see ``utf8_blocks``), parts of documents of others.

        Raises:
            InputError: as :meth:`documents`.
        """
        return self._read(sources, self._raw, lambda raw: not isinstance(raw, bytes) or not raw.decode().isspace())

    def files_of(self, shard: tuple[int, int]) -> list[Source]:
        """The files of a part of the corpus; none where parts are made of single documents."""
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard={shard}: expected (i, n) with 0 <= i < n")
        return self.sources[index::count] if len(self.sources) >= count else []

    def _parts(self, source: Source, stream: ByteStream) -> Iterator[Part]:
        return format_of(source.format).documents(stream, self.text_field)

    def _chunks(self, source: Source, stream: ByteStream) -> Iterator[str]:
        return format_of(source.format).chunks(stream, self.text_field)

    def _raw(self, source: Source, stream: ByteStream) -> Iterator[bytes | Part]:
        return utf8_blocks(stream) if source.format == "text" else self._parts(source, stream)

    def _read(
        self,
        sources: Sequence[Source],
        reader: Callable[[Source, ByteStream], Iterator[Piece]],
        has_text: Callable[[Piece], bool],
    ) -> Iterator[tuple[Source, Piece]]:
        """Yield what ``reader`` gives for each file; a named file without text, or no text at all, is an error."""
        found = False
        for source in sources:
            found_here = False
            opener = self._spools[source.path].open if source.once else source.open
            with ByteStream(opener, source.name, source.compression) as stream:
                for piece in reader(source, stream):
                    found_here = found_here or has_text(piece)
                    yield source, piece
            if source.named and not found_here:
                raise InputError(f"{source.name}: holds no text: put text in it, or leave it out")
            found = found or found_here
        if not found:
            names = ", ".join(source.name for source in islice(sources, 3)) + (", …" if len(sources) > 3 else "")
            raise InputError(f"{names}: no text in any of {len(sources)} files: give files with text in them")

    def close(self) -> None:
        """Remove the temporary copies of what can be read only once."""
        for spool in self._spools.values():
            spool.close()

    def __enter__(self) -> "Corpus":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_documents(sources: Sequence[str], *, text_field: str | None = None) -> Iterator[Document]:
    """Yield the documents of a corpus once; see :class:`Corpus` for the arguments and errors."""
    with Corpus(sources, text_field) as corpus:
        yield from corpus.documents()
