"""The encoder layers of a forward pass on a CUDA device, past the ops: one autograd function for each.

torch.compile, torch.export and layers with hooks or replaced parts take the ops one by one.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastbert.kernels import dispatch as triton_dispatch
from fastbert.ops import checks
from fastbert.ops.choose import choose, requested_impl
from fastbert.ops.modules import all_stock

_ALIGNMENT = 15  # kernels are compiled for addresses that are multiples of 16, as the allocator gives them
_MOST_KINDS = 256  # packed batches have another number of tokens every time
# what all layers of a pass have in common → what decides in one layer → its launches; None: not all ops by Triton
_kinds: dict[tuple, dict[tuple, Any]] = {}
_READ_BY_KERNELS = (0, 1, 6, 7, 9, 12, 13)  # the norms' parameters and the first feed-forward bias, by their places
Rotary = tuple[Tensor, Tensor] | None


class _Parts(NamedTuple):
    """A layer's parameters by their places in kernels.layer, and what of them and of its options decides launches."""

    weights: list[Tensor | None]
    decides: tuple


class LayerPass:
    """A forward pass of packed tokens through layers on a CUDA device; asks once what holds for all of them.

    Args:
        layers: ``layers.EncoderLayer``s; where products are in another dtype, their weights are cast in one launch.
        like: (T, D), as what the first layer gets.
    """

    def __init__(self, layers: Iterable[Any], like: Tensor, cu_seqlens: Tensor, max_seqlen: int):
        self._layers, self._cu_seqlens, self._max_seqlen = layers, cu_seqlens, max_seqlen
        self._shape, self._device = like.shape, like.get_device()
        self._product = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else like.dtype
        self._parts: dict[int, _Parts | None] = {}
        self._cast: dict[int, list[Tensor | None]] | None = None
        self._tables: tuple[Rotary, tuple | None] = None, ()  # the last layer's, and what of them decides
        self._last: tuple[Any, Tensor | None] = None, None  # an output of norms after, and the same for products
        self._kinds = self._known() if _has_kernels(like, cu_seqlens) else None

    def run(self, layer: Any, hidden: Tensor, fed: Tensor | None, rotary: Rotary) -> tuple[Tensor, Tensor] | None:
        """A layer of ``hidden + fed``, each (T, D); None where its kernels would do anything else than the layer.

        Returns:
            the residual stream and what is to be added to it, as ``EncoderLayer._pre_norm``; or the output of a layer
            with its norms after, twice.
        """
        if self._kinds is None or not self._takes(hidden) or (fed is not None and not self._takes(fed)):
            return None
        if (parts := self._parts_of(layer)) is None or (fed is not None and parts.weights[0] is None):
            return None
        if rotary is not self._tables[0]:
            self._tables = rotary, _decided_by_tables(rotary, self._shape)
        if (tables := self._tables[1]) is None:
            return None
        key = hidden.dtype, None if fed is None else fed.dtype, tables, parts.decides
        if (launches := self._kinds.get(key, self)) is self:
            launches = self._kinds[key] = self._new_launches(layer, hidden, fed, rotary, parts)
        return None if launches is None else self._launch(launches, layer, hidden, fed, rotary, parts)

    def _launch(self, launches, layer, hidden, fed, rotary, parts) -> tuple[Tensor, Tensor]:
        kernel, cast, narrow = _kernel(), None, None
        if not launches.casts:
            cast = kernel.IN_PRODUCTS(parts.weights)
        else:
            if self._cast is None:
                self._cast = self._cast_all()
            cast = self._cast.get(id(layer))  # None: it is none of the pass's layers, and casts by itself
            if self._last[0] is hidden:
                narrow = self._last[1]
        cos, sin = rotary or (None, None)
        x, residual = (hidden, None) if fed is None else (fed, hidden)
        rest = cast, narrow, cos, sin, self._cu_seqlens, *launches.draw_seeds()
        out, stream, again = kernel.encoder_layer(launches, rest, x, residual, parts.weights)
        if stream is not None:
            return stream, out
        self._last = out, again
        return out, out

    # ---- what is asked once a pass ----
    def _known(self) -> dict[tuple, Any]:
        cu_seqlens, product = self._cu_seqlens, self._product
        precision = torch.backends.cuda.matmul.fp32_precision if product == torch.float32 else None
        key = (
            self._device, self._shape, product, self._max_seqlen, cu_seqlens.shape, cu_seqlens.dtype,
            cu_seqlens.data_ptr() & _ALIGNMENT, requested_impl(), precision, _configs().generation,
        )  # fmt: skip
        if (known := _kinds.get(key)) is None:
            checks.check_cu_seqlens(cu_seqlens, self._max_seqlen, self._shape[0])
            if len(_kinds) >= _MOST_KINDS:
                _kinds.clear()
            known = _kinds[key] = {}
        return known

    def _takes(self, x: Tensor) -> bool:
        """Whether x is what the launchers read without asking."""
        return (
            type(x) in checks.PLAIN
            and x.get_device() == self._device
            and x.shape == self._shape
            and x.is_contiguous()
            and not x.data_ptr() & _ALIGNMENT
        )

    def _parts_of(self, layer: Any) -> _Parts | None:
        key = id(layer)
        if key not in self._parts:
            self._parts[key] = _parts(layer, self._shape[1], self._device)
        return self._parts[key]

    @torch.no_grad()
    def _cast_all(self) -> dict[int, list[Tensor | None]]:
        """Of each layer the weights that its products read, in their dtype."""
        found: dict[int, list[Tensor | None]] = {}
        wide, narrow = [], []
        for layer in self._layers:
            if (parts := self._parts_of(layer)) is None:
                continue
            found[id(layer)] = cast = list(_kernel().IN_PRODUCTS(parts.weights))
            for place, weight in enumerate(cast):
                if weight is not None and weight.dtype != self._product:
                    cast[place] = made = torch.empty_like(weight, dtype=self._product)
                    wide.append(weight)
                    narrow.append(made)
        if wide:
            torch._foreach_copy_(narrow, wide)
        return found

    def _new_launches(self, layer: Any, hidden: Tensor, fed: Tensor | None, rotary: Rotary, parts: _Parts) -> Any:
        weights, product = parts.weights, self._product
        if not _runs_on_triton(layer, hidden, fed, rotary, weights, product):
            return None
        from fastbert.kernels.layer_launches import Kind, LayerLaunches

        num_heads, window, attention_p, dropout_p, gated, approximate, pre, first_eps, second_eps, *_ = parts.decides
        up = weights[8]
        assert up is not None
        return LayerLaunches(
            Kind(
                device=hidden.device, num_tokens=self._shape[0], width=self._shape[1], intermediate=up.shape[0],
                num_heads=num_heads, max_seqlen=self._max_seqlen, window=window, pre=pre,
                x=(hidden if fed is None else fed).dtype, residual=None if fed is None else hidden.dtype,
                product=product, parameters=[None if x is None else x.dtype for x in weights],
                eps=(first_eps, second_eps, 0.0) if pre else (0.0, first_eps, second_eps),
                dropout_p=dropout_p, attention_p=attention_p, exact=approximate == "none", gated=gated,
            )
        )  # fmt: skip


