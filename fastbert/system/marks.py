"""Characters that belong to the one before them: combining marks and format characters.

Python's ``\\w`` does not match them, so an expression made of it cuts "é" written as two characters, and every vowel
sign of Thai or Devanagari, off its letter.

Reference: Unicode Standard Annex #29, Unicode Text Segmentation, rule WB4.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

# where such characters are: planes 0 and 1, and the tags and variation selectors of plane 14
_PLANES = (range(0x20000), range(0xE0000, 0xE0200))


def is_mark(character: str) -> bool:
    """Whether a character belongs to the one before it."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


@cache
def mark_class() -> str:
    r"""All such characters as ranges, for use within the brackets of a regular expression: ``[\w…]``."""
    ranges: list[list[int]] = []
    for plane in _PLANES:
        for code in plane:
            if not is_mark(chr(code)):
                continue
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


def include_marks(text: str, end: int, limit: int | None = None) -> int:
    """The end of a piece of ``text`` moved behind the marks that follow it, up to ``limit`` (the next piece)."""
    limit = len(text) if limit is None else limit
    while 0 < end < limit and is_mark(text[end]):
        end += 1
    return end


def spans_with_marks(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending character spans of ``text``, each ended behind the marks that no other span covers.

    A tokenizer that removes accents gives "é" of two characters the span of the first.
    """
    if text.isascii():
        return list(spans)
    starts = [start for start, _ in spans[1:]] + [len(text)]
    return [
        (start, include_marks(text, end, max(end, following)))
        for (start, end), following in zip(spans, starts, strict=True)
    ]
