"""Texts as vectors: hidden states pooled over each text, and the settings files of sentence-transformers.

Legend: B texts, T packed tokens, D hidden_size.

Reference: Reimers & Gurevych, Sentence-BERT, 2019.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastbert.batch import PackedBatch, by_token_budget, inference_tokens, pack_rows
from fastbert.inference.frozen_model import FrozenModel
from fastbert.model import BertForPreTraining
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object
from fastbert.text import Tokenizer
from fastbert.text.truncation import TruncatedTexts, in_windows, num_truncated

Pooling = Literal["mean", "cls", "max"]
REMEDY = "copy the file again from its source"


@dataclass(frozen=True)
class EmbeddingSettings:
    """How hidden states become a vector; the default is Sentence-BERT's."""

    pooling: Pooling = "mean"
    normalize: bool = True  # to length 1
    max_length: int | None = None  # tokens of a text, special ones included; None: the model's limit
    unsupported: str = ""  # the feature of a directory that we do not implement, if any
    dimensions: int | None = None  # the first so many of D; None: all

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise InputError(f"pooling={self.pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if self.max_length is not None and self.max_length < 2:
            raise InputError(f"max_length={self.max_length}: expected at least 2 tokens, [CLS] and [SEP]")


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
    if windows:
        rows, owners = in_windows(texts, tokenizer, limit)
        parts = _embed_rows(model, rows, replace(settings, normalize=False), batch_tokens, frozen)
        return _joined(parts, owners, np.array([len(row) for row in rows]), settings)
    encoded = tokenizer.encode_batch(list(texts), truncation=True, max_length=limit)
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


def _joined(
    parts: NDArray[np.float32], owners: NDArray[np.int64], lengths: NDArray[np.int64], settings: EmbeddingSettings
) -> NDArray[np.float32]:
    """The vectors of texts from those of their windows: as pooled over all of their tokens."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    if settings.pooling == "max":
        vectors = np.maximum.reduceat(parts, starts)
    else:
        weights = lengths[:, None] if settings.pooling == "mean" else np.ones((len(parts), 1))
        sums = np.add.reduceat(parts * weights, starts)
        vectors = (sums / np.add.reduceat(weights, starts)).astype(np.float32)
    if settings.normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    return vectors


def pooled(model: BertForPreTraining | FrozenModel, batch: PackedBatch, settings: EmbeddingSettings) -> Tensor:
    """(B, D) of a packed batch, differentiable; no head runs."""
    if settings.pooling == "cls":
        vectors = model.encode(batch, batch.cu_seqlens[:-1].long())
    else:
        lengths = batch.cu_seqlens.diff().long()
        # in float32 also under autocast, as in sentence-transformers
        vectors = torch.segment_reduce(model.encode(batch).float(), settings.pooling, lengths=lengths, axis=0)
    vectors = vectors[:, : settings.dimensions]
    return F.normalize(vectors, dim=-1) if settings.normalize else vectors


# ---- sentence-transformers' files ----
def read_settings(directory: Path) -> EmbeddingSettings | None:
    """Read ``modules.json`` of a sentence-transformers directory; None if there is no such file.

    Raises:
        InputError: damaged files.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return None
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no valid JSON ({error}): {REMEDY}") from None
    if not isinstance(modules, list):
        raise InputError(f"{path}: holds {type(modules).__name__} where a list is expected: {REMEDY}")
    kinds: dict[str, str] = {}
    for module in modules:
        fields = Fields(module, str(path), REMEDY)
        kinds[fields.text("type").rpartition(".")[2]] = fields.text("path", "")
    unsupported = "".join(f"a module {kind}" for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize"))
    pooling, pooling_unsupported = "mean", ""
    if "Pooling" in kinds:
        if Path(folder := kinds["Pooling"]).name != folder:
            raise InputError(f"{path}: the folder {folder!r} leaves the directory: do not use this model")
        pooling, pooling_unsupported = _read_pooling(directory / folder / "config.json")
    length = _read_max_length(directory)
    return EmbeddingSettings(pooling, "Normalize" in kinds, length, unsupported or pooling_unsupported)  # type: ignore[arg-type]


def _read_max_length(directory: Path) -> int | None:
    """Maximum tokens of a text: in its own file, in newer versions where transformers keeps it."""
    sources = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
    for file, name in sources:
        if (path := directory / file).is_file():
            length = Fields(read_object(path, REMEDY), str(path), REMEDY).number(name, 0.0)
            if 2 <= length < 2**31:
                return int(length)
    return None


def _read_pooling(path: Path) -> tuple[str, str]:
    """The pooling, in the old form (a flag for each kind) or the new one (a name), and what is unsupported."""
    fields = Fields(read_object(path, REMEDY), str(path), REMEDY)
    ours = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}
    if "pooling_mode" in fields:
        mode = fields.values["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode) if isinstance(mode, list) else []
    else:
        flags = [name for name in fields.values if name.startswith("pooling_mode_") and fields.flag(name, False)]
        modes = [ours.get(name, name) for name in flags]
    if len(modes) == 1 and modes[0] in get_args(Pooling):
        return modes[0], ""
    return "mean", f"pooling {'+'.join(map(str, modes)) or 'of no kind'}"


def write_settings(directory: Path, settings: EmbeddingSettings, hidden_size: int, max_length: int) -> None:
    """Make a saved model a sentence-transformers directory."""

    def write(name: str, content: object) -> None:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    if settings.normalize:
        kinds.append(("Normalize", "2_Normalize"))
        (directory / "2_Normalize").mkdir(exist_ok=True)
        write("2_Normalize/config.json", {})
    write(
        "1_Pooling/config.json",
        {
            "word_embedding_dimension": hidden_size,
            "pooling_mode_cls_token": settings.pooling == "cls",
            "pooling_mode_mean_tokens": settings.pooling == "mean",
            "pooling_mode_max_tokens": settings.pooling == "max",
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    write("sentence_bert_config.json", {"max_seq_length": settings.max_length or max_length, "do_lower_case": False})
    write("config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    # last: without it the directory is an ordinary model
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    write("modules.json", modules)
