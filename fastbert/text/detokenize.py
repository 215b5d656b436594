"""From pieces back to text: how decoded tokens are joined, and how the result is made readable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy takes longer to import than a line to encode: where it is needed, it is imported
    import numpy as np

CONTINUATION = "##"

# the clean-up rules of Hugging Face tokenizers, in their order
_CLEANUPS = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    *((f" '{ending}", f"'{ending}") for ending in ("s", "ve", "re")),
)


def group_words(ids: Sequence[int], is_continuation: np.ndarray) -> list[list[int]]:
    """Token ids grouped by word: a continuation, by the tokenizer's flags (V,), belongs to the token before it."""
    starts = [i for i, token in enumerate(ids) if not i or not is_continuation[token]]
    return [list(ids[start:end]) for start, end in pairwise([*starts, len(ids)])]


def join_pieces(pieces: list[str], clean_up: bool = True) -> str:
    """Join pieces to words and words with spaces; ``clean_up`` removes the space before punctuation."""
    parts: list[str] = []
    for piece in pieces:
        if parts:
            piece = piece[len(CONTINUATION) :] if piece.startswith(CONTINUATION) else " " + piece
        if clean_up:
            for old, new in _CLEANUPS:
                piece = piece.replace(old, new)
        parts.append(piece)
    return "".join(parts)


def detokenize(text: str) -> str:
    """Set the punctuation of decoded text as in print: "deixemo - nos , pois ;" → "deixemo-nos, pois;"."""
    text = re.sub(r"\s+([,.;:!?…»)\]}])(?!\w)", r"\1", text)
    text = re.sub(r"([«(\[{])\s+(?!MASK)", r"\1", text)
    return re.sub(r"(\w|\]) ([-'’]) (\w|\[)", r"\1\2\3", text)
