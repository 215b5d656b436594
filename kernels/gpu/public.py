"""The Triton implementation of every op, under its name in ``fastbert.ops``. Importing this imports triton."""

from fastbert.kernels.attention.op import attention
from fastbert.kernels.attention.qkv import qkv_attention
from fastbert.kernels.embed import embed_layer_norm
from fastbert.kernels.feed_forward import feed_forward
from fastbert.kernels.gelu import bias_gelu, geglu
from fastbert.kernels.loss import masked_lm_loss
from fastbert.kernels.norm import add_layer_norm
from fastbert.kernels.rotary import rotary

__all__ = [
    "add_layer_norm",
    "attention",
    "bias_gelu",
    "embed_layer_norm",
    "feed_forward",
    "geglu",
    "masked_lm_loss",
    "qkv_attention",
    "rotary",
]
