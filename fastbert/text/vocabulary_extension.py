"""A vocabulary grown at its end: words of the user's choice, and the pieces that shorten a new text most.

WordPiece takes the longest entry that fits, so an appended word is one piece from then on, and all old ids stay.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unicodedata import normalize

from fastbert.system.errors import InputError
from fastbert.text.detokenize import CONTINUATION
from fastbert.text.normalizer import Normalizer
from fastbert.text.tokenizer import Tokenizer
from fastbert.text.vocab_trainer import merge_pairs
from fastbert.text.word_counts import SPECIAL_TOKENS, WordCounts, check_special_tokens
from fastbert.text.wordpiece import WordPiece

_UNKNOWN = 1 << 31  # beyond every id
# merges tried for each piece wanted, and besides: many only lead to a longer one
CANDIDATES, MORE_CANDIDATES = 2, 1000


def extended(tokenizer: Tokenizer, pieces: Sequence[str], special_tokens: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer with further pieces after its own, and special tokens after these.

    Raises:
        InputError: special tokens with blanks, or the same twice.
    """
    special_tokens = check_special_tokens(special_tokens)
    vocab = [*tokenizer.vocab, *pieces]
    vocab += [token for token in special_tokens if tokenizer.token_to_id(token) is None and token not in pieces]
    added = {token: i for token, i in tokenizer.special_tokens.items() if token not in SPECIAL_TOKENS}
    added |= {token: vocab.index(token) for token in special_tokens if token not in SPECIAL_TOKENS}
    return Tokenizer(vocab, tokenizer.options, added_tokens=added)


@dataclass(frozen=True)
class WordList:
    """The words of a file, as the tokenizer sees them.

    Attributes:
        words: those that the vocabulary lacks.
        present: number of lines whose words it has already.
        divided: lines that the tokenizer divides, at punctuation or between ideographs; their parts are in ``words``.
    """

    words: list[str]
    present: int
    divided: list[str]

    @classmethod
    def read(cls, path: str | Path, tokenizer: Tokenizer, compose: bool = True) -> "WordList":
        """Read one word a line; blank lines are skipped, letters and their accents composed as in the text.

        Raises:
            InputError: no such file, not UTF-8, no words, or a line that is no word: with a blank inside, of nothing
                but control characters, or longer than the tokenizer reads.
        """
        normalizer, longest = Normalizer(tokenizer.options.normalizer), tokenizer.options.max_input_chars_per_word
        words: dict[str, None] = {}
        present, divided = 0, []
        lines = _lines(Path(path))
        for number, line in enumerate(lines, 1):
            if not (word := (normalize("NFC", line) if compose else line).strip()):
                continue
            if len(word.split()) > 1:
                raise InputError(
                    f"--add-words {path}, line {number}: {word!r:.60} is several words. Try: one word a line"
                )
            parts = [word] if word in tokenizer.special_tokens else normalizer.words(word)
            if not parts or max(map(len, parts)) > longest:
                what = "has no letters" if not parts else f"is longer than the {longest} characters of a word"
                raise InputError(f"--add-words {path}, line {number}: {word!r:.60} {what}. Try: without this line")
            missing = [part for part in parts if tokenizer.token_to_id(part) is None]
            words.update(dict.fromkeys(missing))
            present += not missing
            if len(parts) > 1:
                divided.append(word)
        if not words and not present:
            raise InputError(f"--add-words {path}: has no words. Try: a file with one word a line")
        return cls(list(words), present, divided)

    def __str__(self) -> str:
        text = f"{len(self.words):,} words added"
        if self.present:
            text += f", {self.present:,} were there"
        if self.divided:
            text += (
                f"; {len(self.divided):,} lines are several words for the tokenizer, which were added each "
                f"({', '.join(self.divided[:3])}{' …' if len(self.divided) > 3 else ''})"
            )
        return text


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(
            f"--add-words {path}: cannot be read ({error.strerror}). Try: a file with one word a line"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"--add-words {path}: byte {error.start} is not UTF-8. Try: convert the file to UTF-8"
        ) from None


def count_words(texts: Iterable[str], tokenizer: Tokenizer, threads: int | None = None) -> list[tuple[str, int]]:
    """The words of texts as the tokenizer normalizes them, with their counts."""
    options = tokenizer.options
    counts = WordCounts(
        **asdict(options.normalizer), max_word_chars=options.max_input_chars_per_word, threads=threads
    )  # fmt: skip
    counts.add_texts(texts)
    return counts.items()


def most_useful_pieces(
    counts: Iterable[tuple[str, int]], tokenizer: Tokenizer, number: int, min_frequency: int = 2
) -> list[str]:
    """The pieces that shorten a text most when they are added to a vocabulary.

    Adjacent pieces are merged as in training a vocabulary (:mod:`fastbert.text.vocab_trainer`), from the given pieces
    and the characters that they lack. Of more candidates than wanted those stay that save the most tokens where
    WordPiece takes them; a word that could not be written before counts as one token more.

    Args:
        counts: normalized words of the text and their counts.
        tokenizer: has the vocabulary.
        number: of pieces wanted.
        min_frequency: minimum count of a pair to be merged, and of a character.

    Returns:
        At most ``number`` pieces, in the order in which they were found.
    """
    counts = list(counts)
    old = len(tokenizer)
    tokens = [*tokenizer.vocab, *_missing_characters(counts, tokenizer.vocab, min_frequency)]
    longest = tokenizer.options.max_input_chars_per_word
    before = WordPiece(tokens, _UNKNOWN, longest)
    words: dict[str, tuple[list[int], int]] = {}  # whose pieces may become fewer
    for word, count in counts:
        pieces = [piece.id for piece in before.split(word)]
        if pieces[0] != _UNKNOWN and (len(pieces) > 1 or pieces[0] >= old):
            words[word] = pieces, count
    ids = {piece: i for i, piece in enumerate(tokens) if piece}
    each, times = [pieces for pieces, _ in words.values()], [count for _, count in words.values()]
    most = len(tokens) + CANDIDATES * number + MORE_CANDIDATES
    merge_pairs(tokens, ids, each, times, most, min_frequency, None)
    uses: Counter[int] = Counter()
    after = WordPiece(tokens, _UNKNOWN, longest)
    for word, (_, count) in words.items():
        for piece in after.split(word):
            if piece.id >= old:
                uses[piece.id] += count

    def saved(candidate: int) -> int:
        token = tokens[candidate]
        continued = token.startswith(CONTINUATION)
        pieces = before.split(token.removeprefix(CONTINUATION) if continued else token, continued=continued)
        return uses[candidate] * (len(pieces) - 1 + any(piece.id >= old for piece in pieces))

    best = sorted(uses, key=lambda candidate: (-saved(candidate), candidate))[:number]
    return [tokens[candidate] for candidate in sorted(best)]


def _missing_characters(counts: Iterable[tuple[str, int]], vocab: Sequence[str], min_frequency: int) -> list[str]:
    """The characters, and their forms inside a word, that a text has and a vocabulary lacks."""
    known, found = set(vocab), Counter[str]()
    for word, count in counts:
        for i, char in enumerate(word):
            form = CONTINUATION + char if i else char
            if form not in known:
                found[form] += count
    return sorted(form for form, count in found.items() if count >= min_frequency)
