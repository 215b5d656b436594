"""A layer's two halves on a CUDA device, past the ops: one choice of an implementation and two autograd functions.

torch.compile, torch.export and layers with hooks or replaced parts take the ops one by one.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fastbert.ops import checks
from fastbert.ops.choose import choose, requested_impl
from fastbert.ops.modules import all_stock

_verdicts: dict[tuple, bool] = {}  # whether Triton runs each op of a layer of this kind


def layer_halves(
    layer: Any, hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor, max_seqlen: int,
    rotary: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """A ``layers.EncoderLayer`` of packed ``hidden + fed`` (T, D) on CUDA; None where that would differ.

    Returns:
        the residual stream and what is to be added to it, as ``EncoderLayer._pre_norm``; or the output of a layer with
        its norms after, twice.
    """
    if torch.compiler.is_compiling() or not _plain(hidden, fed, rotary):
        return None
    inside = layer._modules  # a dictionary: an attribute of a module is looked up in Python
    attention, feed_forward = inside["attention"], inside["feed_forward"]
    first, second = inside.get("attention_norm"), inside["feed_forward_norm"]  # no module where it is None
    parts = *map(attention._modules.get, ("qkv", "out")), *map(feed_forward._modules.get, ("up", "down"))
    norms = (second if first is None else first, nn.LayerNorm), (second, nn.LayerNorm)
    if not all_stock(*layer._parts(), *((part, nn.Linear) for part in parts), *norms):
        return None
    if first is None and (fed is not None or not layer.pre):
        return None
    into, out_of, up, down, scale = map(_parameters, (*parts, second))
    # quantised and sharded weights are Linears' too
    if not all(type(x) in checks.PLAIN for pair in (into, out_of, up, down, scale) for x in pair if x is not None):
        return None
    if not _runs_on_triton(layer, hidden, fed, rotary, into, up, scale):
        return None
    checks.check_cu_seqlens(cu_seqlens, max_seqlen, hidden.shape[0])
    from fastbert.kernels import halves

    before = None if first is None else (*_parameters(first), first.eps)
    after = *scale, second.eps
    dropout_p = layer.dropout_p if layer.training else 0.0
    x, residual = (hidden, None) if fed is None else (fed, hidden)
    attended, summed = halves.attend(
        x, residual, before if layer.pre else None, into, out_of, cu_seqlens, max_seqlen,
        num_heads=attention.num_heads, rotary=rotary, window=attention.window, dropout_p=dropout_p,
        attention_p=attention.dropout_p if attention.training else 0.0,
    )  # fmt: skip
    how: dict[str, Any] = {
        "dropout_p": dropout_p,
        "exact": feed_forward.approximate == "none",
        "gated": feed_forward.glu,
    }
    hidden = hidden if fed is None else summed
    if layer.pre:
        out, summed = halves.feed(attended, hidden, after, up, down, after=None, **how)
        return summed, out
    assert before is not None
    out, _ = halves.feed(attended, hidden, before, up, down, after=after, **how)
    return out, out


def _parameters(module: Any) -> tuple[Tensor, Tensor | None]:
    """The weight and the bias of a stock module."""
    found = module._parameters
    return found["weight"], found["bias"]


def _plain(hidden: Tensor, fed: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> bool:
    """Whether the tensors are what the launchers read without asking."""
    if type(hidden) not in checks.PLAIN or hidden.ndim != 2 or not hidden.is_contiguous() or checks.transform_reason():
        return False
    if fed is not None and (type(fed) not in checks.PLAIN or fed.shape != hidden.shape or not fed.is_contiguous()):
        return False
    if rotary is None:
        return True
    cos, sin = rotary
    return (
        type(cos) in checks.PLAIN
        and cos.shape == sin.shape
        and cos.shape[0] == hidden.shape[0]
        and cos.ndim == 2
        and not cos.requires_grad
        and not sin.requires_grad
    )


def _runs_on_triton(
    layer: Any, hidden: Tensor, fed: Tensor | None, rotary: tuple[Tensor, Tensor] | None, qkv: Any, up: Any, norm: Any
) -> bool:
    """Whether each op of the layer would choose Triton; asked once for tensors of one kind."""
    num_heads = layer._modules["attention"].num_heads
    product = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else hidden.dtype
    key = (
        requested_impl(), layer.impl, hidden.get_device(), hidden.dtype, hidden.shape[1], product,
        None if fed is None else fed.dtype, qkv[0].dtype, norm[0].dtype, up[0].shape[0], num_heads,
        None if rotary is None else (rotary[0].dtype, rotary[1].dtype, rotary[0].shape[1]),
    )  # fmt: skip
    found = _verdicts.get(key)
    if found is None:
        x = hidden.new_empty((1, hidden.shape[1]))
        q = x.new_empty((1, num_heads, hidden.shape[1] // num_heads), dtype=product)
        wide = x.new_empty((1, up[0].shape[0]), dtype=product)
        asked: list[tuple[str, dict[str, Tensor | None]]] = [
            ("add_layer_norm", {"x": x, "residual": x, "weight": norm[0], "bias": norm[1]}),
            ("attention", {"q": q, "k": q, "v": q}),
            ("geglu" if layer.feed_forward.glu else "bias_gelu", {"x": wide, "bias": up[1]}),
        ]
        if rotary is not None:
            asked.append(("rotary", {"x": q, "cos": rotary[0][:1], "sin": rotary[1][:1]}))
        found = all(_choice(op, layer.impl, tensors) == "triton" for op, tensors in asked)
        _verdicts[key] = found
    return found


def _choice(op: str, impl: str, tensors: dict[str, Tensor | None]) -> str:
    """The implementation; "" where one was named that cannot run, which the op itself will say."""
    try:
        return choose(op, impl, tensors)[0]
    except RuntimeError:
        return ""
