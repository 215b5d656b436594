"""One pass over a corpus: files, documents, lines, words, and what repeats.

Words are counted by the C++ core that also trains vocabularies. Memory is bounded: rare words and lines are dropped
when there are too many, and the figures that are estimates then say so.
"""

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fastbert.data.corpus.documents import Corpus
from fastbert.data.corpus.reading import ReadingRules
from fastbert.data.corpus.sources import Source, endings, find_sources
from fastbert.inspect.lines import MAX_WORD_CHARS, Lines
from fastbert.system.errors import InputError
from fastbert.text.tokenizer_files import TokenizerOptions
from fastbert.text.word_counts import WordCounts

MAX_WORDS = 4_000_000  # distinct words, some 400 MB
NUM_LONGEST = 5
_CHECK_EVERY_BYTES = 64 << 20
_NUM_LISTED = 20


@dataclass
class Survey:
    """What was read.

    Attributes:
        num_files: read to their end; ``formats``: by format.
        problems: files that cannot be read and why, up to 20; ``num_problems``: all.
        left_out: endings of files in named folders that are no text -> number.
        num_bytes: of text, in UTF-8.
        word_counts: words of at most MAX_WORD_CHARS characters, normalized.
        dropped_words: occurrences of rare words that were dropped to bound the memory.
        longest: (bytes, file, number of the document in it) of the longest documents.
        document_bytes: number of documents by the binary logarithm of their size.
    """

    num_files: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    num_problems: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    word_counts: WordCounts = field(default_factory=WordCounts)
    dropped_words: int = 0
    lines: Lines = field(default_factory=Lines)
    longest: list[tuple[int, str, int]] = field(default_factory=list)
    document_bytes: Counter[int] = field(default_factory=Counter)
    corpus: Corpus | None = None  # the files that exist

    @property
    def num_documents(self) -> int:
        return self.lines.num_documents

    @property
    def num_lines(self) -> int:
        return self.lines.num_lines

    @property
    def long_words(self) -> int:
        """Words that the counter passes over."""
        return self.lines.totals.long_words

    @property
    def num_words(self) -> int:
        return self.word_counts.total + self.long_words + self.dropped_words


def survey(data: Sequence[str], rules: ReadingRules, options: TokenizerOptions, threads: int | None = None) -> Survey:
    """Read a corpus.

    Args:
        data: as for :class:`Corpus`.
        rules: of reading.
        options: normalization of words.
        threads: of the word counter.

    Raises:
        InputError: none of the names is a file.
    """
    found = Survey(
        word_counts=WordCounts(
            lowercase=options.normalizer.lowercase,
            strip_accents=options.normalizer.strip_accents,
            clean_text=options.clean_text,
            handle_chinese_chars=options.handle_chinese_chars,
            split_punctuation=options.split_punctuation,
            single_digits=options.single_digits,
            max_word_chars=MAX_WORD_CHARS,
            threads=threads,
        )
    )
    names = [name for name in data if _exists(name, found)]
    if not names:
        raise InputError(found.problems[0])
    found.corpus = Corpus(names, rules.text_field, rules.documents, rules.normalize)
    for name in names:
        found.left_out.update(_left_out(name))
    for source in found.corpus.sources:
        try:
            _read(found, found.corpus, source)
        except InputError as error:
            found.lines.end()
            _add_problem(found, error)
            continue
        found.num_files += 1
        found.formats[source.format + source.compression] += 1
    found.longest.sort(reverse=True)
    return found


def _exists(name: str, found: Survey) -> bool:
    try:
        find_sources([name])
    except InputError as error:
        _add_problem(found, error)
        return False
    return True


def _add_problem(found: Survey, error: InputError) -> None:
    found.num_problems += 1
    if len(found.problems) < _NUM_LISTED:
        found.problems.append(str(error))


def _left_out(name: str) -> Iterator[str]:
    """The endings of the files of a folder that are not read."""
    for _, folders, files in os.walk(os.path.expanduser(name)):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            if file.startswith("."):
                yield "hidden"
            elif not endings(file)[0]:
                yield os.path.splitext(file)[1].lower() or "without ending"


def _read(found: Survey, corpus: Corpus, source: Source) -> None:
    number = unchecked = 0
    for _, raw in corpus.raw_parts([source]):
        if isinstance(raw, bytes):
            data, ended = raw, found.lines.add_text(raw)
        else:
            data = "\n".join(raw[0]).encode()
            size = found.lines.add(data, raw[1])
            ended = [size] if size else []
        for size in ended:
            number += 1
            _end_document(found, size, source.name, number)
        found.word_counts.add_bytes(data, source.name)
        found.num_bytes += len(data)
        unchecked += len(data)
        if unchecked > _CHECK_EVERY_BYTES:
            unchecked = 0
            _drop_rare_words(found)
    _end_document(found, found.lines.end(), source.name, number + 1)


def _end_document(found: Survey, size: int, name: str, number: int) -> None:
    if not size:
        return
    found.document_bytes[size.bit_length()] += 1
    heapq.heappush(found.longest, (size, name, number))
    if len(found.longest) > NUM_LONGEST:
        heapq.heappop(found.longest)


def _drop_rare_words(found: Survey) -> None:
    least = 2
    while len(found.word_counts) > MAX_WORDS:
        counts = found.word_counts
        kept = WordCounts(**vars(counts.options), max_word_chars=counts.max_word_chars)
        kept.add_words((word, count) for word, count in counts.items() if count >= least)
        found.dropped_words += counts.total - kept.total
        found.word_counts, least = kept, least * 2
