"""BLEU and chrF by sacrebleu, ROUGE by rouge-score; for Portuguese with words and stems of Portuguese."""

from collections.abc import Sequence
from itertools import chain

from fastbert.metrics.language import FUNCTION_WORDS, SNOWBALL, note_on_words, stemmer, words
from fastbert.metrics.score import ANY, Language, References, Score, check_language, library, mean, paired, signature
from fastbert.system.errors import InputError

SPACED_TOKENIZERS = ("13a", "intl", "none")  # of BLEU: a text without spaces is one word
ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")


def bleu(
    hypotheses: Sequence[str],
    references: References,
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    max_order: int = 4,
    effective_order: bool = False,
    allow_empty: bool = False,
) -> Score:
    """BLEU of the whole list, 0 to 100, as sacrebleu computes it.

    Args:
        hypotheses: texts, not tokenized.
        references: for each a text or a list of texts.
        tokenize: one of sacrebleu's tokenizers: 13a, intl, char, none …
        lowercase: compare in lower case.
        smooth_method, smooth_value: exp, floor, add-k or none, and the value of floor and add-k.
        max_order: longest n-gram.
        effective_order: n-grams longer than a text do not count; ``per_text`` always has it.
        allow_empty: empty hypotheses score 0 instead of being rejected.

    Raises:
        InputError: texts that do not belong together, or a setting that sacrebleu does not know.

    Reference: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """
    hypotheses, lists = paired(hypotheses, references, allow_empty=allow_empty)
    module = library("sacrebleu.metrics", "sacrebleu")
    settings = {"tokenize": tokenize, "lowercase": lowercase, "smooth_method": smooth_method,
                "smooth_value": smooth_value, "max_ngram_order": max_order}  # fmt: skip
    _known(module.BLEU.SMOOTH_DEFAULTS, "smooth_method", smooth_method)
    _known(module.BLEU.TOKENIZERS, "tokenize", tokenize)
    if max_order < 1:
        raise InputError(f"max_order={max_order}: expected at least 1")
    metric = module.BLEU(effective_order=effective_order, **settings)
    single = module.BLEU(effective_order=True, **settings)
    result = metric.corpus_score(hypotheses, _streams(lists))
    details = {f"precision_{n}": value for n, value in enumerate(result.precisions, start=1)}
    details |= {"brevity_penalty": result.bp, "hypothesis_length": result.sys_len, "reference_length": result.ref_len}
    return Score(
        name=f"BLEU-{max_order}" if max_order != 4 else "BLEU",
        score=result.score,
        scale=100.0,
        signature=str(metric.get_signature()),
        per_text=[single.sentence_score(h, listed).score for h, listed in zip(hypotheses, lists, strict=True)],
        details={name: float(value) for name, value in details.items()},
        notes=note_on_words(hypotheses, tokenize not in SPACED_TOKENIZERS, "BLEU's tokenizer char"),
    )


def chrf(
    hypotheses: Sequence[str],
    references: References,
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: float = 2,
    lowercase: bool = False,
    allow_empty: bool = False,
) -> Score:
    """chrF2 of the whole list, 0 to 100, as sacrebleu computes it; ``word_order=2`` makes it chrF++.

    Reference: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015.
    """
    hypotheses, lists = paired(hypotheses, references, allow_empty=allow_empty)
    if char_order < 1 or word_order < 0 or beta <= 0:
        raise InputError(f"char_order={char_order}, word_order={word_order}, beta={beta}: expected ≥ 1, ≥ 0 and > 0")
    metric = library("sacrebleu.metrics", "sacrebleu").CHRF(
        char_order=char_order, word_order=word_order, beta=beta, lowercase=lowercase
    )
    result = metric.corpus_score(hypotheses, _streams(lists))
    return Score(
        name=result.name,
        score=result.score,
        scale=100.0,
        signature=str(metric.get_signature()),
        per_text=[metric.sentence_score(h, listed).score for h, listed in zip(hypotheses, lists, strict=True)],
    )


