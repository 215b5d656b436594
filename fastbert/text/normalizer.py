"""BertNormalizer and BertPreTokenizer: from raw text to normalized words. The readable twin of csrc/text/normalizer.h.

The steps, in order: ``clean_text`` deletes control characters and turns blanks into spaces; ``handle_chinese_chars``
surrounds ideographs with spaces; ``strip_accents`` decomposes (NFD), orders the marks and drops the nonspacing ones;
``lowercase``; then text is split at white space, and each punctuation character is a word (``split_punctuation``), as
is each of the digits 0 to 9 (``single_digits``).

All character properties are those of Hugging Face tokenizers, which mix three Unicode versions (see
csrc/tables/generate.py); ``unicodedata`` would give other words.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastbert.text import unicode_tables as tables

# ASCII blanks and punctuation end a word and stop the reordering of marks under every option, so the segments between
# them can be normalized independently and cached.
_SEGMENT = re.compile(r"[^ \t\n\r!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
_RUN = re.compile(r"[^ \t\n\r]+")  # the same without split_punctuation
_CACHE_LIMIT = 1 << 17
_CACHED_CHARS = 64


@dataclass(frozen=True)
class NormalizerOptions:
    """The normalization steps. All 64 combinations are valid."""

    lowercase: bool = True
    strip_accents: bool = True
    clean_text: bool = True
    handle_chinese_chars: bool = True
    split_punctuation: bool = True
    single_digits: bool = False


def _members(ranges: tuple[tuple[int, ...], ...]) -> frozenset[str]:
    return frozenset(chr(c) for first, last in ranges for c in range(first, last + 1))


def _is_ideograph(char: str) -> bool:
    code_point = ord(char)
    return any(first <= code_point <= last for first, last in tables.IDEOGRAPH)


_REMOVED = _members(tables.REMOVED[:-2])
_REMOVED_PLANES = tables.REMOVED[-2:]  # private use: two whole planes, stored as ranges
_CLEAN_SPACE = _members(tables.CLEAN_SPACE)
_WHITE_SPACE = _members(tables.WHITE_SPACE)
_PUNCTUATION = _members(tables.PUNCTUATION)
_NONSPACING = _members(tables.NONSPACING)
_COMBINING_CLASS = {chr(c): k for first, last, k in tables.COMBINING_CLASSES for c in range(first, last + 1)}
_DECOMPOSITION = {chr(row[0]): "".join(map(chr, row[1:])) for row in tables.DECOMPOSITIONS}
_LOWER = {
    **{chr(c): chr(c + delta) for first, last, step, delta in tables.LOWER_RUNS for c in range(first, last + 1, step)},
    **{chr(row[0]): "".join(map(chr, row[1:])) for row in tables.LOWER_EXPANSIONS},
}


def _is_digit(char: str) -> bool:
    return "0" <= char <= "9"


def is_single(char: str, options: NormalizerOptions) -> bool:
    """Whether the character is always a word of its own: punctuation, ideographs, digits, as the options say."""
    return (
        (options.split_punctuation and char in _PUNCTUATION)
        or (options.handle_chinese_chars and _is_ideograph(char))
        or (options.single_digits and _is_digit(char))
    )


def _is_removed(char: str) -> bool:
    return char in _REMOVED or any(first <= ord(char) <= last for first, last in _REMOVED_PLANES)


def _decompose(char: str) -> str:
    """The full canonical decomposition of one character."""
    index = ord(char) - 0xAC00
    if 0 <= index < 11172:  # Hangul: Unicode Standard, section 3.12
        tail = chr(0x11A7 + index % 28) if index % 28 else ""
        return chr(0x1100 + index // 588) + chr(0x1161 + index % 588 // 28) + tail
    return _DECOMPOSITION.get(char, char)


def lowered(char: str) -> str:
    """One character lowercased, several characters for some."""
    return _LOWER.get(char, char)


def without_accents(char: str) -> str:
    """One character decomposed, without its nonspacing marks."""
    return "".join(part for part in _decompose(char) if part not in _NONSPACING)


# a character of the text during normalization, and the index of its raw character
Aligned = tuple[str, int]


def _clean(chars: Iterator[Aligned]) -> Iterator[Aligned]:
    for char, source in chars:
        if char in _CLEAN_SPACE:
            yield " ", source
        elif not _is_removed(char):
            yield char, source


def _set_apart(chars: Iterator[Aligned], is_apart: Callable[[str], bool]) -> Iterator[Aligned]:
    for char, source in chars:
        if is_apart(char):
            yield from ((" ", source), (char, source), (" ", source))
        else:
            yield char, source


def _strip_accents(chars: Iterator[Aligned]) -> Iterator[Aligned]:
    """NFD, then drop the nonspacing marks.

    After sorting the marks, the i-th code point that replaces a source character is aligned with the i-th source
    character, and an inserted one (a further code point of a decomposition) with the source before it.
    """
    last_source = 0

    def ordered(run: list[tuple[str, bool]], sources: list[int]) -> Iterator[Aligned]:
        nonlocal last_source
        run.sort(key=lambda item: _COMBINING_CLASS.get(item[0], 0))  # canonical order requires a stable sort
        following = iter(sources)
        for char, inserted in run:
            if not inserted:
                last_source = next(following)
            if char not in _NONSPACING:
                yield char, last_source

    run: list[tuple[str, bool]] = []  # a starter and the marks after it
    sources: list[int] = []
    for char, source in chars:
        for i, part in enumerate(_decompose(char)):
            if part not in _COMBINING_CLASS:
                yield from ordered(run, sources)
                run, sources = [], []
            run.append((part, i > 0))
            if i == 0:
                sources.append(source)
    yield from ordered(run, sources)


def _lowercase(chars: Iterator[Aligned]) -> Iterator[Aligned]:
    """Character by character: no final sigma."""
    for char, source in chars:
        for low in lowered(char):
            yield low, source


class Normalizer:
    """Converts text to normalized words.

    Args:
        options: the steps.
    """

    def __init__(self, options: NormalizerOptions) -> None:
        self.options = options
        self._cache: dict[str, list[str]] = {}

    def words(self, text: str) -> list[str]:
        """Return the normalized words of ``text``, in order."""
        result: list[str] = []
        cache = self._cache
        for segment in (_SEGMENT if self.options.split_punctuation else _RUN).findall(text):
            words = cache.get(segment)
            if words is None:
                words = ["".join(char for char, _ in word) for word in self._aligned(segment)]
                if len(segment) <= _CACHED_CHARS:
                    if len(cache) >= _CACHE_LIMIT:
                        cache.clear()
                    cache[segment] = words
            result += words
        return result

    def aligned_words(self, text: str) -> list[tuple[str, list[int]]]:
        """Return each word with the index in ``text`` of each of its characters."""
        return [("".join(char for char, _ in word), [source for _, source in word]) for word in self._aligned(text)]

    def _aligned(self, text: str) -> Iterator[list[Aligned]]:
        options = self.options
        chars: Iterator[Aligned] = ((char, i) for i, char in enumerate(text))
        if options.clean_text:
            chars = _clean(chars)
        if options.handle_chinese_chars:
            chars = _set_apart(chars, _is_ideograph)
        if options.single_digits:
            chars = _set_apart(chars, _is_digit)
        if options.strip_accents:
            chars = _strip_accents(chars)
        if options.lowercase:
            chars = _lowercase(chars)
        punctuation = _PUNCTUATION if options.split_punctuation else frozenset[str]()
        word: list[Aligned] = []
        for char, source in chars:
            if char in _WHITE_SPACE or char in punctuation:
                if word:
                    yield word
                    word = []
                if char in punctuation:
                    yield [(char, source)]
            else:
                word.append((char, source))
        if word:
            yield word
