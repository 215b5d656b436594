"""A batch of one shape at one address of the device, which is what a CUDA graph reads.

Batches differ in their tokens, sequences and masked rows. Each is padded to a fixed number of them, with sequences of
zeros, empty sequences and rows without a label: neither loss nor gradients change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastbert.batch import PackedBatch, from_block, tensors_of, to_block
from fastbert.data import BatchLoader
from fastbert.data.batches.mixed_loader import MixedLoader
from fastbert.training.plan import TrainingPlan

TOKEN_SLACK, SEQUENCE_SLACK = 1.05, 1.3  # over a typical batch; a batch is never over --batch-tokens
MULTIPLE = 64  # of tokens and masked rows


@dataclass(frozen=True)
class StaticShape:
    """Room for one pass; a function of the plan and the text, so that a resumed run pads as the whole one."""

    tokens: int  # T
    sequences: int  # B
    masked: int  # M
    longest: int  # tokens of a sequence

    @classmethod
    def of(cls, plan: TrainingPlan, loader: BatchLoader | MixedLoader) -> "StaticShape":
        """Room for nearly every pass of a run; :meth:`holds` tells the others."""
        tokens, sequences = loader.typical_batch
        most = max(min(plan.batch_ramp.unit, TOKEN_SLACK * tokens), plan.max_length) / plan.micro_batches
        if plan.micro_batches > 1:  # a batch is cut between sequences
            most += plan.max_length
        room = math.ceil(most / MULTIPLE) * MULTIPLE
        rate, spread = max(plan.mask_rate.rate(0.0), plan.mask_rate.rate(1.0)), 4.0 * math.sqrt(most)
        if plan.objective == "diffusion":  # a rate for each sequence, uniform on (0, 1]
            rate, spread = 0.5, 4.0 * math.sqrt(most * plan.max_length / 12)
        masked = math.ceil((rate * most + spread) / MULTIPLE) * MULTIPLE
        padding = math.ceil(room / plan.max_length) if plan.micro_batches > 1 else 2
        count = math.ceil(SEQUENCE_SLACK * sequences / plan.micro_batches) + padding + 8
        return cls(room, min(count, room + 2), min(masked, room), plan.max_length)

    def holds(self, batch: PackedBatch) -> bool:
        """Whether the batch can be padded to this shape."""
        padding = math.ceil((self.tokens - batch.num_tokens) / self.longest)
        return (
            batch.num_tokens <= self.tokens
            and batch.num_sequences + padding <= self.sequences
            and (batch.masked_index is None or len(batch.masked_index) <= self.masked)
            and batch.max_seqlen <= self.longest
        )

    def padded(self, batch: PackedBatch) -> PackedBatch:
        return batch.padded_to(self.tokens, self.masked, self.sequences, self.longest)


class StaticBatch:
    """One padded batch and the shares of its losses on a GPU.

    Args:
        shape: of all batches.
        example: any of them, as the loader makes it.
        device: a CUDA device.
    """

    def __init__(self, shape: StaticShape, example: PackedBatch, device: torch.device):
        self.shape = shape
        self._example = shape.padded(example)
        self._like = tensors_of(self._example) | {"shares": torch.ones(2)}
        self._block = to_block(self._like).to(device)

    def fill(self, batch: PackedBatch, shares: Sequence[float]) -> None:
        """Send a batch that the shape holds: one copy, which nobody waits for."""
        tensors = tensors_of(self.shape.padded(batch)) | {"shares": torch.tensor(shares, dtype=torch.float32)}
        self._block.copy_(to_block(tensors), non_blocking=True)

    def read(self) -> tuple[PackedBatch, Sequence[Tensor]]:
        """The batch on the device, and the shares () of its masked-LM and next-sentence loss."""
        tensors = from_block(self._block, self._like)
        shares = tensors.pop("shares").unbind()
        return replace(self._example, **tensors), shares  # type: ignore[arg-type]
