"""An encoder layer on a CUDA device, past the ops: one choice of an implementation and one autograd function.

torch.compile, torch.export and layers with hooks or replaced parts take the ops one by one.
"""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastbert.ops import checks
from fastbert.ops.choose import choose, requested_impl
from fastbert.ops.modules import all_stock

_ALIGNMENT = 15  # kernels are compiled for addresses that are multiples of 16, as the allocator gives them
_MOST_KINDS = 256  # packed batches have another number of tokens every time
_kinds: dict[tuple, Any] = {}  # the launches of calls of one kind; None: an op of the layer would not choose Triton
Weights = list[Tensor | None]  # by their places in kernels.layer


class LayerPass:
    """What the layers of one forward pass share.

    Args:
        layers: their weights are cast to the products' dtype in one launch.

    Attributes:
        last: the output of a layer with its norms after, and the same in the products' dtype.
    """

    def __init__(self, layers: Iterable[Any]):
        self._layers = layers
        self._cast: dict[int, list[Tensor | None]] | None = None
        self.last: tuple[Tensor, Tensor] | None = None

    def cast(self, layer: Any, dtype: torch.dtype) -> list[Tensor | None] | None:
        """Of the weights that the layer's products read; None: it has to do that itself."""
        if self._cast is None:
            self._cast = self._cast_all(dtype)
        return self._cast.get(id(layer))

    @torch.no_grad()
    def _cast_all(self, dtype: torch.dtype) -> dict[int, list[Tensor | None]]:
        found, wide, narrow = {}, [], []
        for layer in self._layers:
            if (weights := _weights(layer)) is None:
                continue
            found[id(layer)] = cast = list(_kernel().IN_PRODUCTS(weights))
            for place, weight in enumerate(cast):
                if weight is not None and weight.dtype != dtype:
                    cast[place] = made = torch.empty_like(weight, dtype=dtype)
                    wide.append(weight)
                    narrow.append(made)
        if wide:
            torch._foreach_copy_(narrow, wide)
        return found


