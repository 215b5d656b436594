"""Exact match and token F1 of answers, by SQuAD's rules; for Portuguese with Portuguese articles and punctuation.

Reference: Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from fastbert.metrics.language import ARTICLES, strip_accents, words
from fastbert.metrics.score import ANY, Language, References, Score, check_language, mean, paired, signature
from fastbert.system.marks import mark_class


def normalize_answer(text: str, language: Language = "en", keep_accents: bool = True) -> str:
    """Lower case, no punctuation, no articles, single spaces; both ways to write "é" are one.

    English is treated as SQuAD's program does (ASCII punctuation). In Portuguese every Unicode punctuation mark goes
    (« » “ ” – …), and the articles are o, a, os, as, um, uma, uns, umas. "any" is as Portuguese without articles, and
    each character of a script without spaces is a word, as in MLQA's program.
    """
    text = unicodedata.normalize("NFC", text).lower()
    if not keep_accents:
        text = strip_accents(text)
    text = "".join(
        c for c in text if c not in string.punctuation and (language == "en" or unicodedata.category(c)[0] != "P")
    )
    if language == ANY:
        return " ".join(words(text, tokenize="signs", language=ANY))
    return " ".join(_articles(language).sub(" ", text).split())


@cache
def _articles(language: Language) -> re.Pattern[str]:
    """Whole words: not the letter before a mark that has no composed form."""
    return re.compile(rf"\b({'|'.join(ARTICLES[language])})\b(?![{mark_class()}])")


def exact_match(
    hypotheses: Sequence[str], references: References, *, language: Language = "en", keep_accents: bool = True
) -> Score:
    """Share of the answers that equal a reference after :func:`normalize_answer`, 0 to 100.

    An empty text is an answer: "there is none".
    """
    return _score("exact match", _same, hypotheses, references, language, keep_accents)


def token_f1(
    hypotheses: Sequence[str], references: References, *, language: Language = "en", keep_accents: bool = True
) -> Score:
    """Mean F1 of the words shared with the best reference after :func:`normalize_answer`, 0 to 100."""
    return _score("token F1", _f1, hypotheses, references, language, keep_accents)


def _same(hypothesis: str, reference: str) -> float:
    return float(hypothesis == reference)


def _f1(hypothesis: str, reference: str) -> float:
    mine, theirs = hypothesis.split(), reference.split()
    if not mine or not theirs:
        return float(mine == theirs)
    common = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * common / (len(mine) + len(theirs))


def _score(
    name: str, compare: Callable[[str, str], float], hypotheses, references, language: Language, keep_accents: bool
) -> Score:
    check_language(language)
    hypotheses, lists = paired(hypotheses, references, allow_empty=True)

    def normal(text: str) -> str:
        return normalize_answer(text, language, keep_accents)

    per_text = [
        100.0 * max(compare(normal(text), normal(reference)) for reference in listed)
        for text, listed in zip(hypotheses, lists, strict=True)
    ]
    settings = signature(refs=len(lists[0]), lang=language, norm="squad", accents=keep_accents, multi="best")
    return Score(name, mean(per_text), 100.0, settings, per_text)
