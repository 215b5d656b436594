"""Attention of a single query in each sequence, without keys and values of the other tokens.

    scores_hj = q_h · (W_k^h x_j + b_k^h) = (W_k^hᵀ q_h) · x_j + a constant in j, which softmax does not see
    context_h = Σ_j p_hj (W_v^h x_j + b_v^h) = W_v^h (Σ_j p_hj x_j) + b_v^h

So both projections take one vector per head instead of one per token: 4 N D operations per token instead of 8 D²
(N heads, D hidden_size). Rotary keys are rotated by their positions and must still be projected one by one.

Shapes: inner (T, D), rows (B,): one of the T for each sequence; W_qkv (3D, D), rows [Q | K | V] of N heads of H each.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from fastbert.ops.cpu import matmul
from fastbert.ops.cpu.sequences import Sequences
from fastbert.reference import rotary

_SEQUENCES_A_RUN = 4  # neighbours of one length, on average, that make up for a call of their own


def supports(inner: Tensor, rows: Tensor | None, at: Sequences) -> bool:
    """Whether each sequence asks for exactly one row, and enough neighbours are of one length."""
    if rows is None or at.window is not None or inner.dtype != torch.float32 or not len(rows):
        return False
    bounds = at.cu_seqlens
    if len(rows) != len(bounds) - 1 or not bool(((bounds[:-1] <= rows) & (rows < bounds[1:])).all()):
        return False
    return sum(1 for _ in _runs(bounds)) <= max(len(rows) // _SEQUENCES_A_RUN, 1)


def _runs(cu_seqlens: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Neighbouring sequences of one length: first, stop, the first one's start, length."""
    bounds = cu_seqlens.tolist()
    first = 0
    for length, run in itertools.groupby(b - a for a, b in itertools.pairwise(bounds)):
        stop = first + len(list(run))
        yield first, stop, bounds[first], length
        first = stop


def context(inner: Tensor, qkv_weight: Tensor, qkv_bias: Tensor | None, rows: Tensor, at: Sequences) -> Tensor:
    """What the rows' queries gather, (B, D), before the output projection."""
    width, heads = inner.shape[1], at.num_heads
    of_queries, of_keys, of_values = qkv_weight.view(3, width, width)
    query_bias, key_bias, value_bias = (None,) * 3 if qkv_bias is None else qkv_bias.view(3, width)
    queries = matmul.linear(inner.index_select(0, rows), of_queries, query_bias)
    queries = queries.view(-1, heads, width // heads) * (width // heads) ** -0.5  # (B, N, H)
    keys = None
    if at.cos is None:
        queries = _each_head(queries, of_keys.view(heads, -1, width))  # (B, N, D)
    else:
        assert at.sin is not None
        queries = rotary(queries, at.cos[rows], at.sin[rows])
        keys = matmul.linear(inner, of_keys, key_bias).view(-1, heads, width // heads)
        keys = rotary(keys, at.cos, at.sin)  # (T, N, H)
    gathered = inner.new_empty((len(rows), heads, width))
    for first, stop, start, length in _runs(at.cu_seqlens):
        tokens = slice(start, start + (stop - first) * length)
        seen = inner[tokens].view(stop - first, length, width)
        if keys is None:
            scores = torch.bmm(queries[first:stop], seen.mT)  # (·, N, L)
        else:
            those = keys[tokens].view(stop - first, length, heads, -1)
            scores = torch.matmul(queries[first:stop, :, None], those.permute(0, 2, 3, 1)).squeeze(2)
        torch.bmm(scores.softmax(-1), seen, out=gathered[first:stop])
    out = _each_head(gathered, of_values.view(heads, -1, width).mT).flatten(1)
    return out if value_bias is None else out.add_(value_bias)


def _each_head(x: Tensor, matrices: Tensor) -> Tensor:
    """(B, N, ·) by a matrix of its own for each head, (N, ·, ·)."""
    return torch.bmm(x.transpose(0, 1), matrices).transpose(0, 1).contiguous()