class _Words:
    """Handed to rouge-score where its own tokenizer, which knows a to z and 0 to 9 only, would lose letters."""

    def __init__(self, language: Language, stem: bool, stop_words: bool):
        self.language = language
        self.stem = stemmer(language, SNOWBALL) if stem else None
        self.dropped = FUNCTION_WORDS[language] if not stop_words else frozenset()

    def tokenize(self, text: str) -> list[str]:
        kept = [word for word in words(text, language=self.language) if word not in self.dropped]
        # rouge-score leaves short English words as they are; so do we
        return [self.stem(word) if self.stem and len(word) > 3 else word for word in kept]


def rouge(
    hypotheses: Sequence[str],
    references: References,
    *,
    kinds: Sequence[str] = ROUGE_KINDS,
    language: Language = "en",
    stem: bool = False,
    stop_words: bool = True,
    allow_empty: bool = False,
) -> dict[str, Score]:
    """ROUGE F-measures, 0 to 1, as rouge-score computes them; the mean over the texts.

    With several references the best counts. English is split by rouge-score's own rules; Portuguese, or a list without
    stop words, into Unicode words, so that "ação" stays one.

    Args:
        hypotheses, references: as everywhere here.
        kinds: of rouge1 … rouge9, rougeL and rougeLsum (lines are sentences).
        language: of the texts; "any": Unicode words, and characters of scripts without spaces.
        stem: compare stems (Porter's for English, Snowball's for Portuguese) of words of more than three letters.
        stop_words: False leaves function words out.

    Reference: Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004.
    """
    check_language(language)
    if language == ANY and (stem or not stop_words):
        raise InputError("language 'any': has no stems or stop words. Try: language 'en' or 'pt', or neither of them")
    hypotheses, lists = paired(hypotheses, references, allow_empty=allow_empty)
    known = [*(f"rouge{n}" for n in range(1, 10)), "rougeL", "rougeLsum"]
    for kind in kinds:
        _known(known, "kinds", kind)
    own = language == "en" and stop_words
    tokenizer = None if own else _Words(language, stem, stop_words)
    scorer = library("rouge_score.rouge_scorer", "rouge-score").RougeScorer(
        list(kinds), use_stemmer=stem, tokenizer=tokenizer
    )
    results = [scorer.score_multi(listed, text) for text, listed in zip(hypotheses, lists, strict=True)]
    import importlib.metadata

    settings = signature(
        refs=len(lists[0]), lang=language, tok="rouge-score" if own else "words",
        stem={True: "porter" if own else SNOWBALL, False: "no"}[stem], stop="kept" if stop_words else "dropped",
        average="mean of texts", multi="best F", version=importlib.metadata.version("rouge-score"),
    )  # fmt: skip
    notes = _dropped_letters(hypotheses, lists) if own else note_on_words(hypotheses, language == ANY)
    scores = {}
    for kind in kinds:
        of_kind = [result[kind] for result in results]
        scores[kind] = Score(
            name=kind.replace("rouge", "ROUGE-"),
            score=mean([r.fmeasure for r in of_kind]),
            scale=1.0,
            signature=settings,
            per_text=[float(r.fmeasure) for r in of_kind],
            details={"precision": mean([r.precision for r in of_kind]), "recall": mean([r.recall for r in of_kind])},
            notes=notes,
        )
    return scores


def _dropped_letters(hypotheses: Sequence[str], lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A note on the letters that rouge-score's tokenizer, which knows a to z and 0 to 9, takes for spaces."""
    lost, total, first = 0, 0, ""
    for text in chain(hypotheses, *lists):
        if text.isascii():
            total += sum(map(str.isalpha, text))
            continue
        for word in words(text):
            total += len(word)
            if dropped := sum(c.isalnum() and not c.isascii() for c in word):
                lost, first = lost + dropped, first or word
    if not lost:
        return ()
    return (
        f"ROUGE in English reads only a to z and 0 to 9: {lost:,} of {total:,} letters are dropped (first: {first!r}). "
        "Try: language pt or any",
    )


def _streams(lists: list[list[str]]) -> list[list[str | None]]:
    """References by hypothesis → sacrebleu's streams: first references, second references …"""
    longest = max(len(listed) for listed in lists)
    return [[listed[i] if i < len(listed) else None for listed in lists] for i in range(longest)]


def _known(allowed, option: str, value: str) -> None:
    if value not in allowed:
        raise InputError(f"{option}={value!r}: expected one of {', '.join(map(str, allowed))}")
