"""Statistics of the ratings: means with confidence intervals, agreement, and differences between systems.

The sampling unit is the input: systems are compared on the same inputs, and ratings of one input are not independent.
Confidence intervals are percentiles of the bootstrap over inputs (Efron & Tibshirani 1993), differences are tested with
random sign flips of the inputs' differences (Fisher 1935; Noreen 1989), with Holm's correction (1979) over the pairs of
a criterion. Agreement is Krippendorff's alpha for ordinal data, by the package krippendorff.
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fastbert.evaluation.human_answers import Key, Rating
from fastbert.system.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 10_000
OVERALL = "overall"  # the mean of a text's criteria


@dataclass(frozen=True)
class Mean:
    """Mean rating of one system on one criterion."""

    system: str
    criterion: str
    mean: float
    low: float  # of the confidence interval
    high: float
    ratings: int
    inputs: int


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha: 1 is perfect, 0 is chance, nan is undefined."""

    criterion: str
    alpha: float
    reason: str  # why it is undefined, or ""


@dataclass(frozen=True)
class Difference:
    """first − second on the inputs that were rated for both."""

    criterion: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float  # two-sided, corrected
    inputs: int

    @property
    def significant(self) -> bool:
        return self.p < 1 - CONFIDENCE


@dataclass(frozen=True)
class Summary:
    """The results of ``human score``."""

    raters: list[str]
    ratings: int
    expected_ratings: int
    means: list[Mean]
    agreements: list[Agreement]
    differences: list[Difference]
    settings: str

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"differences": [asdict(d) | {"significant": d.significant} for d in self.differences]}


def summarize(ratings: Sequence[Rating], key: Key, *, seed: int = 0, resamples: int = RESAMPLES) -> Summary:
    """Means, agreement and differences of ratings.

    Args:
        ratings: from :func:`fastbert.evaluation.human.read_answers`.
        key: of their sheet.
        seed: of the resampling.
        resamples: of the bootstrap and of the test.
    """
    if not ratings:
        raise InputError("no ratings to summarize")
    raters = sorted({rating.rater for rating in ratings})
    by_input = _by_input(ratings, key)
    random = np.random.default_rng(seed)
    criteria = [*key.criteria, *([OVERALL] if len(key.criteria) > 1 else [])]
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for rating in ratings:
        counts[key.items[rating.item][0], rating.criterion] += 1
        counts[key.items[rating.item][0], OVERALL] += 1
    means, differences = [], []
    for criterion in criteria:
        for system in key.systems:
            values = np.array(list(by_input[criterion][system].values()))
            if len(values):
                low, high = _interval(values, random, resamples)
                count = counts[system, criterion]
                means.append(Mean(system, criterion, float(values.mean()), low, high, count, len(values)))
        differences += _differences(criterion, by_input[criterion], key.systems, random, resamples)
    agreements = [_agreement(criterion, ratings, raters, key) for criterion in key.criteria]
    settings = (
        f"{CONFIDENCE:.0%} intervals: bootstrap over inputs, {resamples:,} resamples; differences: sign flips, "
        f"two-sided, Holm over the pairs of a criterion; alpha: Krippendorff's, ordinal; seed {seed}"
    )
    expected = len(raters) * len(key.items) * len(key.criteria)
    return Summary(raters, len(ratings), expected, means, agreements, differences, settings)


Values = dict[str, dict[str, dict[int, float]]]  # criterion → system → input → mean over raters


def _by_input(ratings: Sequence[Rating], key: Key) -> Values:
    collected: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for rating in ratings:
        system, number = key.items[rating.item]
        collected[rating.criterion, system, number].append(rating.value)
    values: Values = {c: {s: {} for s in key.systems} for c in (*key.criteria, OVERALL)}
    for (criterion, system, number), given in sorted(collected.items()):
        values[criterion][system][number] = sum(given) / len(given)
    for system in key.systems:
        for number in sorted({n for c in key.criteria for n in values[c][system]}):
            given_all = [values[c][system].get(number) for c in key.criteria]
            if None not in given_all:  # a text with a missing criterion would shift the mean
                values[OVERALL][system][number] = sum(v for v in given_all if v is not None) / len(given_all)
    return values


def _interval(values: np.ndarray, random: np.random.Generator, resamples: int) -> tuple[float, float]:
    """Percentile bootstrap of the mean; undefined for one input."""
    if len(values) < 2:
        return math.nan, math.nan
    means = values[random.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _differences(
    criterion: str, values: dict[str, dict[int, float]], systems: list[str], random: np.random.Generator, resamples: int
) -> list[Difference]:
    found = []
    for first, second in combinations(systems, 2):
        shared = sorted(values[first].keys() & values[second].keys())
        if len(shared) < 2:
            continue
        gaps = np.array([values[first][n] - values[second][n] for n in shared])
        low, high = _interval(gaps, random, resamples)
        p = _sign_flips(gaps, random, resamples)
        found.append(Difference(criterion, first, second, float(gaps.mean()), low, high, p, len(shared)))
    # Holm: the smallest p times the number of pairs, the next times one less, never falling
    corrected, worst = {}, 0.0
    for rank, pair in enumerate(sorted(found, key=lambda d: d.p)):
        worst = max(worst, min(1.0, pair.p * (len(found) - rank)))
        corrected[pair.first, pair.second] = worst
    return [Difference(**asdict(d) | {"p": corrected[d.first, d.second]}) for d in found]


def _sign_flips(gaps: np.ndarray, random: np.random.Generator, resamples: int) -> float:
    """Share of random sign patterns whose mean is at least as far from 0, including the observed one."""
    signs = random.integers(0, 2, size=(resamples, len(gaps))) * 2 - 1
    means = np.abs((signs * gaps).mean(axis=1))
    return float((1 + np.sum(means >= abs(gaps.mean()) - 1e-12)) / (resamples + 1))


def _agreement(criterion: str, ratings: Sequence[Rating], raters: list[str], key: Key) -> Agreement:
    if len(raters) < 2:
        return Agreement(criterion, math.nan, "only one rater")
    positions = {item: column for column, item in enumerate(key.items)}
    table = np.full((len(raters), len(positions)), np.nan)
    for rating in ratings:
        if rating.criterion == criterion:
            table[raters.index(rating.rater), positions[rating.item]] = rating.value
    if not (np.sum(~np.isnan(table), axis=0) >= 2).any():
        return Agreement(criterion, math.nan, "no text has two raters")
    paired = table[:, np.sum(~np.isnan(table), axis=0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return Agreement(criterion, math.nan, "all ratings are the same")
    try:
        import krippendorff
    except ImportError:
        raise InputError('krippendorff is not installed. Try: pip install "fastbert[metrics]"') from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alpha = krippendorff.alpha(
            reliability_data=table,
            level_of_measurement="ordinal",
            value_domain=list(range(1, key.points + 1)),
        )
    return Agreement(criterion, float(alpha), "")
