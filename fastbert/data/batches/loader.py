"""Packed, masked batches without end, made ahead of time by a thread.

What a batch holds is a pure function of (seed, place in the stream); the loader's whole state is that place. Masking
is done when a batch is asked for, so that the rate may change at any step; all before it is done ahead.
"""

import os
import queue
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fastbert.batch import PackedBatch
from fastbert.data.batches.batch_plan import BatchPlan, Cursor, Draft, even_subset
from fastbert.data.batches.masking import Masker, MaskUnit, diffusion_rates, label_weights
from fastbert.data.batches.philox import check_seed
from fastbert.data.batches.sequences import MlmSequences, NextSentenceSequences, Sequences, TokenStore
from fastbert.data.batches.spans import DocumentSpans
from fastbert.system.errors import InputError

Objective = Literal["mlm", "mlm+nsp", "diffusion"]


class TokenIds(Protocol):
    """What the loader needs of a tokenizer."""

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __len__(self) -> int: ...


class BatchLoader:
    """Batches of a split of a token store.

    Args:
        store: the tokens, e.g. a :class:`fastbert.data.store.token_store.TokenStore`.
        spans: (K, 2) int64, [first sentence, last sentence + 1) of each document of the split, or part of one; or
            :class:`fastbert.data.batches.spans.DocumentSpans`, which holds no list.
        tokenizer: its special ids, its length and, for whole words and spans, ``is_continuation`` (V,) uint8.
        batch_tokens: most tokens in a batch of one rank, special tokens included.
        max_length: tokens of the longest sequence, special tokens included.
        objective: "mlm": windows of running text; "mlm+nsp": pairs of segments as in the original BERT; "diffusion":
            windows of running text, each with a mask rate of its own, evenly from (0, 1], every chosen token [MASK],
            and ``label_weights`` in the batch (:func:`fastbert.data.batches.masking.label_weights`).
        seed: 0 … 2^64 - 1; order, pairs and masks come from it alone.
        shuffle: False gives the order of the text and the masks of the evaluation, every epoch the same.
        mask_unit, mask_prob, random_prob: see :class:`fastbert.data.batches.masking.Masker`; "diffusion" takes "token"
            or "word", and 1 and 0 for the probabilities.
        impl: "auto", "cpp" or "reference", for masking and packing.
        prefetch: batches made ahead by a thread, enough to bridge the packing of a new chunk; 0: no thread.
        rank, world_size: this process takes every ``world_size``-th batch of the stream, from batch ``rank`` on.

    Raises:
        InputError: a value outside its range, or a split without tokens.
    """

    def __init__(
        self,
        store: TokenStore,
        spans: NDArray[np.int64] | DocumentSpans,
        tokenizer: TokenIds,
        *,
        batch_tokens: int,
        max_length: int,
        objective: Objective = "mlm",
        seed: int = 0,
        shuffle: bool = True,
        mask_unit: MaskUnit = "token",
        mask_prob: float = 0.8,
        random_prob: float = 0.1,
        impl: str = "auto",
        prefetch: int = 8,
        rank: int = 0,
        world_size: int = 1,
    ):
        if objective not in get_args(Objective):
            raise InputError(f"objective {objective!r}: expected one of {', '.join(get_args(Objective))}")
        if batch_tokens < max_length:
            raise InputError(
                f"batch_tokens={batch_tokens} is less than max_length={max_length}: a batch holds whole sequences; "
                "raise the one or lower the other"
            )
        if objective == "diffusion":
            if mask_unit == "span":
                raise InputError('mask unit "span": the objective diffusion takes "token" or "word"')
            mask_prob, random_prob = 1.0, 0.0
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank}, world_size={world_size}: expected 0 <= rank < world_size")
        self.store, self.tokenizer, self.objective = store, tokenizer, objective
        self.seed, self.prefetch, self.rank, self.world_size = check_seed(seed), prefetch, rank, world_size
        make = NextSentenceSequences if objective == "mlm+nsp" else MlmSequences
        self.sequences: Sequences = make(store, spans, max_length, seed)
        self.plan = BatchPlan(self.sequences, batch_tokens=batch_tokens, seed=seed, shuffle=shuffle, impl=impl)
        self.masker = Masker(
            mask_id=tokenizer.mask_id,
            vocab_size=len(tokenizer),
            special_ids=(tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id),
            unit=mask_unit,
            is_continuation=None if mask_unit == "token" else getattr(tokenizer, "is_continuation", None),
            mask_prob=mask_prob,
            random_prob=random_prob,
            impl=impl,
        )
        settings = f"{objective} {max_length} {batch_tokens} {seed} {shuffle} {store.num_tokens}"
        self._fingerprint = self.sequences.spans.digest(zlib.crc32(settings.encode()))
        self._cursor, self._progress = Cursor(), 0.0
        self._ahead: _Ahead | None = None

    def next_batch(self, mask_rate: float) -> PackedBatch:
        """Return the next batch of this rank, on the CPU.

        Args:
            mask_rate: part of the maskable tokens to mask, 0 … 1. Where it is not 0, at least one token is masked
                (unless the batch holds special tokens only, e.g. nothing but [UNK]). The objective "diffusion" draws
                rates of its own and ignores it.

        Raises:
            InputError: mask_rate outside 0 … 1.
        """
        if self._ahead is None or self._ahead.process != os.getpid():  # a forked child has no thread: start anew
            ids = self.tokenizer
            stream = _stream(self.plan, self.store, ids.cls_id, ids.sep_id, self._cursor, self.rank, self.world_size)
            self._ahead = _Ahead(stream, self.prefetch)
        draft, cursor, progress = self._ahead.next()
        self._cursor, self._progress = cursor, progress
        return self._mask(draft, mask_rate, self.seed)

    def evaluation_batches(
        self, mask_rate: float, seed: int | None = None, max_tokens: int | None = None
    ) -> Iterator[PackedBatch]:
        """Yield the split once, in the order of the text, with the same masks every time.

        Args:
            mask_rate: part of the maskable tokens to mask.
            seed: of the masks; None: the loader's.
            max_tokens: about how many tokens to take, evenly over the text; None: all.
        """
        subset = None if max_tokens is None else even_subset(self.sequences, max_tokens)
        plan = BatchPlan(
            self.sequences,
            batch_tokens=self.plan.batch_tokens,
            seed=self.seed,
            shuffle=False,
            subset=subset,
            impl=self.plan.impl,
        )
        mask_seed = self.seed if seed is None else check_seed(seed)
        for chunk in range(plan.num_chunks(0)):
            for batch in range(len(plan.chunk(0, chunk).rows)):
                yield self._mask(self._draft(plan, Cursor(0, chunk, batch)), mask_rate, mask_seed)

    @property
    def epoch(self) -> float:
        """Epochs of the split handed out so far, by all ranks together."""
        return self._progress

    def state_dict(self) -> dict[str, int]:
        """Return the place in the stream after the last batch handed out; the same on every rank."""
        cursor = self._cursor
        return {
            "epoch": cursor.epoch,
            "chunk": cursor.chunk,
            "batch": cursor.batch,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken, bit-exactly, also with another number of ranks.

        Raises:
            InputError: the state is of a loader with another text, seed, objective, max_length or batch_tokens.
        """
        if state["fingerprint"] != self._fingerprint:
            raise InputError(
                "the saved place in the data belongs to another text, split, seed, objective, max_length or "
                "batch_tokens: give the values of the first run, or start a new one"
            )
        self.close()
        self._cursor = Cursor(state["epoch"], state["chunk"], state["batch"])
        self._progress = self.plan.progress(self._cursor)

    def close(self) -> None:
        """Stop the thread. The next :meth:`next_batch` starts it again."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ahead", None) is not None:
            self._ahead.stop.set()  # type: ignore[union-attr]

    def _draft(self, plan: BatchPlan, cursor: Cursor) -> Draft:
        return plan.draft(cursor, self.store, self.tokenizer.cls_id, self.tokenizer.sep_id)

    def _mask(self, draft: Draft, mask_rate: float, seed: int) -> PackedBatch:
        rate: float | NDArray[np.float64] = mask_rate
        if self.objective == "diffusion":
            rate = diffusion_rates(draft.sequence_ids, seed=seed, epoch=draft.epoch, impl=self.plan.impl)
        masked = self.masker.mask(
            draft.input_ids, draft.cu_seqlens, draft.sequence_ids, seed=seed, epoch=draft.epoch, rate=rate
        )
        weights = label_weights(masked, draft.cu_seqlens, rate) if isinstance(rate, np.ndarray) else None
        return PackedBatch(
            input_ids=torch.from_numpy(draft.input_ids),
            position_ids=torch.from_numpy(draft.position_ids),
            token_type_ids=torch.from_numpy(draft.token_type_ids),
            cu_seqlens=torch.from_numpy(draft.cu_seqlens),
            max_seqlen=draft.max_seqlen,
            masked_index=torch.from_numpy(masked.masked_index),
            labels=torch.from_numpy(masked.labels),
            next_sentence_label=torch.from_numpy(draft.next_sentence_label) if self.objective == "mlm+nsp" else None,
            label_weights=None if weights is None else torch.from_numpy(weights),
        )


