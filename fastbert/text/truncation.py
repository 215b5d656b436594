"""How many texts did not fit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastbert.text.tokenizer import Tokenizer


class TruncatedTexts(UserWarning):
    """``count`` of ``total`` texts were truncated to ``max_length`` tokens."""

    def __init__(self, count: int, total: int, max_length: int):
        super().__init__(f"{count:,} of {total:,} texts are longer than {max_length} tokens: truncated")
        self.count, self.max_length = count, max_length


def num_truncated(texts: Sequence[Any], lengths: NDArray[np.integer], tokenizer: "Tokenizer", max_length: int) -> int:
    """How many texts (or pairs) were truncated to ``max_length``; only rows of just that length are encoded again."""
    full = [text for text, length in zip(texts, lengths, strict=True) if length == max_length]
    return int((np.diff(tokenizer.encode_batch(full).offsets) > max_length).sum()) if full else 0
