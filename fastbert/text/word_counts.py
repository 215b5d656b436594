"""How often each normalised word occurs in a text of any size: the first step of training a vocabulary.

Words are counted as the tokenizer sees them (:mod:`fastbert.text.normalizer`). The rules:

1. A text is read as runs of bytes without an ASCII blank (space, tab, line feed, carriage return). A run of more than
   ``LONGEST_RUN`` bytes is cut every ``LONGEST_RUN`` bytes, before a character: a line of any length needs no more
   memory than that.
2. Special tokens in the raw text are split out and not counted.
3. What is left is normalised and split into words; words of more than ``MAX_WORD_CHARS`` characters are ignored
   (the tokenizer gives the unknown token for them whatever the vocabulary).

Counting streams: memory grows with the number of distinct words and with nothing else. The counts do not depend on
the order of the texts, on how they are cut into calls, or on the number of threads.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
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
_FORMAT = "fastbert word counts"


def check_unicode(text: str, name: str) -> None:
    """Refuse a lone surrogate, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: character {error.start} of {text!r:.60} is a lone surrogate, which is no Unicode text; "
            'repair it with text.encode("utf-8", "replace").decode()'
        ) from None


def check_special_tokens(special_tokens: Sequence[str]) -> tuple[str, ...]:
    """Return them as a tuple; a vocabulary file holds one piece a line, so blanks and doubles are refused."""
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens={special_tokens!r}: expected a sequence of str, got one str")
    for token in special_tokens:
        if not token or token != "".join(token.split()):
            raise InputError(f"special_tokens: {token!r} is empty or holds white space; give tokens without blanks")
        check_unicode(token, "special_tokens")
    if len(set(special_tokens)) != len(special_tokens):
        raise InputError(f"special_tokens: {list(special_tokens)} holds a token twice; give each once")
    return tuple(special_tokens)


def _cut(data: bytes, limit: int) -> int:
    """The last start of a character at or before ``limit`` (3 bytes before it at the most)."""
    for end in range(limit, limit - 3, -1):
        if data[end] & 0xC0 != 0x80:
            return end
    return limit - 3


def _complete(data: bytes) -> int:
    """How many bytes from the front hold runs that no further bytes can change."""
    end = max(data.rfind(blank) for blank in _BLANKS) + 1
    while len(data) - end > LONGEST_RUN:
        end = _cut(data, end + LONGEST_RUN)
    return end


