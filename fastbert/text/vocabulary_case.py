"""Whether a bare vocab.txt is cased and keeps accents, seen from its entries.

An entry with a capital is out of reach once the text is lowercased, one with an accent once accents are stripped. So a
vocabulary that has such entries was made without that step. A few of them prove nothing: people write words of their
own into the unused lines of an uncased vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastbert.text import normalizer

MIN_SHARE = 0.01  # of the entries that could have a capital, or an accent


@dataclass(frozen=True)
class VocabularyCase:
    """What the entries of a vocabulary say; special tokens in brackets are not counted.

    Attributes:
        capitals: number of entries that lowercasing puts out of reach.
        accents: number of entries that stripping accents puts out of reach.
        cased: whether there are enough of the first.
        accented: whether there are enough of the second.
    """

    capitals: int
    accents: int
    cased: bool
    accented: bool

    @classmethod
    def of(cls, vocab: Sequence[str]) -> "VocabularyCase":
        entries = [set(entry) for entry in vocab if not (len(entry) > 2 and entry[0] == "[" and entry[-1] == "]")]
        chars = set().union(*entries)
        capital = {char for char in chars if normalizer.lowered(char) != char}
        with_case = capital | {char for char in chars if char.upper() != char}
        accent = {char for char in chars if normalizer.without_accents(char) != char}
        beyond_ascii = {char for char in chars if ord(char) > 127 and char.isalpha()} | accent

        def count(wanted: set[str]) -> int:
            return sum(not wanted.isdisjoint(entry) for entry in entries)

        capitals, accents = count(capital), count(accent)
        return cls(
            capitals,
            accents,
            cased=capitals > 0 and capitals >= MIN_SHARE * count(with_case),
            accented=accents > 0 and accents >= MIN_SHARE * count(beyond_ascii),
        )

    def __str__(self) -> str:
        case, accents = "cased" if self.cased else "uncased", "kept" if self.cased or self.accented else "stripped"
        return f"{case}, accents {accents} ({self.capitals:,} of its pieces have capitals, {self.accents:,} accents)"
