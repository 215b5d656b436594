"""Weights from and to PyTorch's own nn.MultiheadAttention and nn.TransformerEncoderLayer, with equal results.

Both sides keep queries, keys and values in one matrix in the same order, so conversion copies and computes nothing.
``layers.MultiHeadAttention`` and ``layers.EncoderLayer`` are batch-first and take a mask that is non-zero at real
tokens, where PyTorch's ``key_padding_mask`` is True at padding. Their ``from_torch`` and ``to_torch`` call this module,
which stands below them and is given their classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastbert.config import BertConfig
from fastbert.system.errors import InputError

_TRANSFORMERS_GELUS = {
    "GELUActivation": "none",
    "NewGELUActivation": "tanh",
    "PytorchGELUTanh": "tanh",
    "GELUTanh": "tanh",
}


def approximation_of(activation: Any) -> str | None:
    """ "none" (exact) or "tanh" for a GELU that the kernels compute; None for any other activation."""
    if activation is F.gelu:
        return "none"
    if type(activation) is nn.GELU:
        return activation.approximate
    if type(activation).__module__ == "transformers.activations":
        return _TRANSFORMERS_GELUS.get(type(activation).__name__)
    return None


def name_of(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


def unsupported_attention(attention: nn.MultiheadAttention) -> str | None:
    """What this nn.MultiheadAttention does that plain self-attention does not, or None."""
    if type(attention) is not nn.MultiheadAttention:
        return f"attention is a {type(attention).__name__}, not an nn.MultiheadAttention"
    if not attention._qkv_same_embed_dim:
        return "keys or values of a width of their own (kdim, vdim)"
    if attention.bias_k is not None or attention.bias_v is not None:
        return "add_bias_kv"
    if attention.add_zero_attn:
        return "add_zero_attn"
    return None


def _copy(pairs: list[tuple[Any, Any]]) -> None:
    with torch.no_grad():
        for target, source in pairs:
            if target is not None:
                target.copy_(source)


def _pairs(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    return [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]


def _attention_pairs(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    projection = [(ours.qkv.weight, theirs.in_proj_weight), (ours.qkv.bias, theirs.in_proj_bias)]
    return [*projection, *_pairs(ours.out, theirs.out_proj)]


def _layer_pairs(ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
    return [
        *_attention_pairs(ours.attention, theirs.self_attn),
        *_pairs(ours.attention_norm, theirs.norm1),
        *_pairs(ours.feed_forward.up, theirs.linear1),
        *_pairs(ours.feed_forward.down, theirs.linear2),
        *_pairs(ours.feed_forward_norm, theirs.norm2),
    ]


def attention_from_torch(kind: Any, theirs: nn.MultiheadAttention, impl: str) -> Any:
    """A ``layers.MultiHeadAttention`` (``kind``) with the weights of an nn.MultiheadAttention, as self-attention.

    Raises:
        InputError: an option that self-attention here does not have (kdim, vdim, add_bias_kv, add_zero_attn).
    """
    if why := unsupported_attention(theirs):
        raise InputError(f"from_torch: {why}: layers.MultiHeadAttention is plain self-attention")
    ours = kind(
        theirs.embed_dim, theirs.num_heads, bias=theirs.in_proj_bias is not None, dropout_p=theirs.dropout, impl=impl
    ).to(theirs.in_proj_weight)
    _copy(_attention_pairs(ours, theirs))
    return ours.train(theirs.training)


def attention_to_torch(ours: Any, batch_first: bool) -> nn.MultiheadAttention:
    """The nn.MultiheadAttention with our weights.

    Raises:
        InputError: a sliding window, which nn.MultiheadAttention takes as a mask in each call.
    """
    if ours.window is not None:
        raise InputError(
            f"to_torch: window={ours.window}: give nn.MultiheadAttention an attn_mask in each call instead"
        )
    theirs = nn.MultiheadAttention(
        ours.num_heads * ours.head_dim, ours.num_heads, dropout=ours.dropout_p, bias=ours.qkv.bias is not None,
        batch_first=batch_first,
    ).to(ours.qkv.weight)  # fmt: skip
    _copy([(target, source) for source, target in _attention_pairs(ours, theirs)])
    return theirs.train(ours.training)


def layer_from_torch(kind: Any, theirs: nn.TransformerEncoderLayer, impl: str) -> Any:
    """A ``layers.EncoderLayer`` (``kind``) with the weights of an nn.TransformerEncoderLayer, either norm order.

    PyTorch's layer has one more dropout, inside its feed-forward network: in training with dropout the two are
    different regularisers, otherwise the same function.

    Raises:
        InputError: an activation other than GELU, two dropouts or two LayerNorm eps in one layer, or attention options
            that :func:`unsupported_attention` names.
    """
    form = approximation_of(theirs.activation)
    if form is None:
        raise InputError(
            f"from_torch: activation {name_of(theirs.activation)}: the layer here computes GELU and the results would "
            "differ. Try: a model built with activation='gelu'"
        )
    for name, (first, second) in {
        "norm1.eps, norm2.eps": (theirs.norm1.eps, theirs.norm2.eps),
        "dropout1.p, dropout2.p": (theirs.dropout1.p, theirs.dropout2.p),
    }.items():
        if first != second:
            raise InputError(f"from_torch: {name} are {first}, {second}: the layer here has one value for both")
    config = BertConfig(
        hidden_size=theirs.linear1.in_features,
        num_attention_heads=theirs.self_attn.num_heads,
        intermediate_size=theirs.linear1.out_features,
        hidden_dropout_prob=theirs.dropout1.p,
        layer_norm_eps=theirs.norm1.eps,
        norm="pre" if theirs.norm_first else "post",
        gelu_approximate="tanh" if form == "tanh" else "none",
    )
    ours = kind(config, 1, impl)  # layer 0 of a pre-norm encoder has no first LayerNorm, PyTorch's always has
    width, inner, bias = config.hidden_size, config.intermediate_size, theirs.linear1.bias is not None
    ours.attention = attention_from_torch(type(ours.attention), theirs.self_attn, impl)
    ours.feed_forward = type(ours.feed_forward)(width, inner, bias=bias, approximate=form, impl=impl)
    ours.attention_norm, ours.feed_forward_norm = (
        nn.LayerNorm(width, eps=norm.eps, bias=norm.bias is not None) for norm in (theirs.norm1, theirs.norm2)
    )
    ours.to(theirs.linear1.weight)
    _copy(_layer_pairs(ours, theirs))
    return ours.train(theirs.training)


def layer_to_torch(ours: Any, batch_first: bool) -> nn.TransformerEncoderLayer:
    """The nn.TransformerEncoderLayer with our weights.

    Raises:
        InputError: GeGLU, a sliding window, or a pre-norm first layer, which PyTorch's layer cannot be.
    """
    feed_forward = ours.feed_forward
    if feed_forward.glu:
        raise InputError("to_torch: mlp='geglu': nn.TransformerEncoderLayer has no gated feed-forward network")
    if ours.attention.window is not None:
        raise InputError(
            f"to_torch: window={ours.attention.window}: give nn.TransformerEncoderLayer a src_mask instead"
        )
    if ours.attention_norm is None:
        raise InputError(
            "to_torch: layer 0 of a pre-norm encoder has no first LayerNorm and PyTorch's layer always has"
        )
    inner, width = feed_forward.up.weight.shape
    theirs = nn.TransformerEncoderLayer(
        width, ours.attention.num_heads, inner, ours.dropout_p, layer_norm_eps=ours.feed_forward_norm.eps,
        activation="gelu" if feed_forward.approximate == "none" else nn.GELU(feed_forward.approximate),
        batch_first=batch_first, norm_first=ours.pre, bias=feed_forward.up.bias is not None,
    ).to(feed_forward.up.weight)  # fmt: skip
    theirs.self_attn.dropout = ours.attention.dropout_p
    theirs.dropout.p = 0.0  # the one inside the feed-forward network, which ours has not
    _copy([(target, source) for source, target in _layer_pairs(ours, theirs)])
    return theirs.train(ours.training)
