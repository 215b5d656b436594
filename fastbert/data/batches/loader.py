"""An endless stream of packed, masked batches, prefetched by a thread.

A batch is a pure function of (seed, position in the stream), and the position is the loader's whole state. Masking
happens when a batch is requested, so the rate may change at any step; everything before it is prefetched.
"""

import math
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
from fastbert.data.batches.batch_plan import BatchPlan, Cursor, UnmaskedBatch, even_subset, mean_length
from fastbert.data.batches.masking import Masker, MaskUnit, diffusion_rates, label_weights
from fastbert.data.batches.philox import check_seed
from fastbert.data.batches.sequences import MlmSequences, NextSentenceSequences, Sequences
from fastbert.data.batches.spans import DocumentSpans
from fastbert.data.types import TokenSource
from fastbert.system.errors import InputError

Objective = Literal["mlm", "mlm+nsp", "diffusion"]


class TokenIds(Protocol):
    """The part of a tokenizer that the loader needs."""

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
        spans: (K, 2) int64, [first sentence, last sentence + 1) of each document (or part of one) of the split, or
            :class:`fastbert.data.batches.spans.DocumentSpans`.
        tokenizer: provides special ids, length and, for whole words and spans, ``is_continuation`` (V,) uint8.
        batch_tokens: maximum tokens per batch, including special tokens.
        max_length: maximum tokens per sequence, including special tokens.
        objective: "mlm": windows of running text; "mlm+nsp": pairs of segments as in the original BERT; "diffusion":
            windows of running text, each with its own mask rate, uniform on (0, 1], every selected token [MASK], and
            ``label_weights`` in the batch (:func:`fastbert.data.batches.masking.label_weights`).
        seed: 0 … 2^64 - 1; determines order, pairs and masks.
        shuffle: False gives text order and evaluation masks, the same in every epoch.
        mask_unit, mask_prob, random_prob: see :class:`fastbert.data.batches.masking.Masker`; "diffusion" takes "token"
            or "word", and 1 and 0 for the probabilities.
        impl: "auto", "cpp" or "reference", for masking and packing.
        prefetch: batches built ahead by a thread, enough to bridge the packing of a new chunk; 0: no thread.

    Raises:
        InputError: a value outside its range, or a split without tokens.
    """

    def __init__(
        self,
        store: TokenSource,
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
    ):
        if objective not in get_args(Objective):
            raise InputError(f"objective {objective!r}: expected one of {', '.join(get_args(Objective))}")
        if batch_tokens < max_length:
            raise InputError(
                f"batch_tokens={batch_tokens} is less than max_length={max_length}, but a batch holds whole sequences. "
                "Try: raise the one or lower the other"
            )
        if objective == "diffusion":
            if mask_unit == "span":
                raise InputError('mask unit "span" does not work with the objective diffusion. Try: "token" or "word"')
            mask_prob, random_prob = 1.0, 0.0
        self.store, self.tokenizer, self.objective = store, tokenizer, objective
        self.seed, self.prefetch = check_seed(seed), prefetch
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
        """Return the next batch, on the CPU.

        Args:
            mask_rate: share of the maskable tokens to mask, 0 … 1. Unless it is 0, at least one token is masked
                (except in a batch of special tokens only, e.g. all [UNK]). Ignored by the objective "diffusion", which
                draws a rate per sequence.

        Raises:
            InputError: mask_rate outside 0 … 1.
        """
        if self._ahead is None or self._ahead.process != os.getpid():  # a forked child has no thread
            ids = self.tokenizer
            stream = _stream(self.plan, self.store, ids.cls_id, ids.sep_id, self._cursor)
            self._ahead = _Ahead(stream, self.prefetch)
        batch, self._cursor, self._progress = self._ahead.next()
        return self._mask(batch, mask_rate, self.seed)

    def evaluation_batches(
        self, mask_rate: float, seed: int | None = None, max_tokens: int | None = None
    ) -> Iterator[PackedBatch]:
        """Yield the split once, in text order, with the same masks every time.

        Args:
            mask_rate: share of the maskable tokens to mask.
            seed: of the masks; None: that of the loader.
            max_tokens: approximate number of tokens, evenly spaced over the text; None: all.
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
                cursor = Cursor(0, chunk, batch)
                unmasked = plan.unmasked_batch(cursor, self.store, self.tokenizer.cls_id, self.tokenizer.sep_id)
                yield self._mask(unmasked, mask_rate, mask_seed)

    @property
    def typical_batch(self) -> tuple[float, float]:
        """Tokens and sequences of a batch to be expected."""
        length, count = mean_length(self.sequences), self.sequences.count(0)
        batches = math.ceil(length * count / self.plan.batch_tokens)
        return length * count / batches, count / batches

    @property
    def epoch(self) -> float:
        """Epochs of the split handed out so far."""
        return self._progress

    def state_dict(self) -> dict[str, int]:
        """Return the position in the stream after the last batch handed out."""
        cursor = self._cursor
        return {
            "epoch": cursor.epoch,
            "chunk": cursor.chunk,
            "batch": cursor.batch,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where ``state`` was taken, bit-exactly.

        Raises:
            InputError: the state belongs to another text, split, seed, objective, max_length or batch_tokens.
        """
        if state["fingerprint"] != self._fingerprint:
            raise InputError(
                "the saved data position belongs to another text, split, seed, objective, max_length or batch_tokens. "
                "Try: the values of the first run, or start a new run"
            )
        self.close()
        self._cursor = Cursor(state["epoch"], state["chunk"], state["batch"])
        self._progress = self.plan.progress(self._cursor)

    def close(self) -> None:
        """Stop the thread; :meth:`next_batch` starts it again."""
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

    def _mask(self, batch: UnmaskedBatch, mask_rate: float, seed: int) -> PackedBatch:
        rate: float | NDArray[np.float64] = mask_rate
        if self.objective == "diffusion":
            rate = diffusion_rates(batch.sequence_ids, seed=seed, epoch=batch.epoch, impl=self.plan.impl)
        masked = self.masker.mask(
            batch.input_ids, batch.cu_seqlens, batch.sequence_ids, seed=seed, epoch=batch.epoch, rate=rate
        )
        weights = label_weights(masked, batch.cu_seqlens, rate) if isinstance(rate, np.ndarray) else None
        return PackedBatch(
            input_ids=torch.from_numpy(batch.input_ids),
            position_ids=torch.from_numpy(batch.position_ids),
            token_type_ids=torch.from_numpy(batch.token_type_ids),
            cu_seqlens=torch.from_numpy(batch.cu_seqlens),
            max_seqlen=batch.max_seqlen,
            masked_index=torch.from_numpy(masked.masked_index),
            labels=torch.from_numpy(masked.labels),
            next_sentence_label=torch.from_numpy(batch.next_sentence_label) if self.objective == "mlm+nsp" else None,
            label_weights=None if weights is None else torch.from_numpy(weights),
        )


def _stream(
    plan: BatchPlan, store: TokenSource, cls_id: int, sep_id: int, cursor: Cursor
) -> Iterator[tuple[UnmaskedBatch, Cursor, float]]:
    """Yield the batches from ``cursor`` on, each with the position and the number of epochs after it."""
    # without a reference to the loader, which the thread must not keep alive
    while True:
        batch = plan.unmasked_batch(cursor, store, cls_id, sep_id)
        cursor = plan.advance(cursor, 1)
        yield batch, cursor, plan.progress(cursor)


class _Ahead:
    """An iterator run by a thread, ``depth`` items ahead; by the caller if ``depth`` is 0."""

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
            self._queue.put((None, error))  # later calls fail too instead of blocking
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
