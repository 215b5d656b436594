"""A corpus: documents from files, folders, globs, standard input, the bundled texts and URLs, streamed.

    corpus = Corpus(["texts/", "more/*.jsonl.zst"], text_field="body")
    for document in corpus.documents():
        ...

The same corpus can be read several times (a vocabulary is trained first, tokens are made then); standard input and
pipes are copied to a temporary file for it. Memory does not grow with the corpus: a document of more than about
two million characters comes in parts (``formats.PART_CHARS``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fastbert.data.compression import ByteStream
from fastbert.data.formats import format_of
from fastbert.data.sources import Source, Spool, find_sources
from fastbert.errors import InputError


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
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard={shard}: expected (i, n) with 0 <= i < n")
        if len(self.sources) >= count:
            yield from self._documents(self.sources[index::count])
            return
        number = -1
        for document in self._documents(self.sources):
            number += not document.continues
            if number % count == index:
                yield document

    def text_chunks(self) -> Iterator[str]:
        """Yield the whole text in large pieces that end between words; the quick way to count words.

        Raises:
            InputError: as :meth:`documents`.
        """
        found = False
        for source in self.sources:
            found_here = False
            with self._open(source) as stream:
                for chunk in format_of(source.format).chunks(stream, self.text_field):
                    found_here = found_here or (bool(chunk) and not chunk.isspace())
                    yield chunk
            self._check_text(source, found_here)
            found = found or found_here
        self._check_corpus(self.sources, found)

    def _documents(self, sources: Sequence[Source]) -> Iterator[Document]:
        found = False
        for source in sources:
            found_here = False
            with self._open(source) as stream:
                for lines, continues in format_of(source.format).documents(stream, self.text_field):
                    found_here = True
                    yield Document(lines, source.name, continues)
            self._check_text(source, found_here)
            found = found or found_here
        self._check_corpus(sources, found)

    def _open(self, source: Source) -> ByteStream:
        opener = self._spools[source.path].open if source.once else source.open
        return ByteStream(opener, source.name, source.compression)

    @staticmethod
    def _check_text(source: Source, found: bool) -> None:
        if source.named and not found:
            raise InputError(f"{source.name}: holds no text: put text in it, or leave it out")

    @staticmethod
    def _check_corpus(sources: Sequence[Source], found: bool) -> None:
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