def encoder_layer(
    layer: Any, hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor, max_seqlen: int,
    rotary: tuple[Tensor, Tensor] | None, shared: LayerPass | None,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """A ``layers.EncoderLayer`` of packed ``hidden + fed`` (T, D) on CUDA; None where that would differ.

    Returns:
        the residual stream and what is to be added to it, as ``EncoderLayer._pre_norm``; or the output of a layer with
        its norms after, twice.
    """
    if torch.compiler.is_compiling() or not _plain(hidden, fed, cu_seqlens, rotary):
        return None
    weights = _weights(layer)
    if weights is None or (fed is not None and weights[0] is None):
        return None
    launches = _launches(layer, hidden, fed, cu_seqlens, max_seqlen, rotary, weights)
    if launches is None:
        return None
    kernel, cast, narrow = _kernel(), None, None
    if not launches.casts:
        cast = kernel.IN_PRODUCTS(weights)
    elif shared is not None:
        cast = shared.cast(layer, launches.kind.product)
        if shared.last is not None and shared.last[0] is hidden:
            narrow = shared.last[1]
    cos, sin = rotary or (None, None)
    x, residual = (hidden, None) if fed is None else (fed, hidden)
    rest = cast, narrow, cos, sin, cu_seqlens, *launches.draw_seeds()
    out, stream, again = kernel.encoder_layer(launches, rest, x, residual, weights)
    if stream is not None:
        return stream, out
    if shared is not None:
        shared.last = out, again
    return out, out


@functools.cache
def _kernel() -> Any:
    """The module of the layer's autograd function, which imports Triton."""
    from fastbert.kernels import layer

    return layer


def _weights(layer: Any) -> Weights | None:
    """A layer's parameters by their places; None where a module or a parameter is not as it was made."""
    inside = layer._modules  # a dictionary: an attribute of a module is looked up in Python
    attention, feed_forward = inside["attention"]._modules, inside["feed_forward"]._modules
    first, second = inside.get("attention_norm"), inside["feed_forward_norm"]  # no module where it is None
    qkv, out, up, down = attention["qkv"], attention["out"], feed_forward["up"], feed_forward["down"]
    linears = (qkv, nn.Linear), (out, nn.Linear), (up, nn.Linear), (down, nn.Linear)
    norms = (second if first is None else first, nn.LayerNorm), (second, nn.LayerNorm)
    if not all_stock(*layer._parts(), *linears, *norms) or (first is None and not layer.pre):
        return None
    middle, last = (second, None) if layer.pre else (first, second)
    weights: Weights = []
    for part in (first if layer.pre else None, qkv, out, middle, up, down, last):
        if part is None:
            weights += None, None
        else:
            parameters = part._parameters
            weights += parameters["weight"], parameters["bias"]
    for x in weights:  # quantised and sharded weights are a Linear's too
        if x is not None and (type(x) not in checks.PLAIN or not x.is_contiguous() or x.data_ptr() & _ALIGNMENT):
            return None
    return weights


def _plain(hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor, rotary: tuple[Tensor, Tensor] | None) -> bool:
    """Whether the tensors are what the launchers read without asking."""
    if checks.transform_reason() or hidden.ndim != 2 or not hidden.shape[0] or cu_seqlens.device != hidden.device:
        return False
    if fed is not None and fed.shape != hidden.shape:
        return False
    for x in (hidden, fed, *(rotary or ())):
        if x is not None and (
            type(x) not in checks.PLAIN or not x.is_cuda or not x.is_contiguous() or x.data_ptr() & _ALIGNMENT
        ):
            return False
    if rotary is None:
        return True
    cos, sin = rotary
    tables = hidden.shape[0], cos.shape[-1]
    return cos.shape == tables == sin.shape and not cos.requires_grad and not sin.requires_grad


def _launches(
    layer: Any, hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor, max_seqlen: int,
    rotary: tuple[Tensor, Tensor] | None, weights: Weights,
) -> Any:  # fmt: skip
    """The prepared launches of this kind of call; None where an op of the layer would not choose Triton."""
    inside = layer._modules
    attention, feed_forward = inside["attention"], inside["feed_forward"]
    first = inside.get("attention_norm")
    how = (
        attention.num_heads, attention.window, attention.dropout_p if attention.training else 0.0,
        layer.dropout_p if layer.training else 0.0, feed_forward.glu, feed_forward.approximate, layer.pre,
        0.0 if first is None else first.eps, inside["feed_forward_norm"].eps,
    )  # fmt: skip
    product = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else hidden.dtype
    key = (
        hidden.device, hidden.shape, hidden.dtype, None if fed is None else fed.dtype, product, max_seqlen,
        cu_seqlens.shape, cu_seqlens.dtype, cu_seqlens.data_ptr() & _ALIGNMENT,
        None if rotary is None else (rotary[0].shape, rotary[0].dtype, rotary[1].dtype), how,
        tuple([None if x is None else (x.dtype, x.shape, x.device) for x in weights]),
        requested_impl(), layer.impl, _conditions(product),
    )  # fmt: skip
    try:
        return _kinds[key]
    except KeyError:
        checks.check_cu_seqlens(cu_seqlens, max_seqlen, hidden.shape[0])
        if len(_kinds) >= _MOST_KINDS:
            _kinds.clear()
        chosen = _runs_on_triton(layer, hidden, fed, rotary, weights, product)
        _kinds[key] = _new_launches(hidden, fed, cu_seqlens, max_seqlen, how, product, weights) if chosen else None
        return _kinds[key]


def _conditions(product: torch.dtype) -> tuple:
    """What else decides how kernels are launched: tiles that are tried or tuned, and how float32 is multiplied."""
    precision = torch.backends.cuda.matmul.fp32_precision if product == torch.float32 else None
    return precision, _configs().generation


@functools.cache
def _configs() -> Any:
    from fastbert.kernels import configs

    return configs


def _new_launches(
    hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor, max_seqlen: int, how: tuple, product: torch.dtype,
    weights: Weights,
) -> Any:  # fmt: skip
    from fastbert.kernels.layer_launches import Kind, LayerLaunches

    num_heads, window, attention_p, dropout_p, gated, approximate, pre, first_eps, second_eps = how
    up = weights[8]
    assert up is not None
    return LayerLaunches(
        Kind(
            device=hidden.device, num_tokens=hidden.shape[0], width=hidden.shape[1], intermediate=up.shape[0],
            num_heads=num_heads, max_seqlen=max_seqlen, window=window, pre=pre,
            x=(hidden if fed is None else fed).dtype, residual=None if fed is None else hidden.dtype, product=product,
            parameters=[None if x is None else x.dtype for x in weights],
            eps=(first_eps, second_eps, 0.0) if pre else (0.0, first_eps, second_eps),
            dropout_p=dropout_p, attention_p=attention_p, exact=approximate == "none", gated=gated,
        )
    )  # fmt: skip


def _runs_on_triton(
    layer: Any, hidden: Tensor, fed: Tensor | None, rotary: tuple[Tensor, Tensor] | None, weights: Weights,
    product: torch.dtype,
) -> bool:  # fmt: skip
    """Whether each op of the layer would choose Triton."""
    width, num_heads = hidden.shape[1], layer.attention.num_heads
    up, up_bias = weights[8:10]
    assert up is not None
    if any(x is not None and x.device != hidden.device for x in weights):
        return False
    x = hidden.new_empty((1, width))
    q = x.new_empty((1, num_heads, width // num_heads), dtype=product)
    asked: list[tuple[str, dict[str, Tensor | None]]] = [
        ("attention", {"q": q, "k": q, "v": q}),
        ("geglu" if layer.feed_forward.glu else "bias_gelu", {"x": q.new_empty((1, up.shape[0])), "bias": up_bias}),
    ]
    for place in (0, 6, 12):  # the norms
        if (weight := weights[place]) is not None:
            added = None if fed is None else fed[:1]
            asked.append(("add_layer_norm", {"x": x, "residual": added, "weight": weight, "bias": weights[place + 1]}))
    if rotary is not None:
        asked.append(("rotary", {"x": q, "cos": rotary[0][:1], "sin": rotary[1][:1]}))
    return all(_choice(op, layer.impl, tensors) == "triton" for op, tensors in asked)


def _choice(op: str, impl: str, tensors: dict[str, Tensor | None]) -> str:
    """The implementation; "" where one was named that cannot run, which the op itself will say."""
    try:
        return choose(op, impl, tensors)[0]
    except RuntimeError:
        return ""
