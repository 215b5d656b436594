"""What each token attends to: the attention probabilities, recomputed because fused kernels never store them.

Legend: L tokens, D hidden_size, N heads, H head_dim.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastbert import reference
from fastbert.batch import PackedBatch
from fastbert.layers import EncoderLayer
from fastbert.model import BertForPreTraining


class AttentionMaps(NamedTuple):
    """Probabilities, and the tokens they are between."""

    tokens: list[str]  # L
    weights: NDArray[np.float32]  # (layers, N, L, L), or less of it; row: query, column: key; rows sum to 1


def attention_probabilities(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    """(layers, N, L, L) float32 of one sequence. The model itself runs as always, kernels included."""
    assert batch.num_sequences == 1
    encoder = model.encoder
    hidden = model.embeddings(batch.input_ids, batch.position_ids, batch.token_type_ids)
    rotary = encoder._rotary(batch.position_ids, hidden.dtype)
    maps = []
    for index, layer in enumerate(encoder.layers):
        assert isinstance(layer, EncoderLayer)
        tables = rotary[model.config.is_global_layer(index)]
        maps.append(_probabilities(layer, hidden, tables))
        hidden = layer(hidden, batch.cu_seqlens, batch.max_seqlen, rotary=tables)
    return torch.stack(maps)


def _probabilities(layer: EncoderLayer, hidden: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
    """softmax(q kᵀ / √H) of one layer, (N, L, L), from what enters the layer, (L, D)."""
    attention = layer.attention
    inner = layer.attention_norm(hidden) if layer.pre and layer.attention_norm is not None else hidden
    q, k, _ = attention.qkv(inner).unflatten(-1, (3, attention.num_heads, attention.head_dim)).unbind(-3)
    if rotary is not None:
        q, k = reference.rotary(q, *rotary), reference.rotary(k, *rotary)
    scores = torch.einsum("inh,jnh->nij", q.float(), k.float()) / math.sqrt(attention.head_dim)
    if attention.window is not None:
        position = torch.arange(hidden.shape[0], device=hidden.device)
        far = (position[:, None] - position[None, :]).abs() > attention.window
        scores = scores.masked_fill(far, -torch.inf)
    return scores.softmax(-1)
