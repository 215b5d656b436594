"""Tokens of a corpus that are [UNK]: why, what helps against it, and where there are too many to train on."""

import unicodedata
from collections import Counter
from contextlib import suppress
from typing import Literal

from fastbert.data.corpus.documents import Corpus
from fastbert.data.store.token_store import TokenStore
from fastbert.data.store.writer import remove_files
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

MIN_REPORTED_SHARE = 0.01  # of the tokens
MIN_REFUSED_SHARE = 0.5
MAX_EXAMINED_CHARS = 2 << 20  # from the start of the corpus
_SHOWN_CHARACTERS = 8
_OTHER_VOCABULARY = "a vocabulary trained on this text"
# the other form of a word that the vocabulary can spell
_FORMS: dict[Literal["NFC", "NFD"], str] = {
    "NFC": "decomposed accents, which --normalize nfc composes",
    "NFD": "composed accents, which --normalize none keeps apart if the text has them so",
}


def check_unknown(store: TokenStore, corpus: Corpus, tokenizer: Tokenizer, *, allowed: bool) -> str:
    """Return one line about the [UNK] tokens of a new store, "" if they are fewer than :data:`MIN_REPORTED_SHARE`.

    Args:
        store: of the corpus; deleted if it is refused.
        allowed: keep it although at least :data:`MIN_REFUSED_SHARE` are [UNK], unless all are.

    Raises:
        InputError: there is too little to learn from.
    """
    share = store.num_unknown / store.num_tokens
    if share < MIN_REPORTED_SHARE:
        return ""
    causes, characters = unknown_causes(corpus, tokenizer)
    what = f"{corpus.name}: {share:.1%} of the tokens are [UNK]: {describe_unknown(causes, characters)}"
    long = causes and causes.most_common(1)[0][0] == _too_long(tokenizer)
    try:
        refuse_unknown(store, allowed, what, "--max-word-chars, or blanks between words" if long else _OTHER_VOCABULARY)
    except InputError:
        remove_files(store.directory)
        with suppress(OSError):  # where other things are in it, it stays
            store.directory.rmdir()
        raise
    return what


def refuse_unknown(store: TokenStore, allowed: bool, what: str = "", remedy: str = _OTHER_VOCABULARY) -> None:
    """Raise InputError if too many tokens of a store are [UNK]; ``what`` begins the message, ``remedy`` ends it."""
    share = store.num_unknown / store.num_tokens
    what = what or f"{store.directory}: {share:.1%} of the tokens are [UNK]"
    if share == 1:
        raise InputError(f"{what}. Try: {remedy}")
    if share >= MIN_REFUSED_SHARE and not allowed:
        raise InputError(f"{what}. Try: {remedy}, or --allow-unknown")


def describe_unknown(causes: Counter[str], characters: Counter[str]) -> str:
    """The causes, most frequent first, each with its share, and the characters that are missing."""
    total = sum(causes.values()) or 1
    found = [f"{cause} ({count / total:.0%})" for cause, count in causes.most_common()]
    if characters:
        found.append("such characters: " + " ".join(char for char, _ in characters.most_common(_SHOWN_CHARACTERS)))
    return "; ".join(found)


def unknown_causes(corpus: Corpus, tokenizer: Tokenizer) -> tuple[Counter[str], Counter[str]]:
    """Count the causes of [UNK] at the start of a corpus, and the characters that are not in the vocabulary."""
    tokenizer = tokenizer.of_corpora
    causes: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    examined = 0
    for chunk in corpus.text_chunks():
        for line in chunk[: MAX_EXAMINED_CHARS - examined].split("\n"):
            for word in _unknown_words(line, tokenizer):
                long = len(word) > tokenizer.options.max_input_chars_per_word
                unknown = [char for char in word if not long and _is_unknown(char, tokenizer)]
                causes[cause_of(word, unknown, tokenizer)] += 1
                characters.update(unknown)
        examined += len(chunk)
        if examined >= MAX_EXAMINED_CHARS:
            break
    return causes, characters


def _unknown_words(line: str, tokenizer: Tokenizer) -> list[str]:
    split = tokenizer.splits_special_tokens
    encoding = tokenizer.encode(line, add_special_tokens=False, split_special_tokens=split)
    pairs = zip(encoding.ids, encoding.offsets, strict=True)
    return [line[begin:end] for token_id, (begin, end) in pairs if token_id == tokenizer.unk_id]


def _is_unknown(text: str, tokenizer: Tokenizer) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True).ids
    return tokenizer.unk_id in ids


def _too_long(tokenizer: Tokenizer) -> str:
    return f"words of over {tokenizer.options.max_input_chars_per_word} characters, see --max-word-chars"


def cause_of(word: str, unknown: list[str], tokenizer: Tokenizer) -> str:
    if len(word) > tokenizer.options.max_input_chars_per_word:
        return _too_long(tokenizer)
    for form, cause in _FORMS.items():
        if (other := unicodedata.normalize(form, word)) != word and not _is_unknown(other, tokenizer):
            return cause
    if unknown:
        return "characters that are not in the vocabulary"
    return 'letters without a "##" form in the vocabulary'
