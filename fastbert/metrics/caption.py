"""The caption metrics with the conventions of the COCO tools and nlg-eval: white space splits, other constants.

For comparison with published figures of image captioning. BLEU's counts get 1e-15 and 1e-9 instead of
smoothing, ROUGE-L takes the best precision and the best recall of several references with beta 1.2, METEOR is 1.5
(without its paraphrase table) and "CIDEr" is CIDEr-D.

Reference: Chen et al., Microsoft COCO Captions: Data Collection and Evaluation Server, 2015.
"""

import math
from collections import Counter
from collections.abc import Sequence

from fastbert.metrics.alignment import meteor
from fastbert.metrics.consensus import cider_d
from fastbert.metrics.score import References, Score, mean, paired, signature

TINY, SMALL = 1e-15, 1e-9
BETA = 1.2


def caption_scores(hypotheses: Sequence[str], references: References) -> dict[str, Score]:
    """Bleu_1 … Bleu_4, METEOR, ROUGE_L and CIDEr of English texts that are tokenized by white space."""
    hypotheses, lists = paired(hypotheses, references)
    pairs = zip(hypotheses, lists, strict=True)
    rouge_l = [_rouge_l(text.split(), [r.split() for r in listed]) for text, listed in pairs]
    settings = signature(refs=len(lists[0]), tok="none", beta=BETA, multi="best P, best R")
    return {
        **_bleus(hypotheses, lists),
        "METEOR": meteor(hypotheses, lists, variant="1.5"),
        "ROUGE_L": Score("ROUGE_L", mean(rouge_l), 1.0, settings, rouge_l),
        "CIDEr": cider_d(hypotheses, lists, tokenize="none"),
    }


def _bleus(hypotheses: list[str], lists: list[list[str]], longest: int = 4) -> dict[str, Score]:
    total = [Counter[str]() for _ in range(longest)]
    length, closest = 0, 0.0
    for text, listed in zip(hypotheses, lists, strict=True):
        tokens, others = text.split(), [reference.split() for reference in listed]
        length += len(tokens)
        closest += _reference_length(len(tokens), [len(other) for other in others], alone=len(hypotheses) == 1)
        for n in range(1, longest + 1):
            mine = _ngrams(tokens, n)
            most = Counter[tuple[str, ...]]()
            for other in others:
                most |= _ngrams(other, n)
            total[n - 1] += Counter(guess=mine.total(), correct=(mine & most).total())
    ratio = (length + TINY) / (closest + SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = {}, 1.0
    for n, counts in enumerate(total, start=1):
        product *= (counts["correct"] + TINY) / (counts["guess"] + SMALL)
        settings = signature(refs=len(lists[0]), tok="none", n=n, constants=f"{TINY},{SMALL}")
        scores[f"Bleu_{n}"] = Score(f"Bleu_{n}", product ** (1 / n) * penalty, 1.0, settings)
    return scores


def _reference_length(length: int, others: list[int], alone: bool) -> float:
    """The closest reference's length, or for a single text the mean of them: the tools' choice."""
    return sum(others) / len(others) if alone else min(others, key=lambda other: (abs(other - length), other))


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _rouge_l(tokens: list[str], references: list[list[str]]) -> float:
    common = [_longest_common(tokens, reference) for reference in references]
    precision = max(common) / len(tokens)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for j, b in enumerate(second, start=1):
            before, row[j] = row[j], before + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]
