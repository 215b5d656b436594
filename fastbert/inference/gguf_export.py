"""A model as a GGUF file for llama.cpp, whose embeddings are the library's.

llama.cpp has BERT with learned positions, a tokenizer that lower-cases and strips accents, and mean or [CLS] pooling;
every other model is refused. Its names of tensors and fields are those of the package ``gguf``. Vectors leave llama.cpp
normalized or not, as its caller asks.

Legend: V vocabulary, D hidden_size.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastbert.inference.embedding import EmbeddingSettings
from fastbert.model import BertForPreTraining
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

Dtype = Literal["f32", "f16"]
WORD_START = "\u2581"  # before a piece that begins a word; WordPiece marks the others
OTHERWISE = "Try: --to onnx, which takes any model"


def export(
    model: BertForPreTraining, tokenizer: Tokenizer, path: Path, settings: EmbeddingSettings | None, dtype: Dtype
) -> None:
    """Write ``path``, complete or not at all.

    Args:
        model: of the architecture "classic".
        tokenizer: WordPiece.
        path: of the file.
        settings: pooling; None: mean.
        dtype: of matrices; vectors are float32 always.

    Raises:
        InputError: the package gguf is missing; a model that llama.cpp would compute otherwise; an unwritable file.
    """
    try:
        import gguf
    except ImportError:
        raise InputError("--to gguf: the package gguf is missing. Try: pip install 'fastbert[gguf]'") from None
    settings = settings or EmbeddingSettings()
    _check(model, tokenizer, settings)
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory. Try: create it, or another path")
    if path.is_dir():
        raise InputError(f"{path}: is a directory. Try: the name of a file, such as {path / 'model.gguf'}")
    with written_whole(path) as temporary:
        writer = gguf.GGUFWriter(str(temporary), "bert")
        _write_settings(writer, model, settings, gguf, dtype)
        _write_vocabulary(writer, model, tokenizer, gguf)
        for name, values in tensors(model, _limit(model, settings)).items():
            half = dtype == "f16" and values.ndim == 2 and not name.startswith(("position_embd", "token_types"))
            writer.add_tensor(name, values.astype(np.float16 if half else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _check(model: BertForPreTraining, tokenizer: Tokenizer, settings: EmbeddingSettings) -> None:
    """Refuse what llama.cpp would compute otherwise, and say nothing of it."""
    config, options = model.config, tokenizer.options if isinstance(tokenizer, Tokenizer) else None
    problems = {
        f"arch {config.arch}: llama.cpp's BERT has learned positions": config.arch
        not in ("classic", "distilbert", "electra"),
        "embeddings narrower than the layers": config.embedding_size not in (None, config.hidden_size),
        "a tokenizer that is not BERT's WordPiece": options is None,
        "a tokenizer that keeps capitals or accents, which llama.cpp drops": options is not None
        and not (options.normalizer.lowercase and options.normalizer.strip_accents),
        "a tokenizer that joins ideographs, which llama.cpp parts": options is not None
        and not options.handle_chinese_chars,
        f"{settings.pooling} pooling": settings.pooling == "max",
        "a prompt before every text": bool(settings.prompt),
        f"vectors of {settings.dimensions} dimensions": settings.dimensions not in (None, config.hidden_size),
        settings.unsupported: bool(settings.unsupported),
    }
    for problem, found in problems.items():
        if found:
            raise InputError(f"--to gguf: the model has {problem}. {OTHERWISE}")


def _limit(model: BertForPreTraining, settings: EmbeddingSettings) -> int:
    """Tokens of the longest text: llama.cpp refuses longer ones, where the library truncates."""
    return min(model.config.max_position_embeddings, settings.max_length or model.config.max_position_embeddings)


def _write_settings(
    writer: Any, model: BertForPreTraining, settings: EmbeddingSettings, gguf: Any, dtype: Dtype
) -> None:
    config = model.config
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("fastbert")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if dtype == "f16" else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(_limit(model, settings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS if settings.pooling == "cls" else gguf.PoolingType.MEAN)


def _write_vocabulary(writer: Any, model: BertForPreTraining, tokenizer: Tokenizer, gguf: Any) -> None:
    """V pieces: those that begin a word with a mark, the others without their ``##``."""
    special = {number: text for text, number in tokenizer.special_tokens.items()}
    pieces, kinds = [], []
    for number in range(model.config.vocab_size):
        piece = tokenizer.vocab[number] if number < len(tokenizer.vocab) else ""
        if number in special:
            pieces.append(special[number])
            kinds.append(gguf.TokenType.CONTROL)
        elif not piece:
            pieces.append(f"[PAD{number}]")
            kinds.append(gguf.TokenType.UNUSED)
        else:
            pieces.append(piece[2:] if piece.startswith("##") and len(piece) > 2 else WORD_START + piece)
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_token_type_count(max(1, model.config.type_vocab_size))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.cls_id),
        (writer.add_eos_token_id, tokenizer.sep_id),
        (writer.add_sep_token_id, tokenizer.sep_id),
        (writer.add_unk_token_id, tokenizer.unk_id),
        (writer.add_pad_token_id, tokenizer.pad_id),
        (writer.add_mask_token_id, tokenizer.mask_id),
    ):
        if number >= 0:
            add(number)


def tensors(model: BertForPreTraining, max_length: int) -> dict[str, NDArray[np.float32]]:
    """The encoder's parameters by llama.cpp's names, (out, in) as here; no head."""
    embeddings = model.embeddings
    assert embeddings.position is not None
    found: dict[str, Tensor | None] = {
        "token_embd.weight": embeddings.word.weight[: model.config.vocab_size],
        "position_embd.weight": embeddings.position.weight[:max_length],
        "token_embd_norm.weight": embeddings.norm.weight,
        "token_embd_norm.bias": embeddings.norm.bias,
    }
    if embeddings.token_type is not None:
        found["token_types.weight"] = embeddings.token_type.weight
    for number, layer in enumerate(model.encoder.layers):
        attention: Any = layer.attention
        feed_forward: Any = layer.feed_forward
        modules: dict[str, Any] = {
            "attn_output": attention.out, "attn_output_norm": layer.attention_norm, "ffn_up": feed_forward.up,
            "ffn_down": feed_forward.down, "layer_output_norm": layer.feed_forward_norm,
        }  # fmt: skip
        each = {
            f"{name}.{kind}": getattr(module, kind) for name, module in modules.items() for kind in ("weight", "bias")
        }
        for kind in ("weight", "bias"):
            parts = getattr(attention.qkv, kind).chunk(3)
            each |= {f"attn_{letter}.{kind}": part for letter, part in zip("qkv", parts, strict=True)}
        found |= {f"blk.{number}.{name}": value for name, value in each.items()}
    return {
        name: value.detach().float().cpu().contiguous().numpy() for name, value in found.items() if value is not None
    }
