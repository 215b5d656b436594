"""Texts as vectors: hidden states pooled over each text.

Legend: B texts, T packed tokens, D hidden_size.

Reference: Reimers & Gurevych, Sentence-BERT, 2019.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from fastbert.text.truncation import in_windows, num_truncated

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
    dimensions: int | None = None  # the first so many of D; None: all
    normalized_whole: bool = False  # length 1 of all D, before the cut to ``dimensions``
    prompts: Mapping[str, str] = field(default_factory=dict)  # that may be asked for by name

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise InputError(f"pooling={self.pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if self.max_length is not None and self.max_length < 2:
            raise InputError(f"max_length={self.max_length}: expected at least 2 tokens, [CLS] and [SEP]")

    def raw(self) -> "EmbeddingSettings":
        """Of vectors that are neither cut nor normalized."""
        return replace(self, normalize=False, dimensions=None, normalized_whole=False)

    def prompted(self, name: str) -> "EmbeddingSettings":
        """With the prompt of that name in place of the usual one.

        Raises:
            InputError: the directory has no such prompt.
        """
        if name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "none"
            raise InputError(f"prompt={name!r:.40}: the prompts of this model are {known}. Try: one of them, or none")
        return replace(self, prompt=self.prompts[name])

    def prepared(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer gets them."""
        if not self.prompt and not self.lowercase:
            return list(texts)
        prompted = [self.prompt + text for text in texts]
        # by character, as the library does it: a capital sigma is always σ
        return ["".join(map(str.lower, text)) for text in prompted] if self.lowercase else prompted


class TruncatedTexts(UserWarning):
    """``count`` of ``total`` texts were truncated to ``max_length`` tokens."""

    def __init__(self, count: int, total: int, max_length: int):
        super().__init__(f"{count:,} of {total:,} texts are longer than {max_length} tokens: truncated")
        self.count, self.max_length = count, max_length


# ---- vectors ----
def embed_texts(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    settings: EmbeddingSettings,
    batch_tokens: int | None = None,
    frozen: FrozenModel | None = None,
    windows: bool = False,
) -> NDArray[np.float32]:
    """(B, D) float32, in the order of the texts.

    Texts of similar length are packed together. Longer ones are truncated to ``settings.max_length``; with ``windows``
    their vector is pooled over windows of that length (for "cls" the mean of the windows' vectors). ``frozen``: runs in
    the model's place if given.
    """
    limit = model.config.max_position_embeddings
    limit = min(limit, settings.max_length or limit)
    width = model.config.hidden_size
    if settings.dimensions is not None and not 1 <= settings.dimensions <= width:
        raise InputError(f"dimensions={settings.dimensions}: expected 1 to {width}, the model's width")
    if not len(texts):
        return np.empty((0, settings.dimensions or width), np.float32)
    texts = settings.prepared(texts)
    if windows:
        rows, owners = in_windows(texts, tokenizer, limit)
        parts = _embed_rows(model, rows, settings.raw(), batch_tokens, frozen)
        lengths = np.array([len(row) for row in rows])
        return join_windows(torch.from_numpy(parts), owners, lengths, settings).numpy()
    encoded = tokenizer.encode_batch(texts, truncation=True, max_length=limit)
    lengths = np.diff(encoded.offsets)
    if truncated := num_truncated(texts, lengths, tokenizer, limit):
        warnings.warn(TruncatedTexts(truncated, len(texts), limit), stacklevel=3)
    return _embed_rows(model, [encoded[i] for i in range(len(texts))], settings, batch_tokens, frozen)


def _embed_rows(
    model: BertForPreTraining,
    rows: Sequence[NDArray[np.integer]],
    settings: EmbeddingSettings,
    batch_tokens: int | None,
    frozen: FrozenModel | None,
) -> NDArray[np.float32]:
    """(B, D) of rows of ids, each of which fits the model."""
    lengths = np.array([len(row) for row in rows])
    vectors = np.empty((len(rows), settings.dimensions or model.config.hidden_size), np.float32)
    order = np.argsort(-lengths, kind="stable")
    with torch.inference_mode():
        for part in by_token_budget(lengths[order].tolist(), batch_tokens or inference_tokens(model.device)):
            batch = pack_rows([rows[i] for i in order[part]]).to(model.device)
            vectors[order[part]] = pooled(frozen or model, batch, settings).float().cpu().numpy()
    return vectors


def join_windows(
    parts: Tensor, owners: NDArray[np.int64], lengths: NDArray[np.integer], settings: EmbeddingSettings
) -> Tensor:
    """(B, D): the vectors of texts from those of their windows, as pooled over all of their tokens.

    Args:
        parts: (windows, D), neither cut nor normalized.
        owners: the text of each window, ascending.
        lengths: tokens of each window.
        settings: pooling, dimensions, and whether to normalize.
    """
    counts = torch.from_numpy(np.bincount(owners)).to(parts.device)
    if settings.pooling == "max":
        vectors = torch.segment_reduce(parts, "max", lengths=counts, axis=0)
    else:
        sizes = lengths if settings.pooling == "mean" else np.ones(len(parts))
        weights = torch.from_numpy(sizes.astype(np.float32)).to(parts.device)[:, None]
        sums = torch.segment_reduce(parts * weights, "sum", lengths=counts, axis=0)
        vectors = sums / torch.segment_reduce(weights, "sum", lengths=counts, axis=0)
    return finished(vectors, settings)


def pooled(model: BertForPreTraining | FrozenModel, batch: PackedBatch, settings: EmbeddingSettings) -> Tensor:
    """(B, D) of a packed batch, differentiable; no head runs."""
    if settings.pooling == "cls":
        vectors = model.encode(batch, batch.cu_seqlens[:-1].long())
    else:
        lengths = batch.cu_seqlens.diff().long()
        # in float32 also under autocast, as in sentence-transformers
        hidden = model.encode(batch).float()
        if hidden.device.type == "cpu" and not hidden.requires_grad:  # where segment_reduce adds number by number
            parts = hidden.split(lengths.tolist())
            vectors = torch.stack([part.mean(0) if settings.pooling == "mean" else part.amax(0) for part in parts])
        else:
            vectors = torch.segment_reduce(hidden, settings.pooling, lengths=lengths, axis=0)
    return finished(vectors, settings)


def finished(vectors: Tensor, settings: EmbeddingSettings) -> Tensor:
    """(B, D) cut to the dimensions that are asked for and normalized, in the order that the settings say."""
    if settings.normalized_whole:
        return F.normalize(vectors, dim=-1)[:, : settings.dimensions]
    vectors = vectors[:, : settings.dimensions]
    return F.normalize(vectors, dim=-1) if settings.normalize else vectors


def trainable_encoder(
    model: BertForPreTraining, tokenizer: Tokenizer, settings: EmbeddingSettings, windows: bool = False
) -> Callable[[Sequence[str]], Tensor]:
    """What turns texts into vectors (B, D) of the model as it is, differentiable; texts as in :func:`embed_texts`."""
    limit = model.config.max_position_embeddings
    limit = min(limit, settings.max_length or limit)

    def encode(texts: Sequence[str]) -> Tensor:
        if windows:
            rows, owners = in_windows(texts, tokenizer, limit)
            parts = pooled(model, pack_rows(rows).to(model.device), settings.raw())
            return join_windows(parts.float(), owners, np.array([len(row) for row in rows]), settings)
        encoded = tokenizer.encode_batch(list(texts), truncation=True, max_length=limit)
        return pooled(model, pack_rows([encoded[i] for i in range(len(texts))]).to(model.device), settings)

    return encode
