"""Texts that belong together, read for contrastive training: pairs, triplets, graded pairs, or plain texts."""

import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbert.data.corpus.records import Record, is_table, read_lines, read_records
from fastbert.system.errors import InputError
from fastbert.tasks.examples import LABEL_NAMES, PAIR_NAMES
from fastbert.tasks.record_fields import Notes, header_remedy, note_unused

# fields of texts that do not belong to the first; each holds one text, or a list
_NEGATIVE = re.compile(r"(hard_)?negatives?(_\d+)?")
NEGATIVES = "multiple-negatives"  # the loss that needs no grades
MAX_POSTPONED = 1000  # pairs of equal texts that a batch looks past
# data sets of inference, whose label 0 is mostly entailment
_INFERENCE = (("premise", "hypothesis"), ("question", "sentence"))
Pair = tuple[str, ...]  # two texts that belong together, and perhaps hard negatives
GradedPair = tuple[str, str, float]


def read_pairs(path: str | Path, min_score: float | None = None, notes: Notes | None = None) -> list[Pair]:
    """The pairs of a file, with hard negatives where there are some; a plain text is paired with itself.

    Args:
        path: JSON lines, CSV or TSV with the fields of :data:`fastbert.tasks.examples.PAIR_NAMES`, or plain text.
        min_score: pairs with a smaller label are left out; None: labels are 0 and 1, or there are none.
        notes: takes what is not used.

    Raises:
        InputError: naming file and line.
    """
    path, notes = str(path), notes or Notes()
    if not is_table(path):
        pairs: list[Pair] = []
        for where, line in read_lines(path):
            pairs.append((line.strip(), line.strip()))
            if "\t" in line.strip():
                notes.add("a line with a tab is one text; name it .tsv, with a header, if it is two", where)
    else:
        pairs = []
        for where, record in read_records(path):
            pair, used = _pair(record, where)
            label = next((name for name in LABEL_NAMES if name in record), None)
            if label is not None and min_score is None and tuple(used[:2]) in _INFERENCE:
                raise InputError(
                    f"{where}: the label of {used[0]} and {used[1]} may be 0 for texts that belong together. "
                    "Try: without the field of labels the pairs that do, or --min-score 1 if 1 is for them"
                )
            if label is None or _belong_together(record[label], where, min_score):
                pairs.append(pair)
            else:
                notes.add(f"a pair with a {label} below {1 if min_score is None else min_score:g} is left out", where)
            note_unused(record, [*used, label or ""], where, notes)
    if len(pairs) < 2:
        raise InputError(f"{path}: has {len(pairs)} pairs of texts that belong together. Try: 2 or more")
    return pairs


def read_graded_pairs(path: str | Path, notes: Notes | None = None) -> list[GradedPair]:
    """Pairs with a number that says how alike they are.

    Raises:
        InputError: naming file and line; a pair without a number, or the same one for all.
    """
    path, notes = str(path), notes or Notes()
    pairs = []
    for where, record in read_records(path):
        pair, used = _pair(record, where)
        label = next((name for name in LABEL_NAMES if name in record), None)
        if label is None:
            raise InputError(f"{where}: has no label. Try: a number for each pair, or --loss multiple-negatives")
        pairs.append((pair[0], pair[1], _number(record[label], where)))
        note_unused(record, [*used[:2], label], where, notes)
    if len({score for _, _, score in pairs}) < 2:
        raise InputError(f"{path}: all labels are equal. Try: labels that differ, or --loss multiple-negatives")
    return pairs


def _pair(record: Record, where: str) -> tuple[Pair, list[str]]:
    """The texts of a record, and the names of their fields."""
    names = next((list(pair) for pair in PAIR_NAMES if record.keys() >= set(pair)), None)
    if names is None:
        raise InputError(
            f"{where}: has no two texts; its fields: {', '.join(map(repr, record)) or 'none'}. "
            f"Try: text_a and text_b{header_remedy(where)}"
        )
    names += [name for name in record if _NEGATIVE.fullmatch(name) and record[name] not in (None, "", [])]
    texts: list[str] = []
    for number, name in enumerate(names):
        value = record[name]
        for text in value if number > 1 and isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: field {name!r} is {repr(text)[:40]}, expected a text")
            texts.append(text)
    return tuple(texts), names


def _belong_together(label: Any, where: str, min_score: float | None) -> bool:
    number = _number(label, where)
    if min_score is None and number not in (0.0, 1.0):
        raise InputError(
            f"{where}: label {number:g} is neither 0 nor 1. Try: --min-score X for pairs from X on, or --loss cosent"
        )
    return number >= (1.0 if min_score is None else min_score)


def _number(label: Any, where: str) -> float:
    try:
        number = float("x" if label is None else label)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{where}: label {repr(label)[:40]} is not a number. Try: 1 for pairs that belong together"
        ) from None
    return number


def batches(pairs: Sequence[Any], size: int, seed: int) -> Iterator[list[Any]]:
    """One epoch in an order that the seed decides; a last batch of one pair, without negatives, is left out.

    A pair waits for a later batch where one of its texts is in the batch already, since it would be its own negative;
    the end of an epoch may have no other place for it.
    """
    import numpy as np

    waiting = deque(np.random.default_rng(seed).permutation(len(pairs)).tolist())
    while waiting:
        chosen: list[int] = []
        postponed: list[int] = []
        seen: set[str] = set()
        while waiting and len(chosen) < size and len(postponed) < MAX_POSTPONED:
            number = waiting.popleft()
            texts = {text for text in pairs[number] if isinstance(text, str)}
            (postponed if texts & seen else chosen).append(number)
            if chosen and chosen[-1] == number:
                seen |= texts
        free = size - len(chosen)
        chosen += postponed[:free]
        waiting.extendleft(reversed(postponed[free:]))
        if len(chosen) > 1:
            yield [pairs[i] for i in chosen]
