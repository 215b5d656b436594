"""A vocabulary's entries, its special tokens, and what stands around a text: what every kind of tokenizer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastbert.system.errors import InputError
from fastbert.text.detokenize import CONTINUATION
from fastbert.text.encoding import Frame

if TYPE_CHECKING:  # numpy takes longer to import than a line to encode: where it is needed, it is imported
    import numpy as np

_DTYPES = ("int32", "uint16")


class Pieces:
    """The part of a tokenizer that does not depend on how text is split.

    Attributes:
        vocab: entries in the order of their ids, "" where there is none.
        pad_id, unk_id, cls_id, sep_id, mask_id: -1 where there is none.
        second_type_id: the type of the second text of a pair: 1, or 0 where a model is not told which text is which.
    """

    vocab: list[str]
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    second_type_id = 1
    _ids: dict[str, int]
    _special_tokens: dict[str, int]

    def token_to_id(self, token: str) -> int | None:
        """The id of a vocabulary entry, or None."""
        return self._ids.get(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The vocabulary entry of an id, or None."""
        return self.vocab[token_id] if 0 <= token_id < len(self.vocab) else None

    def __len__(self) -> int:
        """V, the number of ids (including duplicate and empty lines of a vocab.txt)."""
        return len(self.vocab)

    @property
    def special_ids(self) -> list[int]:
        """Ids of the special tokens, in increasing order."""
        return sorted(set(self._special_tokens.values()))

    @property
    def special_tokens(self) -> dict[str, int]:
        """Special tokens, text -> id."""
        return dict(self._special_tokens)

    @property
    def is_continuation(self) -> np.ndarray:
        """(V,) uint8, 1 for entries that continue a word ("##...")."""
        import numpy as np

        return np.array([entry.startswith(CONTINUATION) for entry in self.vocab], np.uint8)

    @property
    def frame(self) -> Frame:
        """The special tokens around one text, and between two."""
        return Frame((self.cls_id,), (self.sep_id,), (self.sep_id,))

    @property
    def mask_token(self) -> str:
        """How a mask is written in a text."""
        return "[MASK]"

    def piece_text(self, token_id: int) -> str:
        """A single piece as users see it: an entry of the vocabulary."""
        return self.id_to_token(token_id) or ""

    def _checked_dtype(self, dtype: str, threads: int | None) -> str:
        """The name of the dtype of a batch's ids.

        Raises:
            InputError: one that is not known or too small; a senseless number of threads.
        """
        import numpy as np

        name = np.dtype(dtype).name
        if name not in _DTYPES:
            raise InputError(f"dtype={name!r}: expected one of {', '.join(_DTYPES)}")
        if name == "uint16" and len(self) > 1 << 16:
            raise InputError(f"dtype='uint16' holds 65,536 ids, the vocabulary has {len(self):,}. Try: dtype='int32'")
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: expected at least 1, or None for all CPUs of the process")
        return name
