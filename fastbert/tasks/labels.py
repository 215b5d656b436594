"""The labels of a task: their order, their ids and their weights in the loss."""

from collections.abc import Iterable, Sequence

from fastbert.system.errors import InputError
from fastbert.tasks.tag_schemes import BIO, OUTSIDE, PLAIN, find_scheme, is_outside


def label_names(labels: Iterable[str]) -> list[str]:
    """The distinct labels in the order of their ids: numbers by value, names by alphabet."""
    names = set(labels)
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def tag_names(tags: Iterable[str]) -> list[str]:
    """The labels of a tagging task: O, then every role of every kind of entity, whether all were seen or not."""
    names = set(tags)
    scheme = find_scheme(names)
    if scheme == PLAIN:
        return label_names(names)
    outside = sorted(name for name in names if is_outside(name)) or [OUTSIDE]
    others = sorted(name for name in names.difference(outside) if not scheme.spells(name))
    spelled = names.difference(outside, others)
    kinds = sorted({scheme.split(name)[1] for name in spelled})
    if scheme.suffix:
        endings = {name[-2:] for name in spelled}
        return [*outside, *(kind + ending for kind in kinds for ending in sorted(endings)), *others]
    beginnings = {name[:2] for name in spelled}
    if scheme == BIO and beginnings <= {"B-", "I-"}:
        beginnings = {"B-", "I-"}
    return [*outside, *(beginning + kind for kind in kinds for beginning in sorted(beginnings)), *others]


def label_ids(pairs: Iterable[tuple[str, str]], names: Sequence[str]) -> list[int]:
    """Ids of ``(where, label)`` pairs.

    Raises:
        InputError: a label that is not among ``names``.
    """
    index = {name: i for i, name in enumerate(names)}
    ids = []
    for where, label in pairs:
        if label not in index:
            known = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
            raise InputError(
                f"{where}: label {label!r} is not in the training file, which has {known}. "
                "Try: correct it, or add training examples with it"
            )
        ids.append(index[label])
    return ids


def class_weights(spec: Sequence[str], names: Sequence[str], counts: Sequence[int]) -> list[float] | None:
    """Weights of the classes in the loss.

    Args:
        spec: empty for no weights; ["balanced"] for n / (classes × count); or ["name=weight", …].
        counts: training examples of each class.

    Raises:
        InputError: an unknown label, or a weight that is not a positive number.
    """
    if not spec:
        return None
    if list(spec) == ["balanced"]:
        total = sum(counts)
        return [total / (len(names) * count) if count else 1.0 for count in counts]
    weights = dict.fromkeys(names, 1.0)
    for part in spec:
        name, sign, value = part.rpartition("=")
        if not sign or name not in weights:
            raise InputError(
                f"--class-weights {part}: expected balanced, or LABEL=WEIGHT with LABEL one of {', '.join(names)}"
            )
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = -1.0
        if not 0.0 < weights[name] < 1e6:
            raise InputError(f"--class-weights {part}: expected a positive weight")
    return list(weights.values())
