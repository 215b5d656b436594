"""The Triton implementation of every op, under its name in ``fastbert.ops``. Importing this imports triton."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastbert.kernels import dispatch
from fastbert.kernels import embed as _embed
from fastbert.kernels import feed_forward as _feed_forward
from fastbert.kernels import gelu as _gelu
from fastbert.kernels import loss as _loss
from fastbert.kernels import norm as _norm
from fastbert.kernels import rotary as _rotary
from fastbert.kernels.attention import op as _attention
from fastbert.kernels.attention import qkv as _qkv

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


def _interpretable(op: Callable[..., Any], *names: int) -> Callable[..., Any]:
    """The op; where Triton's interpreter computes bfloat16 wrongly, on float32 copies and rounded at the end.

    ``names``: the arguments whose wider dtype the result has; none: it is float32.
    """

    @functools.wraps(op)
    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dtype == torch.bfloat16]
        if not tensors or tensors[0].is_cuda or torch.bfloat16 in dispatch.INTERPRETED_DTYPES:
            return op(*args, **kwargs)

        def widened(x: Any) -> Any:
            return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x

        out = op(*map(widened, args), **{name: widened(x) for name, x in kwargs.items()})
        dtypes = [args[i].dtype for i in names if isinstance(args[i], Tensor)]
        if not dtypes:
            return out
        dtype = functools.reduce(torch.promote_types, dtypes)
        return tuple(x.to(dtype) for x in out) if isinstance(out, tuple) else out.to(dtype)

    return run


attention = _interpretable(_attention.attention, 0)
qkv_attention = _interpretable(_qkv.qkv_attention, 0)
rotary = _interpretable(_rotary.rotary, 0)
add_layer_norm = _interpretable(_norm.add_layer_norm, 0, 1)
bias_gelu = _interpretable(_gelu.bias_gelu, 0)
geglu = _interpretable(_gelu.geglu, 0)
feed_forward = _interpretable(_feed_forward.feed_forward, 0)
embed_layer_norm = _interpretable(_embed.embed_layer_norm, 3)
masked_lm_loss = _interpretable(_loss.masked_lm_loss)
