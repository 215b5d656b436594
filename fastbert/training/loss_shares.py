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
    shares = []
    if out.masked_lm_loss is not None:
        shares.append(out.masked_lm_loss * (label_weight(part) / max(sum(map(label_weight, whole)), 1)))
    if out.next_sentence_loss is not None:
        shares.append(out.next_sentence_loss * (num_pairs(part) / max(sum(map(num_pairs, whole)), 1)))
    return torch.stack(shares).sum()


def label_weight(batch: PackedBatch) -> float:
    """The denominator of the batch's mean loss: number of labels, or the sum of their weights."""
    if batch.label_weights is not None:
        return batch.label_weights.sum().item()
    return 0 if batch.labels is None else batch.labels.shape[0]


def num_pairs(batch: PackedBatch) -> int:
    return 0 if batch.next_sentence_label is None else int((batch.next_sentence_label != -100).sum())