def _stream(
    plan: BatchPlan, store: TokenStore, cls_id: int, sep_id: int, cursor: Cursor, rank: int, world_size: int
) -> Iterator[tuple[Draft, Cursor, float]]:
    """Yield this rank's batches from ``cursor`` on, each with the place and the epochs done after all ranks' turn."""
    # no reference to the loader: a thread that runs this must not keep it alive
    while True:
        draft = plan.draft(plan.advance(cursor, rank), store, cls_id, sep_id)
        cursor = plan.advance(cursor, world_size)
        yield draft, cursor, plan.progress(cursor)


class _Ahead:
    """An iterator run by a thread, ``depth`` items ahead; by the caller when ``depth`` is 0."""

    def __init__(self, items: Iterable[Any], depth: int):
        self.process = os.getpid()
        self.stop = threading.Event()
        self._items = iter(items)
        self._queue: queue.Queue[tuple[Any, BaseException | None]] | None = None
        if depth > 0:
            self._queue = queue.Queue(depth)
            self._thread = threading.Thread(
                target=_run_ahead, args=(self._items, self._queue, self.stop), name="fastbert-loader", daemon=True
            )
            self._thread.start()

    def next(self) -> Any:
        if self._queue is None:
            return next(self._items)
        item, error = self._queue.get()
        if error is not None:
            self._queue.put((None, error))  # every later call fails too, and none waits for ever
            raise error
        return item

    def close(self) -> None:
        self.stop.set()
        if self._queue is not None and self.process == os.getpid():
            self._thread.join()


def _run_ahead(items: Iterator[Any], results: queue.Queue, stop: threading.Event) -> None:
    result: tuple[Any, BaseException | None]
    while not stop.is_set():
        try:
            result = (next(items), None)
        except BaseException as error:  # handed to the caller of next()
            result = (None, error)
        while not stop.is_set():
            try:
                results.put(result, timeout=0.1)
                break
            except queue.Full:
                pass
        if result[1] is not None:
            return
