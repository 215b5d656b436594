"""CIDEr and CIDEr-D: how much a text says what its references agree on, rare words weighing more.

Reference: Vedantam, Zitnick & Parikh, CIDEr: Consensus-based Image Description Evaluation, 2015.
"""

import math
from collections import Counter
from collections.abc import Sequence

from fastbert.metrics.language import SNOWBALL, note_on_words, stemmer, words
from fastbert.metrics.score import ANY, Language, References, Score, check_language, mean, paired, signature

ORDERS = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the length penalty of CIDEr-D, in words
Ngrams = Counter[tuple[str, ...]]


def cider(
    hypotheses: Sequence[str],
    references: References,
    *,
    language: Language = "en",
    tokenize: str = "words",
    stem: bool = False,
    idf_references: Sequence[Sequence[str]] | None = None,
    allow_empty: bool = False,
) -> Score:
    """CIDEr, 0 to 10: the mean cosine of tf-idf vectors of n-grams (n = 1 … 4) with each reference, times ten.

    Args:
        hypotheses, references: as everywhere here.
        language: of the texts, for ``stem``; "any": see :func:`fastbert.metrics.language.words`.
        tokenize: see :func:`fastbert.metrics.language.words`.
        stem: compare stems, as the paper does; its authors' program, and so most published figures, does not.
        idf_references: references of other texts, to count how rare an n-gram is; by default those given. One text
            alone makes every n-gram common, and its score 0.
    """
    return _score("CIDEr", hypotheses, references, language, tokenize, stem, idf_references, allow_empty)


def cider_d(
    hypotheses: Sequence[str],
    references: References,
    *,
    language: Language = "en",
    tokenize: str = "words",
    stem: bool = False,
    sigma: float = SIGMA,
    idf_references: Sequence[Sequence[str]] | None = None,
    allow_empty: bool = False,
) -> Score:
    """CIDEr-D, 0 to 10: CIDEr with counts clipped to the reference's and a Gaussian penalty of other lengths.

    This is what the COCO caption tools call "CIDEr". Arguments as for :func:`cider`; ``sigma`` in words.
    """
    return _score("CIDEr-D", hypotheses, references, language, tokenize, stem, idf_references, allow_empty, sigma)


def _score(name, hypotheses, references, language, tokenize, stem, idf_references, allow_empty, sigma=None) -> Score:
    check_language(language)
    hypotheses, lists = paired(hypotheses, references, allow_empty=allow_empty)

    def ngrams(text: str) -> Ngrams:
        tokens = words(text, tokenize=tokenize, language=language)
        if stem:
            tokens = [stemmer(language, SNOWBALL)(token) for token in tokens]
        return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(tokens) - n + 1))

    counted = [[ngrams(text) for text in listed] for listed in lists]
    rarity = counted if idf_references is None else [[ngrams(text) for text in listed] for listed in idf_references]
    frequency = Counter(ngram for listed in rarity for ngram in set().union(*listed))
    log_total = math.log(len(rarity))

    def vector(counts: Ngrams) -> "_Vector":
        return _Vector(
            {ngram: n * (log_total - math.log(max(1, frequency[ngram]))) for ngram, n in counts.items()},
            sum(n for ngram, n in counts.items() if len(ngram) == 1),
        )

    per_text = []
    for hypothesis, listed in zip(hypotheses, counted, strict=True):
        mine = vector(ngrams(hypothesis))
        per_text.append(10.0 * mean([_similarity(mine, vector(reference), sigma) for reference in listed]))
    settings = {"refs": len(lists[0]), "lang": language, "case": "lc", "tok": tokenize,
                "stem": SNOWBALL if stem else "no", "n": ORDERS,
                "idf": "references" if idf_references is None else "given"}  # fmt: skip
    if sigma is not None:
        settings |= {"clip": "yes", "sigma": f"{sigma:g}"}
    alone = ("one text gives every n-gram an idf of 0, so the score is 0: give more texts, or idf_references",)
    notes = (*(alone if len(rarity) == 1 else ()), *note_on_words(hypotheses, language == ANY))
    return Score(name, mean(per_text), 10.0, signature(**settings), per_text, notes=notes)


class _Vector:
    """tf-idf weights of a text's n-grams, their norms by n, and its length in words."""

    def __init__(self, weights: dict[tuple[str, ...], float], length: int):
        self.weights, self.length = weights, length
        squares = [0.0] * ORDERS
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        self.norms = [math.sqrt(square) for square in squares]


def _similarity(hypothesis: _Vector, reference: _Vector, sigma: float | None) -> float:
    """Mean over n of the cosines; with ``sigma`` clipped and penalised."""
    products = [0.0] * ORDERS
    for ngram, weight in hypothesis.weights.items():
        other = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += (weight if sigma is None else min(weight, other)) * other
    cosines = [
        product / (a * b) if a and b else 0.0
        for product, a, b in zip(products, hypothesis.norms, reference.norms, strict=True)
    ]
    if sigma is None:
        return mean(cosines)
    return mean(cosines) * math.exp(-((hypothesis.length - reference.length) ** 2) / (2 * sigma**2))
