"""Weights under our names and under Hugging Face's: pure translation of names and shapes.

Old ``gamma``/``beta`` names, missing prefixes ("bert.", "model.") and the prefixes that wrappers leave ("module.",
"_orig_mod.") are understood. What a model does not use is named, or refused where it would change an answer.
"""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fastbert.config import BertConfig
from fastbert.reference import rotary_tables
from fastbert.system.errors import InputError
from fastbert.weights.names import DECODER, PREFIX, pairs, qkv_names

VOCABULARY_ROWS = ("embeddings.word.weight", "head.decoder.weight", "head.bias")
# what a bare encoder's names begin with
ROOTS = ("embeddings.", "embeddings_project.", "encoder.", "transformer.", "layers.", "final_norm.", "pooler.")
ANCHOR = re.compile(r"embeddings\.(word_embeddings|tok_embeddings)\.weight$")
# buffers, and modules whose output no head here reads
NOT_USED = re.compile(r"embeddings\.(position_ids|token_type_ids)|pooler\.|encoder\.embed_positions\.|.*\.inv_freq")
# heads of transformers' own classes: read with their task, or about another one
HEADS = (
    "cls.", "lm_head.", "generator_", "discriminator_predictions.", "vocab_", "decoder.", "head.", "classifier.",
    "qa_outputs.", "pre_classifier.", "logits_proj.", "sequence_summary.",
)  # fmt: skip
PARTS = {
    r"lora|base_layer": "LoRA weights. Try: merge them into the model (merge_and_unload() of peft) and save it again",
    r"adapter|ia3|prefix_encoder|prompt_encoder": "an adapter. Try: the model that it belongs to, without it",
    r"(^|\.)crf\.|transitions$": "a CRF layer. Try: a model without one, or the library that made it",
    r"absmax|quant_map|quant_state|\.SCB$|qweight|qzeros": "quantized weights. Try: the model before quantization",
}


