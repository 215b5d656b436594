"""Characters that give away what happened to a text: decoded wrongly, damaged, or with signs that nobody sees."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fastbert.inspect.findings import Finding

MIN_SHARE = 0.0005  # of the characters, for what is worth a word
MIN_CAPITALS_SHARE = 0.2  # of the words, with a capital behind another letter
# UTF-8 read as windows-1252, where "é" became "Ã©" and a curly apostrophe three characters
_MISREAD = re.compile("Ã[\u0080-\u00bf\u0192\u0160\u0161\u201a-\u2122]|â€[\u0080-\u00bf\u0152-\u2122]|Â[\u00a0-\u00bf]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_REPLACEMENT = "\ufffd"
_CAPITALS = re.compile(r"\b\w{1,29}[A-Z]\w{0,29}\b")
_WORD = re.compile(r"\b[^\W\d_]")
_SAMPLE_CHARS = 1 << 18  # of each piece of text, for what is counted by a regular expression over every word


@dataclass
class CharacterCounts:
    """Counts in the text that was read."""

    chars: int = 0
    misread: int = 0
    replaced: int = 0
    invisible: int = 0
    words: int = 0  # of the samples
    words_with_capitals: int = 0  # behind their first letter

    def add(self, text: str) -> None:
        self.chars += len(text)
        sample = text[:_SAMPLE_CHARS]
        self.words += len(_WORD.findall(sample))
        self.words_with_capitals += len(_CAPITALS.findall(sample))
        if text.isascii():
            return
        self.misread += len(_MISREAD.findall(text))
        self.replaced += text.count(_REPLACEMENT)
        self.invisible += len(_INVISIBLE.findall(text))


def findings(counts: CharacterCounts) -> Iterator[Finding]:
    """What the counts mean for training."""
    least = MIN_SHARE * counts.chars
    if counts.misread > 2 and counts.misread >= least:
        what = f"{counts.misread:,} times letters stand as in Ã© for é: UTF-8 was read as windows-1252"
        yield Finding("misread characters", what, "iconv -f utf-8 -t windows-1252 OLD > NEW, which turns it back")
    if counts.replaced and counts.replaced >= least:
        what = f"{counts.replaced:,} times \ufffd: characters were lost when the text was decoded"
        yield Finding("lost characters", what, "decode the original again")
    if counts.invisible and counts.invisible >= least:
        what = f"{counts.invisible:,} soft hyphens, zero-width spaces and marks of direction; the tokenizer drops them"
        yield Finding("invisible characters", what, severe=False)
    if counts.words and counts.words_with_capitals >= MIN_CAPITALS_SHARE * counts.words:
        what = (
            f"{counts.words_with_capitals:,} of {counts.words:,} words have capitals within, such as NASA or iPhone: a "
            "vocabulary of other text divides them into single letters"
        )
        yield Finding("capitals within words", what, "a vocabulary trained on this text, or --lowercase", severe=False)
