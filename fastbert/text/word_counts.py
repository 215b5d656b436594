"""Counts of the normalized words in a text of any size: the first step of training a vocabulary.

Words are counted as the tokenizer sees them (:mod:`fastbert.text.normalizer`). The rules:

1. A text is divided into runs of bytes without ASCII blanks (space, tab, line feed, carriage return). A run of more
   than ``LONGEST_RUN`` bytes is cut every ``LONGEST_RUN`` bytes, before a character, which bounds the memory.
2. Runs are normalized and split into words. Special tokens in the text are ordinary text, as in the token store.
3. Words of more than ``max_word_chars`` characters are ignored, because the tokenizer gives [UNK] for them.

Counting streams: memory grows only with the number of distinct words. The counts do not depend on the order of the
texts, on their division into calls, or on the number of threads.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from fastbert.system.errors import InputError
from fastbert.system.native import core
from fastbert.text.normalizer import Normalizer, NormalizerOptions

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_RUN = 1 << 20  # bytes
MAX_WORD_CHARS = 100
_MAX_COUNT = 2**63 - 1
_BLANKS = (b" ", b"\t", b"\n", b"\r")
_RUN = re.compile(r"[^ \t\n\r]+")
_BATCH_CHARS = 1 << 20
_BLOCK_BYTES = 4 << 20


def check_unicode(text: str, name: str) -> None:
    """Refuse a lone surrogate, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: character {error.start} of {text!r:.60} is a lone surrogate, not Unicode text. "
            'Try: text.encode("utf-8", "replace").decode()'
        ) from None