class _ReferenceCounter:
    """The readable twin of csrc/vocab/word_counter.h."""

    def __init__(self, options: NormalizerOptions, special_tokens: Sequence[str]) -> None:
        self.counts: dict[str, int] = {}
        self.total = 0
        self._normalizer = Normalizer(options)
        # leftmost, and the longest of those that start at one place
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if special_tokens else None

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
            text.encode()  # a lone surrogate is an error here as it is in the core
        for text in texts:
            for run in self._runs(text):
                for part in self._special.split(run) if self._special else (run,):
                    for word in self._normalizer.words(part):
                        if len(word) <= MAX_WORD_CHARS:
                            self.add_word(word, 1)

    def add_bytes(self, data: bytes, final: bool) -> int:
        """Count the complete runs at the front of ``data`` (all of it when ``final``); return the bytes used."""
        used = len(data) if final else _complete(data)
        self.add_texts([data[:used].decode()])
        return used

    def add_word(self, word: str, count: int) -> None:
        if count > _MAX_COUNT - self.total:
            raise OverflowError("the counts add up to more than 2**63 - 1")
        self.total += count
        self.counts[word] = self.counts.get(word, 0) + count

    def merge(self, other: "_ReferenceCounter") -> None:
        for word, count in other.counts.items():
            self.add_word(word, count)

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
    """Counts of distinct normalised words, to be filled, merged over machines, saved and learnt from.

    Args:
        lowercase, strip_accents, clean_text, handle_chinese_chars: the tokenizer's options; ``strip_accents=None``
            means the same as ``lowercase``.
        special_tokens: split out of the raw text and not counted.
        threads: of the C++ core; None means all the process may run on.
        impl: "auto", "cpp" or "reference".

    Every method that counts raises :class:`InputError` for text that is not Unicode or UTF-8; what came before the
    fault may have been counted then.
    """

    def __init__(
        self,
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        threads: int | None = None,
        impl: str = "auto",
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: expected at least 1, or None for all")
        self.special_tokens = check_special_tokens(special_tokens)
        self.options = NormalizerOptions(
            lowercase=lowercase,
            strip_accents=lowercase if strip_accents is None else strip_accents,
            clean_text=clean_text,
            handle_chinese_chars=handle_chinese_chars,
        )
        self._native = core(impl)
        self._counter: Any
        if self._native is None:
            self._counter = _ReferenceCounter(self.options, self.special_tokens)
        else:
            options = self._native.NormalizerOptions(**vars(self.options))
            self._counter = self._native.WordCounter(options, self.special_tokens, threads or 0)

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
        """Count the words of texts (documents or lines, as they come), about a megabyte of them in memory at a time."""
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
        """Add counts of words that are normalised already.

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
        """Count the words of UTF-8 text. ``name`` is what errors call it."""
        self._feed(data, True, name, 0)

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Count the words of a UTF-8 text file, read in blocks; no Python strings are made by the C++ core."""
        try:
            with open(path, "rb", buffering=0) as file:
                self._add_stream(file, str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a readable text file") from None

    def _add_stream(self, file: BinaryIO, name: str) -> None:
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        offset = kept = 0  # bytes counted so far, and bytes at the front of the buffer that wait for what follows
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
            raise InputError(f"{name}: byte {where} is not UTF-8 text; convert the file to UTF-8 first") from None

    def merge(self, other: "WordCounts") -> None:
        """Add another's counts, made with the same options, perhaps on another machine.

        Raises:
            InputError: the other was made with other options or special tokens.
        """
        if (self.options, self.special_tokens) != (other.options, other.special_tokens):
            raise InputError(
                f"merge: the counts were made with {other.options} and special tokens {other.special_tokens}, "
                f"these with {self.options} and {self.special_tokens}; count again with the same"
            )
        if type(self._counter) is type(other._counter):
            self._counter.merge(other._counter)
        else:
            self.add_words(other.items())

    def counter(self, impl: str) -> Any:
        """What holds the counts, in the implementation that ``impl`` names (a copy when it is the other one)."""
        if core(impl) is self._native:
            return self._counter
        copy = WordCounts(**vars(self.options), special_tokens=self.special_tokens, impl=impl)
        copy.merge(self)
        return copy._counter

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a text file: a line of JSON with the options, then ``count word`` lines sorted by the words' bytes.

        The same counts give the same bytes. Words never hold a line feed, which is white space in every option.
        """
        header = {"format": _FORMAT, "version": 1, **vars(self.options), "special_tokens": list(self.special_tokens)}
        path = Path(path)
        try:
            handle, temporary = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
            try:
                with open(handle, "w", encoding="utf-8", newline="\n") as file:
                    file.write(json.dumps(header) + "\n")
                    file.writelines(f"{count} {word}\n" for word, count in self.items())
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give a writable path") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None, impl: str = "auto") -> "WordCounts":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file cannot be read or is something else.
        """
        line_number = 1
        try:
            with open(path, encoding="utf-8", newline="\n") as file:
                header = json.loads(file.readline())
                if header.pop("format") != _FORMAT or header.pop("version") != 1:
                    raise ValueError
                counts = cls(**header, threads=threads, impl=impl)
                for line in file:
                    line_number += 1
                    count, separator, word = line.partition(" ")
                    if not (separator and word.endswith("\n") and len(word) > 1 and int(count) > 0):
                        raise ValueError
                    counts._counter.add_word(word[:-1], int(count))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of WordCounts.save") from None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise InputError(f"{path}: line {line_number} is not of a file of word counts; save it again") from None
        return counts
