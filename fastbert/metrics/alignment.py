"""METEOR: words aligned by form, stem and synonym; a harmonic mean that favours recall, less a penalty for disorder.

Two published forms. ``variant="nltk"`` is Lavie & Agarwal 2007 with nltk's parameters and its greedy alignment (from
the last word backwards, stage by stage). ``variant="1.5"`` is Denkowski & Lavie 2014: stages and content words weigh
differently, the alignment covers the most words in the fewest chunks, and a list is scored by its summed counts. Its
paraphrase table is not used.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from fastbert.metrics.language import FUNCTION_WORDS, PORTER, SNOWBALL, note_on_words, stemmer, synonyms, words
from fastbert.metrics.score import ANY, Language, References, Score, check_language, mean, paired, signature
from fastbert.system.errors import InputError

EXACT, STEM, SYNONYM = 0, 1, 2
BEAM = 40  # alignments kept for each word, as METEOR 1.5
Match = tuple[int, int, int]  # place in the hypothesis, place in the reference, stage
Synonyms = Callable[[str], frozenset[str]] | None


@dataclass(frozen=True)
class _Parameters:
    """alpha: weight of recall's part; beta, gamma: the penalty's shape and size; delta: weight of content words."""

    alpha: float
    beta: float
    gamma: float
    delta: float
    weights: tuple[float, float, float]  # of exact, stem and synonym matches


LAVIE_AGARWAL = _Parameters(0.9, 3.0, 0.5, 0.5, (1.0, 1.0, 1.0))
# METEOR 1.5's tuned English parameters; for other languages, which it was not tuned for, its universal ones with the
# stages' weights of English
UNIVERSAL = _Parameters(0.70, 1.4, 0.3, 0.70, (1.0, 0.6, 0.8))
METEOR_15 = {
    "en": _Parameters(0.85, 0.2, 0.6, 0.75, (1.0, 0.6, 0.8)),
    "pt": UNIVERSAL,
    ANY: UNIVERSAL,
}


@dataclass(frozen=True)
class _Counts:
    """What a score is made of; sums of them score a list."""

    hypothesis_matched: float = 0.0  # weighted
    hypothesis_total: float = 0.0
    reference_matched: float = 0.0
    reference_total: float = 0.0
    matches: int = 0
    chunks: int = 0
    perfect: bool = True  # every word of both, in order

    def __add__(self, other: "_Counts") -> "_Counts":
        return _Counts(
            self.hypothesis_matched + other.hypothesis_matched,
            self.hypothesis_total + other.hypothesis_total,
            self.reference_matched + other.reference_matched,
            self.reference_total + other.reference_total,
            self.matches + other.matches,
            self.chunks + other.chunks,
            self.perfect and other.perfect,
        )

    def score(self, parameters: _Parameters, free_if_perfect: bool) -> float:
        if not self.matches or not self.hypothesis_matched:
            return 0.0
        precision = self.hypothesis_matched / self.hypothesis_total
        recall = self.reference_matched / self.reference_total
        alpha = parameters.alpha
        f_mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
        fragmentation = 0.0 if free_if_perfect and self.perfect else self.chunks / self.matches
        return f_mean * (1 - parameters.gamma * fragmentation**parameters.beta)


def meteor(
    hypotheses: Sequence[str],
    references: References,
    *,
    language: Language = "en",
    variant: Literal["nltk", "1.5"] = "nltk",
    tokenize: str = "signs",
    stem: str | None = None,
    use_synonyms: bool = True,
    function_words: Collection[str] | None = None,
    allow_empty: bool = False,
) -> Score:
    """METEOR, 0 to 1; with several references the best counts.

    The synonym stage uses WordNet where nltk and its data are on this machine; where not, ``notes`` and the signature
    say so, and figures with and without it are not to be compared.

    Args:
        hypotheses, references: as everywhere here.
        language: of the texts; with "any" only equal words match.
        variant: see the module.
        tokenize: see :func:`fastbert.metrics.language.words`; "none" for texts that are tokenized already.
        stem: "porter" (English, the default of ``variant="nltk"``, as nltk) or "snowball" (the default elsewhere).
        use_synonyms: False leaves the synonym stage out.
        function_words: of ``variant="1.5"``, in lower case; by default those of :mod:`fastbert.metrics.language`, which
            differ from the ones in METEOR's own program.

    Reference: Banerjee & Lavie, METEOR, 2005; Lavie & Agarwal, METEOR, 2007; Denkowski & Lavie, Meteor Universal, 2014.
    """
    check_language(language)
    if variant not in ("nltk", "1.5"):
        raise InputError(f"variant={variant!r}: expected nltk or 1.5")
    hypotheses, lists = paired(hypotheses, references, allow_empty=allow_empty)
    kind = stem or (PORTER if variant == "nltk" and language == "en" else SNOWBALL)
    stem_of = stemmer(language, kind)
    related, note = synonyms(language) if use_synonyms else (None, "")
    parameters = LAVIE_AGARWAL if variant == "nltk" else METEOR_15[language]
    if variant == "nltk":
        small = frozenset[str]()
    else:
        small = FUNCTION_WORDS.get(language, frozenset()) if function_words is None else frozenset(function_words)

    def counts(hypothesis: list[str], reference: list[str]) -> _Counts:
        if variant == "nltk":
            matches = align_greedily(hypothesis, reference, stem_of, related)
        else:
            matches = align_best(hypothesis, reference, stem_of, related)
        return _count(hypothesis, reference, matches, parameters, small)

    best = []
    for text, listed in zip(hypotheses, lists, strict=True):
        tokens = words(text, tokenize=tokenize, language=language)
        tried = [counts(tokens, words(reference, tokenize=tokenize, language=language)) for reference in listed]
        best.append(max(tried, key=lambda c: c.score(parameters, variant == "1.5")))
    per_text = [c.score(parameters, variant == "1.5") for c in best]
    settings = {"refs": len(lists[0]), "lang": language, "variant": variant, "case": "lc", "tok": tokenize,
                "stem": "no" if language == ANY else kind,
                "synonyms": "wordnet" if related else "no", "alpha": parameters.alpha,
                "beta": parameters.beta, "gamma": parameters.gamma}  # fmt: skip
    if variant == "nltk":
        total, average = mean(per_text), "mean of texts"
    else:
        total, average = sum(best[1:], best[0]).score(parameters, True), "summed counts"
        settings |= {"delta": parameters.delta, "function": "fastbert" if function_words is None else "given"}
    notes = ((note,) if note and related is None else ()) + note_on_words(hypotheses, language == ANY)
    return Score("METEOR", total, 1.0, signature(**settings, average=average), per_text, notes=notes)


def align_greedily(
    hypothesis: list[str], reference: list[str], stem: Callable[[str], str], related: Synonyms
) -> list[Match]:
    """Stage by stage, from the last word of the hypothesis, each to the last free word of the reference: nltk's way."""
    free = list(range(len(reference)))[::-1]
    unmatched = list(range(len(hypothesis)))[::-1]
    matches: list[Match] = []
    same_stem = [stem(word) for word in hypothesis], [stem(word) for word in reference]

    def run(stage: int, alike: Callable[[int, int], bool]) -> None:
        for i in list(unmatched):
            found = next((j for j in free if alike(i, j)), None)
            if found is not None:
                matches.append((i, found, stage))
                unmatched.remove(i)
                free.remove(found)

    run(EXACT, lambda i, j: hypothesis[i] == reference[j])
    run(STEM, lambda i, j: same_stem[0][i] == same_stem[1][j])
    if related is not None:
        run(SYNONYM, lambda i, j: reference[j] in related(hypothesis[i]))
    return sorted(matches)