def check_special_tokens(special_tokens: Sequence[str]) -> tuple[str, ...]:
    """Return them as a tuple; a vocabulary file has one piece per line, so blanks and duplicates are errors."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens={special_tokens!r}: expected a sequence of str, got one str")
    for token in special_tokens:
        if token.startswith("##"):
            raise InputError(f"special_tokens: {token!r} begins as the rest of a word. Try: another beginning than ##")
        if not token or token != "".join(token.split()):
            raise InputError(f"special_tokens: {token!r} is empty or contains white space. Try: tokens without blanks")
        check_unicode(token, "special_tokens")
    if len(set(special_tokens)) != len(special_tokens):
        raise InputError(f"special_tokens: {list(special_tokens)} contains a token twice. Try: each once")
    return tuple(special_tokens)


def _cut(data: bytes, limit: int) -> int:
    """The last start of a character at or before ``limit`` (at most 3 bytes before)."""
    for end in range(limit, limit - 3, -1):
        if data[end] & 0xC0 != 0x80:
            return end
    return limit - 3


def _complete(data: bytes) -> int:
    """The number of bytes at the front whose runs are complete."""
    end = max(data.rfind(blank) for blank in _BLANKS) + 1
    while len(data) - end > LONGEST_RUN:
        end = _cut(data, end + LONGEST_RUN)
    return end


class _ReferenceCounter:
    """The readable twin of csrc/vocab/word_counter.h."""

    def __init__(self, options: NormalizerOptions, max_word_chars: int) -> None:
        self.counts: dict[str, int] = {}
        self.total = 0
        self._normalizer = Normalizer(options)
        self._max_word_chars = max_word_chars

    def _runs(self, text: str) -> Iterator[str]:
        for match in _RUN.finditer(text):
            run = match.group()
            if 4 * len(run) <= LONGEST_RUN:
                yield run
                continue
            data = run.encode()
            start = 0
            while len(data) - start > LONGEST_RUN:
                end = _cut(data, start + LONGEST_RUN)
                yield data[start:end].decode()
                start = end
            yield data[start:].decode()

    def add_texts(self, texts: Sequence[str]) -> None:
        for text in texts:
            text.encode()  # a lone surrogate is an error, as in the core
        for text in texts:
            for run in self._runs(text):
                for word in self._normalizer.words(run):
                    if len(word) <= self._max_word_chars:
                        self.add_word(word, 1)

    def add_bytes(self, data: bytes, final: bool) -> int:
        """Count the complete runs at the front of ``data`` (everything if ``final``); return the bytes used."""
        used = len(data) if final else _complete(data)
        self.add_texts([data[:used].decode()])
        return used

    def add_word(self, word: str, count: int) -> None:
        if count > _MAX_COUNT - self.total:
            raise OverflowError("the counts add up to more than 2**63 - 1")
        self.total += count
        self.counts[word] = self.counts.get(word, 0) + count

    def __len__(self) -> int:
        return len(self.counts)

    def items(self) -> list[tuple[str, int]]:
        return sorted(self.counts.items())  # by code point, which is the order of the UTF-8 bytes too


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_chars = 0
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts: expected str, got {type(text).__name__}: {text!r:.60}")
        batch.append(text)
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield batch
            batch, num_chars = [], 0
    if batch:
        yield batch


class WordCounts:
    """Counts of distinct normalised words, to train a vocabulary from.

    Args:
        lowercase, strip_accents, clean_text, handle_chinese_chars, split_punctuation, single_digits: the tokenizer's
            options; ``strip_accents=None`` means the same as ``lowercase``.
        max_word_chars: longer words are not counted.
        threads: of the C++ core; None means all CPUs of the process.
        impl: "auto", "cpp" or "reference".

    Methods that count raise :class:`InputError` for text that is not Unicode or UTF-8; the text before the error may
    have been counted.
    """

    def __init__(
        self,
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        split_punctuation: bool = True,
        single_digits: bool = False,
        max_word_chars: int = MAX_WORD_CHARS,
        threads: int | None = None,
        impl: str = "auto",
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: expected at least 1, or None for all")
        self.max_word_chars = max_word_chars
        self.options = NormalizerOptions(
            lowercase=lowercase,
            strip_accents=lowercase if strip_accents is None else strip_accents,
            clean_text=clean_text,
            handle_chinese_chars=handle_chinese_chars,
            split_punctuation=split_punctuation,
            single_digits=single_digits,
        )
        self._native = core(impl)
        self._counter: Any
        if self._native is None:
            self._counter = _ReferenceCounter(self.options, max_word_chars)
        else:
            options = self._native.NormalizerOptions(**vars(self.options))
            self._counter = self._native.WordCounter(options, max_word_chars, threads or 0)

    def __len__(self) -> int:
        """Number of distinct words."""
        return len(self._counter)

    @property
    def total(self) -> int:
        """Number of words."""
        return int(self._counter.total)

    def items(self) -> list[tuple[str, int]]:
        """All (word, count), sorted by the words' bytes."""
        return list(self._counter.items())

    def add_texts(self, texts: Iterable[str]) -> None:
        """Count the words of texts (documents or lines), with about a megabyte of text in memory at a time."""
        if isinstance(texts, str):
            raise TypeError("texts: expected an iterable of str, got one str; wrap it in a list")
        number = 0
        for batch in _batches(texts):
            try:
                self._counter.add_texts(batch)
            except UnicodeEncodeError as error:
                index = next(i for i, text in enumerate(batch) if text == error.object)
                check_unicode(batch[index], f"text {number + index + 1}")
            number += len(batch)

    def add_words(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Add counts of normalized words.

        Raises:
            ValueError: an empty word or a count below 1.
            OverflowError: the counts add up to more than 2**63 - 1.
        """
        for word, count in pairs:
            if not word or count < 1:
                raise ValueError(f"word {word!r} with count {count}: expected a word and a count of at least 1")
            check_unicode(word, "word")
            if count > _MAX_COUNT:
                raise OverflowError("the counts add up to more than 2**63 - 1")
            self._counter.add_word(word, count)

    def add_bytes(self, data: bytes | bytearray | memoryview, name: str = "data") -> None:
        """Count the words of UTF-8 text; errors call it ``name``."""
        self._feed(data, True, name, 0)

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Count the words of a UTF-8 text file, read in blocks; the C++ core creates no Python strings."""
        try:
            with open(path, "rb", buffering=0) as file:
                self._add_stream(file, str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}). Try: a readable text file") from None

    def _add_stream(self, file: BinaryIO, name: str) -> None:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        offset = kept = 0  # bytes counted so far, and bytes at the front of the buffer of an incomplete run
        while num_read := file.readinto(buffer[kept:]):  # type: ignore[attr-defined]
            end = kept + num_read
            used = self._feed(buffer[:end], False, name, offset)
            offset, kept = offset + used, end - used
            buffer[:kept] = bytes(buffer[used:end])
        self._feed(buffer[:kept], True, name, offset)

    def _feed(self, data: Any, final: bool, name: str, offset: int) -> int:
        try:
            return int(self._counter.add_bytes(bytes(data) if self._native is None else data, final))
        except UnicodeDecodeError as error:
            where = offset + error.start
            raise InputError(f"{name}: byte {where} is not UTF-8. Try: convert the file to UTF-8") from None

    def counter(self, impl: str) -> Any:
        """The counter in the implementation ``impl`` (a copy if it is the other one)."""
        if core(impl) is self._native:
            return self._counter
        copy = WordCounts(**vars(self.options), max_word_chars=self.max_word_chars, impl=impl)
        copy.add_words(self.items())
        return copy._counter
