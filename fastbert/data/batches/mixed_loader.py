"""Batches of two texts: a share of the tokens of each comes from a second store."""

from collections.abc import Iterator
from typing import Any

from fastbert.batch import PackedBatch, concatenate
from fastbert.data.batches.loader import BatchLoader
from fastbert.data.types import TokenSource
from fastbert.system.errors import InputError


class MixedLoader:
    """Two loaders behind the interface of one; a batch has the sequences of the first, then those of the second.

    Each goes through its own text at its own pace, and the position in both is the state, so that batches stay a pure
    function of the seed and resume bit for bit.
    """

    def __init__(self, main: BatchLoader, replay: BatchLoader):
        self.main, self.replay = main, replay

    @property
    def store(self) -> TokenSource:
        """The tokens of the first text."""
        return self.main.store

    @property
    def typical_batch(self) -> tuple[float, float]:
        """See :attr:`BatchLoader.typical_batch`."""
        (tokens, sequences), (more_tokens, more_sequences) = self.main.typical_batch, self.replay.typical_batch
        return tokens + more_tokens, sequences + more_sequences

    def next_batch(self, mask_rate: float) -> PackedBatch:
        """The next batch of both, see :meth:`BatchLoader.next_batch`."""
        return concatenate([loader.next_batch(mask_rate) for loader in (self.main, self.replay)])

    def evaluation_batches(
        self, mask_rate: float, seed: int | None = None, max_tokens: int | None = None
    ) -> Iterator[PackedBatch]:
        """Those of the first text alone, see :meth:`BatchLoader.evaluation_batches`."""
        return self.main.evaluation_batches(mask_rate, seed, max_tokens)

    def state_dict(self) -> dict[str, Any]:
        """Return both positions."""
        return {**self.main.state_dict(), "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where ``state`` was taken, bit-exactly.

        Raises:
            InputError: the state is of a run without a second text, or belongs to other texts or settings.
        """
        if "replay" not in state:
            raise InputError("the saved data position has no --replay. Try: without it, or start a new run")
        self.main.load_state_dict(state)
        self.replay.load_state_dict(state["replay"])

    def close(self) -> None:
        """Stop both threads."""
        self.main.close()
        self.replay.close()