@functools.cache
def _kernel() -> Any:
    """The module of the layer's autograd function, which imports Triton."""
    from fastbert.kernels import layer

    return layer


@functools.cache
def _configs() -> Any:
    from fastbert.kernels import configs

    return configs


def _has_kernels(like: Tensor, cu_seqlens: Tensor) -> bool:
    """Whether anything can be launched on these tensors past PyTorch."""
    if checks.transform_reason() or like.ndim != 2 or not like.shape[0] or cu_seqlens.get_device() != like.get_device():
        return False
    # Triton launches on the current device
    return triton_dispatch.no_machine() is None and like.get_device() == torch.cuda.current_device()


def _parts(layer: Any, width: int, device: int) -> _Parts | None:
    """None where a module or a parameter is not as it was made."""
    inside = layer._modules  # a dictionary: an attribute of a module is looked up in Python
    attention, feed_forward = inside["attention"], inside["feed_forward"]
    first, second = inside.get("attention_norm"), inside["feed_forward_norm"]  # no module where it is None
    of_attention, of_feed_forward = attention._modules, feed_forward._modules
    qkv, out, up, down = of_attention["qkv"], of_attention["out"], of_feed_forward["up"], of_feed_forward["down"]
    linears = (qkv, nn.Linear), (out, nn.Linear), (up, nn.Linear), (down, nn.Linear)
    norms = (second if first is None else first, nn.LayerNorm), (second, nn.LayerNorm)
    pre = layer.pre
    if not all_stock(*layer._parts(), *linears, *norms) or (first is None and not pre):
        return None
    before, middle, after = (first, second, None) if pre else (None, first, second)
    weights: list[Tensor | None] = []
    for part in (before, qkv, out, middle, up, down, after):
        if part is None:
            weights += None, None
        else:
            parameters = part._parameters
            weights += parameters["weight"], parameters["bias"]
    dtypes = []
    for x in weights:  # quantised and sharded weights are a Linear's too
        if x is not None and (type(x) not in checks.PLAIN or x.get_device() != device):
            return None
        dtypes.append(None if x is None else x.dtype)
    rows = weights[8].shape  # type: ignore[union-attr]
    for place in _READ_BY_KERNELS:
        x = weights[place]
        if x is not None and (
            not x.is_contiguous() or x.data_ptr() & _ALIGNMENT or x.shape[0] != (rows[0] if place == 9 else width)
        ):
            return None
    decides = (
        attention.num_heads, attention.window, attention.dropout_p if attention.training else 0.0,
        layer.dropout_p if layer.training else 0.0, feed_forward.glu, feed_forward.approximate, pre,
        0.0 if first is None else first.eps, second.eps, layer.impl, rows, *dtypes,
    )  # fmt: skip
    return _Parts(weights, decides)


def _decided_by_tables(rotary: Rotary, shape: torch.Size) -> tuple | None:
    """What of cos and sin decides launches, () without them; None: not what the launchers read without asking."""
    if rotary is None:
        return ()
    tables = shape[0], rotary[0].shape[-1]
    for x in rotary:
        if type(x) not in checks.PLAIN or not x.is_cuda or x.requires_grad or x.shape != tables:
            return None
        if not x.is_contiguous() or x.data_ptr() & _ALIGNMENT:
            return None
    return rotary[0].dtype, rotary[1].dtype, tables[1]


def _runs_on_triton(
    layer: Any, hidden: Tensor, fed: Tensor | None, rotary: Rotary, weights: list[Tensor | None], product: torch.dtype
) -> bool:
    """Whether each op of the layer would choose Triton."""
    width, num_heads = hidden.shape[1], layer.attention.num_heads
    up, up_bias = weights[8:10]
    assert up is not None
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
