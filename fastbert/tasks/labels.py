"""The labels of a task: their order, and what is not among them."""

from collections.abc import Iterable, Sequence

from fastbert.system.errors import InputError


def label_names(labels: Iterable[str], *, tags: bool = False) -> list[str]:
    """The distinct labels in the order of their ids: numbers by value, names by alphabet.

    Of ``tags``: O, then B- and I- of every kind of entity, whether both were seen or not.
    """
    names = set(labels)
    if tags:
        kinds = sorted({tag[2:] for tag in names if tag != "O"})
        return ["O", *(f"{part}-{kind}" for kind in kinds for part in "BI")]
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


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
                f"{where}: label {label!r} was not seen in training (labels: {known}): "
                "correct it, or add training examples of it"
            )
        ids.append(index[label])
    return ids


def class_weights(spec: Sequence[str], names: Sequence[str], counts: Sequence[int]) -> list[float] | None:
    """Weights of the classes in the loss.

    Args:
        spec: nothing: none; ["balanced"]: n / (classes × count), the rarer the heavier; or ["name=weight", …].
        counts: training examples of each class.

    Raises:
        InputError: an unknown label or a weight that is no positive number.
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
