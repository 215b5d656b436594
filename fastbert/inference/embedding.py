"""Texts as vectors: hidden states pooled over each text.

Legend: B texts, T packed tokens, D hidden_size.

Reference: Reimers & Gurevych, Sentence-BERT, 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastbert.batch import PackedBatch, by_token_budget, inference_tokens, pack_rows
from fastbert.inference.frozen_model import FrozenModel
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True)
class EmbeddingSettings:
    """How hidden states become a vector; the default is Sentence-BERT's."""

    pooling: Pooling = "mean"
    normalize: bool = True  # to length 1
    max_length: int | None = None  # tokens of a text, special ones included; None: the model's limit
    unsupported: str = ""  # the feature of a directory that we do not implement, if any
    lowercase: bool = False  # texts before the tokenizer, whatever it does
    prompt: str = ""  # written before every text
    similarity: str = "cosine"  # what the model was trained for

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise InputError(f"pooling={self.pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if self.max_length is not None and self.max_length < 2:
            raise InputError(f"max_length={self.max_length}: expected at least 2 tokens, [CLS] and [SEP]")

    def prepared(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer gets them."""
        if not self.prompt and not self.lowercase:
            return list(texts)
        prompted = [self.prompt + text for text in texts]
        # by character, as the library does it: a capital sigma is always σ
        return ["".join(map(str.lower, text)) for text in prompted] if self.lowercase else prompted


# ---- vectors ----
def embed_texts(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    settings: EmbeddingSettings,
    batch_tokens: int | None = None,
    frozen: FrozenModel | None = None,
) -> NDArray[np.float32]:
    """(B, D) float32, in the order of the texts; longer texts are cut at ``settings.max_length``.

    Texts of similar length are packed together. ``frozen``: runs in the model's place if given.
    """
    limit = model.config.max_position_embeddings
    limit = min(limit, settings.max_length or limit)
    vectors = np.empty((len(texts), model.config.hidden_size), np.float32)
    if not len(texts):
        return vectors
    encoded = tokenizer.encode_batch(settings.prepared(texts), truncation=True, max_length=limit)
    lengths = np.diff(encoded.offsets)
    order = np.argsort(-lengths, kind="stable")
    with torch.inference_mode():
        for part in by_token_budget(lengths[order].tolist(), batch_tokens or inference_tokens(model.device)):
            batch = pack_rows([encoded[i] for i in order[part]]).to(model.device)
            vectors[order[part]] = pooled(frozen or model, batch, settings).float().cpu().numpy()
    return vectors


def pooled(model: BertForPreTraining | FrozenModel, batch: PackedBatch, settings: EmbeddingSettings) -> Tensor:
    """(B, D) of a packed batch, differentiable; no head runs."""
    if settings.pooling == "cls":
        vectors = model.encode(batch, batch.cu_seqlens[:-1].long())
    else:
        lengths = batch.cu_seqlens.diff().long()
        # in float32 also under autocast, as in sentence-transformers
        vectors = torch.segment_reduce(model.encode(batch).float(), settings.pooling, lengths=lengths, axis=0)
    return F.normalize(vectors, dim=-1) if settings.normalize else vectors