@dataclass(frozen=True)
class _Path:
    """An alignment of the words read so far; better paths compare smaller."""

    matches: tuple[Match, ...] = ()
    used: frozenset[int] = frozenset()
    chunks: int = 0
    distance: int = 0

    def rank(self) -> tuple[int, int, int]:
        return -len(self.matches), self.chunks, self.distance

    def add(self, i: int, j: int, stage: int) -> "_Path":
        adjoins = bool(self.matches) and self.matches[-1][:2] == (i - 1, j - 1)
        return _Path(
            (*self.matches, (i, j, stage)), self.used | {j}, self.chunks + (not adjoins), self.distance + abs(i - j)
        )


def align_best(
    hypothesis: list[str], reference: list[str], stem: Callable[[str], str], related: Synonyms
) -> list[Match]:
    """Most words covered, then fewest chunks, then shortest way: METEOR 1.5's order, by beam search."""
    stems = [stem(word) for word in reference]
    paths = [_Path()]
    for i, word in enumerate(hypothesis):
        its_stem, others = stem(word), related(word) if related else frozenset()
        options = []
        for j, other in enumerate(reference):
            if other == word:
                options.append((j, EXACT))
            elif stems[j] == its_stem:
                options.append((j, STEM))
            elif other in others:
                options.append((j, SYNONYM))
        grown = [path.add(i, j, stage) for path in paths for j, stage in options if j not in path.used]
        paths = sorted([*paths, *grown], key=_Path.rank)[:BEAM]
    return list(paths[0].matches)


def _count(
    hypothesis: list[str],
    reference: list[str],
    matches: list[Match],
    parameters: _Parameters,
    function_words: frozenset[str],
) -> _Counts:
    def weight(word: str) -> float:
        # a mark of punctuation counts as a function word; without such a list every word weighs the same
        small = word in function_words or (bool(function_words) and not any(c.isalnum() for c in word))
        return 1 - parameters.delta if small else parameters.delta

    chunks = sum(
        not before or (before[0] + 1, before[1] + 1) != match[:2]
        for before, match in zip([None, *matches], matches, strict=False)
    )
    return _Counts(
        sum(parameters.weights[stage] * weight(hypothesis[i]) for i, _, stage in matches),
        sum(map(weight, hypothesis)),
        sum(parameters.weights[stage] * weight(reference[j]) for _, j, stage in matches),
        sum(map(weight, reference)),
        len(matches),
        chunks,
        chunks <= 1 and len(matches) == len(hypothesis) == len(reference),
    )
