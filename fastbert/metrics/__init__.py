"""Scores of texts against references, and of texts under a model; each with the signature of its settings.

    from fastbert import metrics
    metrics.bleu(["the cat sat"], ["the cat sat down"]).score
    metrics.meteor(hypotheses, [[first, second] for …], language="pt")

Every function takes the hypotheses (a list of texts) and their references in the same order: one text each, or a list
of texts each, all of the same length. All return a :class:`Score`, except :func:`rouge` and :func:`caption_scores`,
which return one for each name. The libraries behind them (sacrebleu, rouge-score, nltk, snowballstemmer) come with
``pip install "fastbert[metrics]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Score": "score",
    "bleu": "overlap",
    "chrf": "overlap",
    "rouge": "overlap",
    "meteor": "alignment",
    "cider": "consensus",
    "cider_d": "consensus",
    "exact_match": "answers",
    "token_f1": "answers",
    "perplexity": "fluency",
    "coherence": "fluency",
    "caption_scores": "caption",
}
__all__ = list(_HOMES)

if TYPE_CHECKING:
    from fastbert.metrics.alignment import meteor as meteor
    from fastbert.metrics.answers import exact_match as exact_match
    from fastbert.metrics.answers import token_f1 as token_f1
    from fastbert.metrics.caption import caption_scores as caption_scores
    from fastbert.metrics.consensus import cider as cider
    from fastbert.metrics.consensus import cider_d as cider_d
    from fastbert.metrics.fluency import coherence as coherence
    from fastbert.metrics.fluency import perplexity as perplexity
    from fastbert.metrics.overlap import bleu as bleu
    from fastbert.metrics.overlap import chrf as chrf
    from fastbert.metrics.overlap import rouge as rouge
    from fastbert.metrics.score import Score as Score


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"fastbert.metrics.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fastbert.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