def interleave(rows: Tensor, config: BertConfig, back: bool = False) -> Tensor:
    """Reorder the rows of a query or key projection between the two rotary conventions.

    We rotate rows i and i + H/2 of a head together, RoFormer rows 2i and 2i + 1.
    """
    half = config.head_dim // 2
    split = (half, 2) if back else (2, half)
    heads = rows.view(config.num_attention_heads, *split, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def first_position(config: BertConfig) -> int:
    """The row of RoBERTa's position table that the first token reads; elsewhere 0."""
    return config.pad_token_id + 1 if config.arch == "roberta" else 0


# ---- ours → Hugging Face ----
def state_dict_to_hf(state: Mapping[str, Tensor], config: BertConfig) -> dict[str, Tensor]:
    """Our weights under Hugging Face's names; a tied decoder is not repeated."""
    state = {name: t[: config.vocab_size] if name in VOCABULARY_ROWS else t for name, t in state.items()}
    out = {theirs: state[ours] for ours, theirs in pairs(config) if ours in state}
    decoder, biases = DECODER[config.arch]
    if "head.decoder.weight" in state:
        out[decoder] = state["head.decoder.weight"]
    if "head.bias" in state:
        out |= dict.fromkeys(biases if "head.decoder.weight" in state else biases[-1:], state["head.bias"])
    for ours, names in qkv_names(config):
        q, k, v = state[ours].chunk(3, 0)
        if config.arch == "roformer":
            q, k = interleave(q, config), interleave(k, config)
        out |= dict(zip(names, (q, k, v), strict=True))
    if config.arch == "roberta" and (position := f"{PREFIX[config.arch]}embeddings.position_embeddings.weight") in out:
        table = out[position]
        out[position] = torch.cat([table.new_zeros(first_position(config), table.shape[1]), table])
        if not config.type_vocab_size:
            name = position.replace("position_embeddings", "token_type_embeddings")
            out[name] = table.new_zeros(1, table.shape[1])
    # tensors that share memory cannot be written
    return {name: tensor.clone() if name in biases[:-1] else tensor for name, tensor in out.items()}


# ---- Hugging Face → ours ----
def state_dict_from_hf(hf: Mapping[str, Tensor], config: BertConfig, source: str = "the weights") -> dict[str, Tensor]:
    """Hugging Face's weights under our names, the vocabulary padded; names that are not there are left out.

    Raises:
        InputError: a part of the encoder that the configuration does not have, an adapter, quantized weights.
    """
    hf = canonical_names(hf, config, source)
    _check_sinusoids(hf, config)
    out, used = {}, set()
    for ours, theirs in pairs(config):
        if theirs in hf:
            out[ours] = hf[theirs]
            used.add(theirs)
    for ours, names in qkv_names(config):
        if all(name in hf for name in names):
            q, k, v = (hf[name] for name in names)
            if config.arch == "roformer":
                q, k = interleave(q, config, back=True), interleave(k, config, back=True)
            out[ours] = torch.cat([q, k, v])
            used.update(names)
    decoder, biases = DECODER[config.arch]
    if not config.tie_word_embeddings and decoder in hf:
        out["head.decoder.weight"] = hf[decoder]
    bias = next((hf[name] for name in biases if name in hf), None)
    if bias is not None:
        out["head.bias"] = bias
    elif config.arch == "modern" and "head.dense.weight" in out:
        out["head.bias"] = torch.zeros(config.vocab_size)  # decoder_bias=false
    _check_unused(set(hf) - used, config, source)
    if config.arch == "roberta":
        _fold_roberta(out, hf, config)
    for ours in VOCABULARY_ROWS:
        if ours in out:
            out[ours] = _padded(ours, out[ours], config, source)
    if bad := [name for name, tensor in out.items() if not tensor.is_floating_point() or tensor.element_size() < 2]:
        raise InputError(f"{source}: {bad[0]} is {out[bad[0]].dtype}, quantized. Try: the model before quantization")
    return {name: tensor.float() for name, tensor in out.items()}


def is_untied(hf: Mapping[str, Tensor], config: BertConfig, source: str = "the weights") -> bool:
    """Whether the decoder is not the word embedding, whatever the configuration says, as transformers decides it."""
    hf = canonical_names(hf, config, source)
    decoder, words = hf.get(DECODER[config.arch][0]), hf.get(dict(pairs(config))["embeddings.word.weight"])
    return decoder is not None and words is not None and not (decoder is words or torch.equal(decoder, words))


def canonical_names(hf: Mapping[str, Tensor], config: BertConfig, source: str) -> dict[str, Tensor]:
    """The names of the stock class with all heads: old spellings, a missing prefix and wrappers' prefixes mended.

    The word embedding tells what stands before the encoder's names.

    Raises:
        InputError: two encoders.
    """
    hf = {_modern_spelling(name): tensor for name, tensor in hf.items()}
    prefix = PREFIX[config.arch]
    found = sorted({ANCHOR.sub("", name) for name in hf if ANCHOR.search(name)}, key=len)
    if len(found) > 1:
        raise InputError(
            f"{source}: holds {len(found)} encoders, under {', '.join(repr(each) for each in found[:4])}. "
            "Try: save the one you need by itself"
        )
    if not found or found[0] == prefix:
        return hf
    before = found[0]
    wrapper = before.removesuffix(prefix) if before.endswith(prefix) else before
    out = {}
    for name, tensor in hf.items():
        if name.startswith(before) and (before or name.startswith(ROOTS)):
            out[prefix + name[len(before) :]] = tensor
        else:
            out[name.removeprefix(wrapper)] = tensor
    return out


def _modern_spelling(name: str) -> str:
    """TensorFlow's gamma and beta, in checkpoints from before 2019, are weight and bias."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _check_unused(names: Iterable[str], config: BertConfig, source: str) -> None:
    """Refuse tensors that would change an answer, and name the others.

    Raises:
        InputError: as :func:`state_dict_from_hf`.
    """
    prefix = PREFIX[config.arch]
    unknown = []
    for name in sorted(names):
        for pattern, what in PARTS.items():
            if re.search(pattern, name):
                raise InputError(f"{source}: {name} belongs to {what}")
        if name.startswith(prefix):
            inner = name[len(prefix) :]
            if NOT_USED.match(inner):
                continue
            layer = re.match(r"(?:encoder\.layer|transformer\.layer|layers)\.(\d+)\.", inner)
            if layer and int(layer[1]) >= config.num_hidden_layers:
                raise InputError(
                    f"{source}: {name} is beyond the {config.num_hidden_layers} layers of config.json "
                    f"(num_hidden_layers). Try: set the number of layers that the model was trained with"
                )
            raise InputError(
                f"{source}: {name} belongs to no part of a {config.family if config.bias else 'modernbert'} encoder. "
                "Try: the config.json of this model, or the library that made it"
            )
        if not name.startswith(HEADS):
            unknown.append(name)
    if unknown:
        rest = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        warnings.warn(f"{source}: not used: {', '.join(unknown[:3])}{rest}", stacklevel=2)


def _fold_roberta(out: dict[str, Tensor], hf: Mapping[str, Tensor], config: BertConfig) -> None:
    """RoBERTa's positions start behind that of the padding, and its single token type is added to every one."""
    name = "embeddings.position.weight"
    if name not in out or out[name].ndim != 2:
        return
    out[name] = out[name][first_position(config) :]
    types = out.get("embeddings.token_type.weight")
    if types is not None and not config.type_vocab_size:
        if types.shape == (1, out[name].shape[1]):
            out[name] = out[name].float() + types.float()
        del out["embeddings.token_type.weight"]


def _padded(name: str, tensor: Tensor, config: BertConfig, source: str) -> Tensor:
    """A table of the vocabulary with rows of zeros up to the padded size."""
    if not tensor.ndim or len(tensor) != config.vocab_size:
        raise InputError(
            f"{source}: {name} has shape {tuple(tensor.shape)} and config.json {config.vocab_size:,} pieces "
            "(vocab_size): config and weights do not belong together. Try: copy both again from their source"
        )
    missing = config.padded_vocab_size - len(tensor)
    return torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]) if missing else tensor


def _check_sinusoids(hf: Mapping[str, Tensor], config: BertConfig) -> None:
    """RoFormer's rotation angles stand among its weights, and transformers lets them be trained: ours are fixed."""
    name = "roformer.encoder.embed_positions.weight"
    if name not in hf:
        return
    positions = torch.arange(hf[name].shape[0])
    cos, sin = rotary_tables(positions, config.head_dim, config.rope_theta, torch.float32)
    if not torch.allclose(hf[name].float(), torch.cat((sin, cos), -1), atol=1e-2):
        raise InputError(
            f"{name} is not the table of sines and cosines: a RoFormer with trained angles is not supported"
        )
