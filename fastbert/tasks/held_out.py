"""What a fine-tuning holds out of its training file: the same examples in every run, with all the classes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbert.system.errors import InputError
from fastbert.tasks.examples import QuestionExample, TaggedExample

HELD_OUT_SHARE = 0.1  # of the training file, without an evaluation file
ORDER_SEED = 20_190_524  # decides what is held out and what a limit keeps; the same for every run


def hold_out(read: dict[str, list[Any]], train: str, limit: int | None) -> None:
    """Take ``read["eval"]``, if there is none, out of ``read["train"]``, and keep ``limit`` examples of the rest.

    Raises:
        InputError: a single example.
    """
    order = np.random.Generator(np.random.Philox(ORDER_SEED)).permutation(len(read["train"])).tolist()
    without = "eval" not in read
    if without:
        if len(order) < 2:
            raise InputError(f"{train}: has one example. Try: more examples, or --eval")
        held_out = stratified(read["train"], order, max(1, round(HELD_OUT_SHARE * len(order))))
        read["eval"] = [read["train"][i] for i in sorted(held_out)]
        order = [i for i in order if i not in held_out]
    if limit is not None or without:
        read["train"] = [read["train"][i] for i in sorted(order[:limit])]


def stratified(examples: Sequence[Any], order: Sequence[int], count: int) -> set[int]:
    """``count`` examples with about the same shares of each class (each answerability, each range of numbers) as all.

    The only example of a class stays in training if others suffice.
    """

    def stratum(i: int) -> Any:
        example = examples[i]
        if isinstance(example, TaggedExample):
            return ""
        return bool(example.answers) if isinstance(example, QuestionExample) else example.label

    sizes = Counter(stratum(i) for i in order)
    several = [i for i in order if sizes[stratum(i)] > 1 or isinstance(stratum(i), float)]
    ranked = sorted(several if len(several) >= count else order, key=stratum)  # stable: random within a stratum
    return {ranked[int((k + 0.5) * len(ranked) / count)] for k in range(count)}
