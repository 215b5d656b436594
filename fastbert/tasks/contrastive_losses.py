"""What contrastive training minimizes: functions of the vectors of a batch of pairs.

Legend: B pairs of a batch, N hard negatives, D hidden_size.

References: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018 (InfoNCE, also called
multiple-negatives ranking); Reimers & Gurevych, Sentence-BERT, 2019 (cosine); Su, CoSENT, 2022; Kusupati et al.,
Matryoshka Representation Learning, 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported where it is used: --help does not wait for it
    from torch import Tensor


def info_nce(
    first: Tensor, second: Tensor, temperature: float, negatives: Tensor | None = None, same: Tensor | None = None
) -> Tensor:
    """-log softmax(cosines / temperature) at the partner, mean of both directions.

    Args:
        first, second: (B, D) of length 1, partners in the same row.
        temperature: divides the cosines.
        negatives: (N, D), further candidates for ``first``.
        same: (B, B + N), true where a candidate is no negative: it equals the partner, or belongs to an equal text.
    """
    import torch
    import torch.nn.functional as F

    candidates = second if negatives is None else torch.cat([second, negatives])
    scores = first @ candidates.T / temperature  # (B, B + N)
    if same is not None:
        scores = scores.masked_fill(same, float("-inf"))
    labels = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores[:, : len(first)].T, labels)) / 2


def same_texts(batch: Sequence[Sequence[str]]) -> Tensor:
    """(B, B + N) for :func:`info_nce`: candidates other than the partner that equal it, or share the first text."""
    import torch

    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(text, len(numbers)) for text in pair] for pair in batch]
    first, second = torch.tensor([i[0] for i in ids]), torch.tensor([i[1] for i in ids])
    negatives = torch.tensor([n for i in ids for n in i[2:]], dtype=torch.int64)
    same = (second[:, None] == second) | (first[:, None] == first)
    same.fill_diagonal_(False)
    return torch.cat([same, (second[:, None] == negatives) | (first[:, None] == negatives)], dim=1)


def cosine_error(first: Tensor, second: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of the cosines and their targets (B,), from 0 (unlike) to 1 (alike)."""
    import torch.nn.functional as F

    return F.mse_loss((first * second).sum(-1), targets)


def cosent(first: Tensor, second: Tensor, grades: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ exp((cos_j - cos_i) / temperature)) over the pairs of pairs in which i has the higher grade.

    Only the order of the grades (B,) counts, not their scale.
    """
    import torch

    cosines = (first * second).sum(-1) / temperature
    gaps = (cosines[None] - cosines[:, None])[grades[:, None] > grades[None]]
    return torch.logsumexp(torch.cat([gaps.new_zeros(1), gaps]), 0)


def over_dimensions(loss: Callable[..., Tensor], dimensions: Sequence[int], *vectors: Tensor) -> Tensor:
    """The mean loss of the vectors (·, D) and of their first ``dimensions``, each normalized to length 1."""
    import torch
    import torch.nn.functional as F

    if not dimensions:
        return loss(*vectors)
    cuts = [*dimensions, vectors[0].shape[-1]]
    return torch.stack([loss(*(F.normalize(v[:, :cut], dim=-1) for v in vectors)) for cut in cuts]).mean()
