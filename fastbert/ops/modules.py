"""Ops on the weights of nn.Modules: read past a module's own call only where it is stock, else the module is called."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from fastbert import ops

# as PyTorch wrote them; other packages replace them for all modules of a class
_FORWARDS = {kind: kind.forward for kind in (nn.Linear, nn.LayerNorm, nn.Embedding)}

_WITH_OPTIONS = (nn.LayerNorm, nn.Embedding)


def _has_usual_options(module: Any) -> bool:
    """Whether a LayerNorm or an Embedding has no option that the ops lack."""
    if type(module) is nn.LayerNorm:
        return module._parameters["weight"] is not None and len(module.normalized_shape) == 1
    return (
        module.padding_idx is None and module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    )


def all_stock(*pairs: tuple[Any, type[nn.Module]]) -> bool:
    """Whether every (module, class) is exactly of the class, without hooks or a patched forward, those of all modules
    included: its weights say all that it does.

    LoRA, quantisation, pruning, offloading and parametrizations replace the class, the forward or add hooks.
    """
    if torch_module._has_any_global_hook():
        return False
    for module, kind in pairs:
        values = module.__dict__
        if (
            type(module) is not kind
            or "forward" in values
            or values["_forward_hooks"]
            or values["_forward_pre_hooks"]
            or values["_backward_hooks"]
            or values["_backward_pre_hooks"]
            or _FORWARDS.get(kind, kind.forward) is not kind.forward
            or (kind in _WITH_OPTIONS and not _has_usual_options(module))
        ):
            return False
    return True


def add_norm(
    norm: Any, x: Tensor, residual: Tensor | None, *, dropout_p: float = 0.0, return_sum: bool = False, impl: str
):
    """``norm(residual + dropout(x))``; with ``return_sum`` also the sum."""
    if all_stock((norm, nn.LayerNorm)):
        return ops.add_layer_norm(
            x, residual, norm.weight, norm.bias, norm.eps, dropout_p=dropout_p, return_sum=return_sum, impl=impl
        )
    total = F.dropout(x, dropout_p) if dropout_p else x
    total = total if residual is None else residual + total
    return (norm(total), total) if return_sum else norm(total)


def project_and_activate(linear: Any, x: Tensor, approximate: str, *, gated: bool = False, impl: str) -> Tensor:
    """GELU, or GeGLU, of ``linear(x)``; the kernel adds a stock Linear's bias and sums its gradient."""
    activation = ops.geglu if gated else ops.bias_gelu
    if all_stock((linear, nn.Linear)) and linear.bias is not None:
        up = F.linear(x, linear.weight)
        return activation(up, linear.bias.to(up.dtype), approximate, impl=impl)
    return activation(linear(x), None, approximate, impl=impl)


def fused_layer(
    layer: Any,
    hidden: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    rotary: tuple[Tensor, Tensor] | None = None,
    rows: Tensor | None = None,
    unique_index: Tensor | None = None,
) -> Tensor | None:
    """A ``layers.EncoderLayer`` as two kernels, one for each half; None where that would not be the same."""
    attention, feed_forward = layer.attention, layer.feed_forward
    qkv, out, up, down = attention.qkv, attention.out, feed_forward.up, feed_forward.down
    first, second = layer.attention_norm, layer.feed_forward_norm
    linears = (qkv, nn.Linear), (out, nn.Linear), (up, nn.Linear), (down, nn.Linear)
    norms = (second if first is None else first, nn.LayerNorm), (second, nn.LayerNorm)
    if not all_stock(*layer._parts(), *linears, *norms):
        return None
    if ops.choose("bias_gelu", layer.impl, {"x": hidden})[0] != "cpp":  # triton, requested by name, has no such op
        return None
    weights = {"x": hidden, "qkv_weight": qkv.weight, "up_weight": up.weight}
    if ops.choose("self_attention", layer.impl, weights, num_heads=attention.num_heads)[0] != "cpp":
        return None
    norm = "pre" if layer.pre else "post"
    dropout_p = layer.dropout_p if layer.training else 0.0
    hidden = ops.self_attention(
        hidden, None if first is None else first.weight, None if first is None else first.bias,
        qkv.weight, qkv.bias, out.weight, out.bias, cu_seqlens, max_seqlen,
        num_heads=attention.num_heads, window=attention.window, rotary=rotary, rows=rows, unique_index=unique_index,
        norm=norm, eps=(second if first is None else first).eps, dropout_p=dropout_p,
        attention_dropout_p=attention.dropout_p if attention.training else 0.0, impl=layer.impl,
    )  # fmt: skip
    return ops.feed_forward(
        hidden, second.weight, second.bias, up.weight, up.bias, down.weight, down.bias, norm=norm,
        mlp="geglu" if feed_forward.glu else "gelu", eps=second.eps, approximate=feed_forward.approximate,
        dropout_p=dropout_p, impl=layer.impl,
    )  # fmt: skip
