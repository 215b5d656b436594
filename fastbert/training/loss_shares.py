"""How the parts of a batch share its loss: each counts by its labels, whatever micro-batch or rank it is on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.model import PreTrainingOutput


def share_of_loss(out: PreTrainingOutput, part: PackedBatch, whole: Sequence[PackedBatch]) -> Tensor:
    """The share of one part in the mean loss of whole batches: weighted by its number of labels."""
    if len(whole) == 1 and part is whole[0]:
        assert out.loss is not None
        return out.loss
    return weighted_loss(out, shares_of(part, whole))


def shares_of(part: PackedBatch, whole: Sequence[PackedBatch]) -> tuple[float, float]:
    """What the masked-LM loss of one part and its next-sentence loss count in those of whole batches."""
    if len(whole) == 1 and part is whole[0]:
        return 1.0, 1.0
    return tuple(of(part) / max(sum(map(of, whole)), 1) for of in (label_weight, num_pairs))  # type: ignore[return-value]


def weighted_loss(out: PreTrainingOutput, shares: Sequence[float | Tensor]) -> Tensor:
    """The sum of the two losses, or of the one there is, each times its share."""
    losses = (out.masked_lm_loss, out.next_sentence_loss)
    return torch.stack([loss * share for loss, share in zip(losses, shares, strict=True) if loss is not None]).sum()


def label_weight(batch: PackedBatch) -> float:
    """The denominator of the batch's mean loss: number of labels, or the sum of their weights."""
    if batch.label_weights is not None:
        return batch.label_weights.sum().item()
    return 0 if batch.labels is None else batch.labels.shape[0]


def num_pairs(batch: PackedBatch) -> int:
    return 0 if batch.next_sentence_label is None else int((batch.next_sentence_label != -100).sum())
