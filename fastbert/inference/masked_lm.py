"""Predictions at the masked rows of a batch; what copies of a text share is computed once.

Scoring and joint filling pack many copies of a text with different masks. Embeddings and the first projection depend on
the token, its position and its segment alone, so equal tokens of a batch share them.

Legend: T packed tokens, U distinct ones, M masked rows, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from fastbert import ops
from fastbert.batch import PackedBatch
from fastbert.model import BertForPreTraining

_MIN_SEQUENCES = 4  # fewer have too few copies


@torch.no_grad()
def predict(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    """Vocabulary logits (M, V) of the rows ``batch.masked_index``, without a gradient."""
    return model.decode(_encode_masked(model, batch))


def label_log_probs(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    """Log-probability of each of the batch's labels, (M,), without a gradient."""
    assert batch.labels is not None
    return ops.label_log_probs(
        model.head(_encode_masked(model, batch)), model.decoder_weight, model.head.bias, batch.labels,
        vocab_size=model.config.vocab_size, impl=model.impl,
    )  # fmt: skip


@torch.no_grad()
def _encode_masked(model: BertForPreTraining, batch: PackedBatch) -> Tensor:
    """Hidden states of the masked rows, (M, D)."""
    rows = batch.masked_index
    assert rows is not None
    model.check_length(batch)
    batch = batch.padded_to_multiple()
    found = _deduplicate_tokens(model, batch)
    if found is None:
        return model.encode(batch, rows)
    unique, unique_index = found
    hidden = model.embeddings(batch.input_ids[unique], batch.position_ids[unique], batch.token_type_ids[unique])
    return model.encoder(
        hidden, batch.position_ids, batch.cu_seqlens, batch.max_seqlen, rows=rows, unique_index=unique_index
    )


def _deduplicate_tokens(model: BertForPreTraining, batch: PackedBatch) -> tuple[Tensor, Tensor] | None:
    """A row of each distinct (segment, position, token), (U,), and the index of every token among them, (T,).

    None where fewer than half the tokens are copies.
    """
    ids, config = batch.input_ids, model.config
    if ids.device.type != "cpu" or batch.num_sequences < _MIN_SEQUENCES:
        return None
    positions = batch.token_type_ids * config.max_position_embeddings + batch.position_ids
    keys = positions * config.padded_vocab_size + ids
    _, unique, unique_index = np.unique(keys.numpy(), return_index=True, return_inverse=True)
    return None if 2 * len(unique) > len(ids) else (torch.from_numpy(unique), torch.from_numpy(unique_index))
