"""The words of a corpus in the pieces of a vocabulary: tokens, [UNK] and why, scripts."""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fastbert.data.store.unknown import cause_of
from fastbert.inspect.survey import Survey
from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions
from fastbert.text.vocab_trainer import complete_alphabet, learn_vocab

_WORDS_AT_ONCE = 1 << 16
_MOST_EXPLAINED = 2000  # distinct unknown words
_RARE_SHARE = 0.001  # of the letters: scripts below it are not named


@dataclass
class Spelling:
    """What a vocabulary makes of the words.

    Attributes:
        vocab_size: pieces of the vocabulary.
        room: pieces that it may have.
        trained: on these words, in place of a given one.
        tokens, unknown: of the corpus.
        causes: of [UNK] -> occurrences; ``missing``: characters that are not in the vocabulary -> occurrences.
        long_words: over the tokenizer's limit.
        alphabet: distinct characters of the text.
        scripts: name -> share of the letters.
    """

    vocab_size: int
    room: int
    trained: bool
    tokens: int = 0
    unknown: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    long_words: int = 0
    alphabet: int = 0
    scripts: dict[str, float] = field(default_factory=dict)

    @property
    def unknown_share(self) -> float:
        return self.unknown / self.tokens if self.tokens else 0.0


def trained_tokenizer(found: Survey, options: TokenizerOptions, vocab_size: int, min_frequency: int) -> Tokenizer:
    """The vocabulary that training would make of the words."""
    limit = options.max_input_chars_per_word
    words = [(word, count) for word, count in found.word_counts.items() if len(word) <= limit]
    result = learn_vocab(words, vocab_size=vocab_size, min_frequency=min_frequency)
    return Tokenizer(complete_alphabet(result, vocab_size, options.normalizer), options)


def spell(found: Survey, tokenizer: Tokenizer, *, room: int | None = None) -> Spelling:
    """Split every distinct word into pieces and count them as often as the word occurs.

    Args:
        found: has the words.
        tokenizer: a given one, or trained on them.
        room: pieces that the trained one was allowed; None: it is given.
    """
    limit = tokenizer.options.max_input_chars_per_word
    words = found.word_counts.items()
    result = Spelling(len(tokenizer), len(tokenizer) if room is None else room, room is not None)
    unknown: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for start in range(0, len(words), _WORDS_AT_ONCE):
        part = words[start : start + _WORDS_AT_ONCE]
        counts = np.array([count for _, count in part], np.int64)
        encoded = tokenizer.encode_batch(
            [word for word, _ in part], add_special_tokens=False, split_special_tokens=True
        )
        lengths = np.diff(encoded.offsets)
        result.tokens += int((lengths * counts).sum())
        firsts = encoded.input_ids[np.minimum(encoded.offsets[:-1], max(len(encoded.input_ids) - 1, 0))]
        for index in np.flatnonzero((firsts == tokenizer.unk_id) & (lengths == 1)):
            unknown[part[index][0]] = int(counts[index])
        for word, count in part:
            result.long_words += count if len(word) > limit else 0
            for char in word:
                characters[char] += count
    result.tokens += found.long_words + found.dropped_words
    result.long_words += found.long_words
    result.unknown = sum(unknown.values()) + found.long_words
    _explain(result, unknown, tokenizer)
    if found.long_words:
        result.causes[cause_of("x" * (limit + 1), [], tokenizer)] += found.long_words
    result.alphabet = len(characters)
    result.scripts = _scripts(characters)
    return result


def _explain(result: Spelling, unknown: Counter[str], tokenizer: Tokenizer) -> None:
    known: dict[str, bool] = {}
    for word, count in unknown.most_common(_MOST_EXPLAINED):
        for char in word:
            if char not in known:
                ids = tokenizer.encode(char, add_special_tokens=False, split_special_tokens=True).ids
                known[char] = tokenizer.unk_id not in ids
        missing = [char for char in word if not known[char]]
        result.causes[cause_of(word, missing, tokenizer)] += count
        for char in missing:
            result.missing[char] += count


def _scripts(characters: Counter[str]) -> dict[str, float]:
    """Scripts by the first word of the characters' Unicode names, such as LATIN or CYRILLIC; digits are none."""
    letters: Counter[str] = Counter()
    for char, count in characters.items():
        if char.isalpha():
            letters[unicodedata.name(char, "unnamed").split()[0].capitalize()] += count
    total = sum(letters.values())
    shares = ((name, count / total) for name, count in letters.most_common())
    return {name: round(share, 4) for name, share in shares if share >= _RARE_SHARE}
