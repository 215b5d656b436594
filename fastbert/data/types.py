"""The token-store interfaces that sequences, splits and spans read, and the integer array they share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class TokenOffsets(Protocol):
    """Where the documents and sentences of a corpus begin."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def document_offsets(self) -> Ints: ...  # (documents + 1,) token positions
    @property
    def sentence_offsets(self) -> Ints: ...  # (sentences + 1,) token positions


class TokenSource(TokenOffsets, Protocol):
    """Offsets and tokens; :class:`fastbert.data.store.token_store.TokenStore` is the implementation on disk."""

    def gather(self, starts: Ints, lengths: Ints) -> NDArray[np.int32]: ...
