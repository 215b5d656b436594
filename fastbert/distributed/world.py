"""The ranks of a run: who they are, collectives, and which part of a batch each one takes.

Every rank makes the same global batch, a pure function of (seed, epoch, position), and takes its share of the
sequences; the loss is divided by the labels of the whole batch. So the loss curve does not depend on the number of
ranks. Rank 0 owns the clock, the run directory and the terminal.

Legend: B sequences, T packed tokens, M masked positions.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

from fastbert.batch import PackedBatch
from fastbert.system.errors import InputError

T = TypeVar("T")

JOIN_TIMEOUT = timedelta(minutes=10)  # for all ranks to start Python and connect
PREPARE_TIMEOUT = timedelta(days=2)  # for rank 0 to prepare the data; if it dies, torchrun ends the others
# once training has begun: nothing else notices a host that vanished silently (a cut cable); verifying a large token
# store and a slow disk must fit in
TRAINING_TIMEOUT = timedelta(hours=1)


class World:
    """The ranks of a run; without torchrun there is one, and all collectives are no-ops."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1, joined: bool = False):
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self.joined = joined  # started by torchrun, even if alone

    @classmethod
    def join(cls, cuda: bool) -> "World":
        """Connect to the other ranks that torchrun started (RANK and WORLD_SIZE are set), or be the only one.

        Args:
            cuda: gradients are on GPUs: NCCL for them, gloo for the rest.

        Raises:
            InputError: the others could not be reached within JOIN_TIMEOUT.
        """
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, size, local_rank, local_size = (int(os.environ.get(name, 1 if "SIZE" in name else 0)) for name in names)
        if cuda := cuda and torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        try:
            store = _rendezvous_store(rank, size)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=JOIN_TIMEOUT)
        except (RuntimeError, dist.DistError) as error:
            raise InputError(
                f"rank {rank} could not reach the other {size - 1} ranks within {JOIN_TIMEOUT} "
                f'({" ".join(str(error).split())[:160]}). Try: start all again; see "Several machines" in docs/scale.md'
            ) from None
        _set_pg_timeout(PREPARE_TIMEOUT)
        return cls(rank, size, local_rank, local_size, joined=True)

    def start_training(self) -> None:
        """From now on a rank that is silent for TRAINING_TIMEOUT counts as lost."""
        if self.joined:
            _set_pg_timeout(TRAINING_TIMEOUT)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        if self.joined and dist.is_initialized():
            dist.destroy_process_group()
            self.joined = False

    # ---- collectives ----
    def broadcast(self, *values: float) -> list[float]:
        """The values of rank 0."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        return tensor.tolist()

    def all_max(self, *values: float) -> list[float]:
        """The maximum of each value over the ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a CPU tensor, on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The CPU tensors of all ranks, of one shape, on every rank."""
        if self.size == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor)
        return gathered

    def run_on_main(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` on rank 0; every rank gets its result, as JSON. If it fails, the other ranks exit silently."""
        if self.size == 1:
            return work()
        if not self.main:
            text = self._send(None)
            if text is None:
                raise SystemExit(2)
            return json.loads(text)
        try:
            result = work()
        except BaseException:
            self._send(None)
            raise
        self._send(json.dumps(result))
        return result

    def run_on_main_first(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0, then on the others, which find its results on the disk."""
        if self.size == 1:
            return work()
        results: list[T] = []
        self.run_on_main(lambda: results.append(work()))
        return results[0] if self.main else work()

    def _send(self, text: str | None) -> str | None:
        data = b"" if text is None else b"+" + text.encode()
        length = int(self.broadcast(len(data))[0])
        block = torch.frombuffer(bytearray(data.ljust(max(length, 1))), dtype=torch.uint8)
        dist.broadcast(block, 0)
        return block.numpy().tobytes()[1:length].decode() if length else None

    # ---- data ----
    def shard(self, batch: PackedBatch, micro_batches: int = 1) -> list[PackedBatch]:
        """This rank's micro-batches of a global batch."""
        count = self.size * micro_batches
        if count == 1:
            return [batch]
        return [take(batch, count, self.rank * micro_batches + i) for i in range(micro_batches)]


def _rendezvous_store(rank: int, size: int) -> dist.Store:
    """The store in which the ranks of this start publish their addresses.

    torchrun may keep one store over all its restarts, and gloo would wait for the address of a dead process. The
    agents of several machines count restarts separately: there the store itself must be new (docs/scale.md).
    """
    store, *_ = next(rendezvous("env://", rank, size, timeout=JOIN_TIMEOUT))
    one_agent = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store) if one_agent else store


def take(batch: PackedBatch, count: int, number: int) -> PackedBatch:
    """Part ``number`` of ``count`` of the sequences, with about as many tokens in each part.

    A part that would be empty repeats the first sequence without labels, so that every rank has something to run.
    """
    bounds = batch.cu_seqlens.numpy()  # (B + 1,)
    wanted = bounds[-1] * np.arange(count + 1) / count
    after = np.searchsorted(bounds, wanted).clip(1, len(bounds) - 1)
    cuts = np.where(wanted - bounds[after - 1] < bounds[after] - wanted, after - 1, after)
    first, last = int(cuts[number]), int(cuts[number + 1])
    if first == last:
        return _sequences(batch, bounds, 0, 1, with_labels=False)
    return _sequences(batch, bounds, first, last)


def _sequences(batch: PackedBatch, bounds: np.ndarray, first: int, last: int, with_labels: bool = True) -> PackedBatch:
    begin, end = int(bounds[first]), int(bounds[last])
    news: dict[str, Any] = {n: getattr(batch, n)[begin:end] for n in ("input_ids", "position_ids", "token_type_ids")}
    if batch.masked_index is not None and batch.labels is not None:
        low, high = (
            torch.searchsorted(batch.masked_index, torch.tensor([begin, end])).tolist() if with_labels else (0, 0)
        )
        news["masked_index"] = batch.masked_index[low:high] - begin
        news["labels"] = batch.labels[low:high]
        if batch.label_weights is not None:
            news["label_weights"] = batch.label_weights[low:high]
    if batch.next_sentence_label is not None:
        labels = batch.next_sentence_label[first:last]
        news["next_sentence_label"] = labels if with_labels else torch.full_like(labels, -100)
    return replace(
        batch,
        cu_seqlens=batch.cu_seqlens[first : last + 1] - begin,
        max_seqlen=int(np.diff(bounds[first : last + 1]).max()),
        **news,
    )


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone."""
    text = str(error)
    signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "gloo",
             "remote process exited", "NCCL", "Timed out waiting")  # fmt: skip
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(s in text for s in signs))
