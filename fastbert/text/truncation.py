"""How many texts did not fit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastbert.text.tokenizer import Tokenizer


def num_truncated(texts: Sequence[Any], lengths: NDArray[np.integer], tokenizer: "Tokenizer", max_length: int) -> int:
    """How many texts (or pairs) were truncated to ``max_length``; only rows of just that length are encoded again."""
    full = [text for text, length in zip(texts, lengths, strict=True) if length == max_length]
    return int((np.diff(tokenizer.encode_batch(full).offsets) > max_length).sum()) if full else 0
