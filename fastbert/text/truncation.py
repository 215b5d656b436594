"""Texts that do not fit: how many were truncated, and windows in their place."""

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


def in_windows(
    texts: Sequence[str], tokenizer: "Tokenizer", max_length: int
) -> tuple[list[NDArray[np.integer]], NDArray[np.int64]]:
    """Rows of ids that hold every token of the texts once, in the special tokens of a text; and the text of each row.

    A text that fits has one row, its usual one; a longer one as few rows as possible, of about the same length.
    """
    encoded, frame = tokenizer.encode_batch(list(texts), add_special_tokens=False), tokenizer.frame
    room = max(max_length - len(frame.before) - len(frame.after), 1)
    rows: list[NDArray[np.integer]] = []
    owners = []
    for number in range(len(texts)):
        for part in np.array_split(encoded[number], max(1, -(-len(encoded[number]) // room))):
            rows.append(np.concatenate([frame.before, part, frame.after]).astype(np.int64))
            owners.append(number)
    return rows, np.array(owners, np.int64)
