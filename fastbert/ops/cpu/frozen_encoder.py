"""An encoder's layers ready for inference: weights copied once into the order in which products read them, no graph.

    post: x = LayerNorm(x + attention(x)),  x = LayerNorm(x + W₂ act(W₁ x))
    pre:  x = x + attention(LayerNorm(x)),  x = x + W₂ act(W₁ LayerNorm(x)), and a LayerNorm at the end

Shapes: x (T, D) float32 or bfloat16, which the four matrices of a layer are copied in. Sums, norms and activations are
in float32. A residual and the norm after it are one pass, across layers too.

:class:`NativeEncoder` is one call into C++ for all layers, with products of our own. Where they have none (no AVX2;
bfloat16 with AMX), :class:`OneDnnEncoder` calls one kernel after another, with oneDNN's products on its blocked layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fastbert.ops.cpu.rows import BF16, address
from fastbert.system.errors import InputError
from fastbert.system.native import compute

Vectors = tuple[Tensor, Tensor | None]  # weight and bias
# what an encoder is called with: x, cu_seqlens, and every layer's angles
Sample = tuple[Tensor, Tensor, Sequence[tuple[Tensor, Tensor] | None]]


@dataclass(frozen=True)
class LayerParameters:
    """A layer as its modules have it: matrices (out, in), vectors of any floating dtype."""

    attention_norm: Vectors | None  # None: pre-norm, and the embeddings have normalised already
    qkv: Vectors
    out: Vectors
    feed_forward_norm: Vectors
    up: Vectors
    down: Vectors
    window: int | None
    gated: bool
    exact: bool  # GELU; else its tanh form
    eps: float


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


def _vector(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()


def _packed(weight: Tensor, dtype: torch.dtype, tokens: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous(), tokens)


class _Layer:
    def __init__(self, of: LayerParameters, dtype: torch.dtype, tokens: int):
        self.attention_norm = None if of.attention_norm is None else _Norm(of.attention_norm, of.eps)
        self.feed_forward_norm = _Norm(of.feed_forward_norm, of.eps)
        self.qkv, self.out, self.up, self.down = (
            _packed(matrix[0], dtype, tokens) for matrix in (of.qkv, of.out, of.up, of.down)
        )
        self.qkv_bias = None if of.qkv[1] is None else of.qkv[1].detach().to(dtype)
        self.out_bias, self.up_bias, self.down_bias = (_vector(matrix[1]) for matrix in (of.out, of.up, of.down))
        self.window = -1 if of.window is None else of.window
        self.width = of.down[0].shape[1]
        self.gated, self.tanh = of.gated, not of.exact

    def activate(self, pre: Tensor) -> Tensor:
        """act(pre + b₁): over pre itself where the shapes are one."""
        act = pre.new_empty((pre.shape[0], self.width)) if self.gated else pre
        compute().cpu_gelu_forward(
            pre.dtype == BF16, False, pre.shape[0], self.width, self.gated, self.tanh, pre.data_ptr(),
            address(self.up_bias), act.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return act


class _Norm:
    """LayerNorm(x + bias + residual), all vectors float32."""

    def __init__(self, vectors: Vectors, eps: float):
        weight, bias = vectors
        self.weight, self.bias, self.eps = weight.detach().float().contiguous(), _vector(bias), eps
        self.addresses = self.weight.data_ptr(), address(self.bias)

    def __call__(
        self, x: Tensor, x_bias: Tensor | None, residual: Tensor | None, out: Tensor, total: Tensor | None = None
    ) -> Tensor:
        """Written to ``out``, the sum before it to ``total``; either may be x or the residual."""
        weight, bias = self.addresses
        compute().cpu_layer_norm_forward(
            x.dtype == BF16, False, x.shape[0], x.shape[1], x.data_ptr(), address(x_bias), address(residual), weight,
            bias, self.eps, address(total), out.data_ptr(), 0, 0, torch.get_num_threads(),
        )  # fmt: skip
        return out


class _Attention:
    """The attention kernel on one batch."""

    def __init__(self, x: Tensor, num_heads: int, cu_seqlens: Tensor):
        tokens, width = int(cu_seqlens[-1]), x.shape[1]
        self.cu_seqlens = cu_seqlens.to(torch.int32).contiguous()
        self.sizes = (cu_seqlens.shape[0] - 1, num_heads, tokens, width // num_heads)
        self.context = torch.zeros_like(x)  # rows behind the last sequence stay as they are
        self.lse = torch.empty((num_heads, tokens), dtype=torch.float32)
        self.addresses = [(self.context.data_ptr(), width, width // num_heads)], self.lse.data_ptr()

    def __call__(self, qkv: Tensor, angles: tuple[Tensor, Tensor] | None, window: int) -> Tensor:
        _, _, _, head = self.sizes
        stride, step = qkv.shape[1], qkv.shape[1] // 3 * qkv.element_size()
        start = qkv.data_ptr()
        views = [(start + i * step, stride, head) for i in range(3)]
        outputs, lse = self.addresses
        cos, sin = (0, 0) if angles is None else (angles[0].data_ptr(), angles[1].data_ptr())
        compute().cpu_attention(
            False, qkv.dtype == BF16, views, outputs, lse, (cos, sin), self.cu_seqlens.data_ptr(), 0, self.sizes,
            window, head**-0.5, torch.get_num_threads(),
        )  # fmt: skip
        return self.context


class InferenceEncoder(Protocol):
    """The layers, and the norm behind a pre-norm encoder, copied.

    Attributes:
        compiles: for every number of rows it meets, which should therefore be few; x may then have more rows than the
            sequences, which no token attends to.
    """

    compiles: bool

    def __call__(
        self,
        x: Tensor,
        cu_seqlens: Tensor,
        rotary: Sequence[tuple[Tensor, Tensor] | None],
        rows: Tensor | None = None,
    ) -> Tensor:
        """(T, D) packed → (T, D), or with ``rows`` (M,) → (M, D); ``rotary``: a layer's (cos, sin) float32, or None.

        x is not kept and not changed.
        """
        ...


def make_encoder(
    layers: Sequence[LayerParameters],
    norm: Vectors | None,
    num_heads: int,
    dtype: torch.dtype,
    tokens: int,
    sample: Sample | None = None,
) -> InferenceEncoder:
    """The quicker encoder that this machine runs.

    Args:
        layers: parameters, copied; at least one layer.
        norm: the last LayerNorm of a pre-norm encoder; None: post-norm.
        num_heads: of every layer.
        dtype: torch.float32 or torch.bfloat16, what products are taken of and hidden states rounded to.
        tokens: of a usual batch; oneDNN's blocks are chosen for it.
        sample: products of int8 (csrc/cpu/linear.h), with scales chosen by these hidden states; None: of ``dtype``.

    Raises:
        InputError: this processor, or a layer of these sizes, has no products of int8.
    """
    if sample is not None:
        _check_int8(layers)
        columns = NativeEncoder(layers, norm, num_heads, "fp32").largest(*sample)
        return NativeEncoder(layers, norm, num_heads, "int8", columns)
    whole = dtype != BF16 or all(layer.down[0].shape[1] % 2 == 0 for layer in layers)
    precision = "bf16" if dtype == BF16 else "fp32"
    if whole and compute().Encoder.runs(precision):
        return NativeEncoder(layers, norm, num_heads, precision)
    return OneDnnEncoder(layers, norm, num_heads, dtype, tokens)


def _check_int8(layers: Sequence[LayerParameters]) -> None:
    if not compute().Encoder.runs("int8"):
        raise InputError(f"precision='int8': not on this processor ({compute().cpu_isa()}). Try: bf16 or fp32")
    for layer in layers:
        for weight, _ in (layer.qkv, layer.out, layer.up, layer.down):
            if weight.shape[1] % 4:
                raise InputError(f"precision='int8': a layer of width {weight.shape[1]}, which 4 does not divide")


def _balanced(of: LayerParameters, largest: Sequence[Tensor]) -> tuple[LayerParameters, list]:
    """A layer for int8, and for each matrix the order of its columns of x and what they are multiplied by.

    Columns of great values share blocks, and a quarter of their greatness (as a power) moves into the weights. What
    comes out of ``up`` is in ``down``'s order already; what comes out of attention stays in its own.

    Reference: Xiao et al., SmoothQuant, 2023, for the factors.
    """
    orders = [columns.argsort(descending=True, stable=True) for columns in largest]
    orders[1] = torch.arange(len(largest[1]))
    factors = [columns[order].clamp(min=1e-3) ** -0.25 for columns, order in zip(largest, orders, strict=True)]
    up, bias = of.up
    rows = torch.cat([orders[3], len(orders[3]) + orders[3]]) if of.gated else orders[3]
    arranged = replace(of, up=(up[rows], None if bias is None else bias[rows]))
    matrices = of.qkv, of.out, arranged.up, of.down
    qkv, out, up_, down = (
        (matrix[0].float()[:, order] / factor, matrix[1])
        for matrix, order, factor in zip(matrices, orders, factors, strict=True)
    )
    steps = [(orders[0], factors[0]), (None, factors[1]), (orders[2], factors[2]), (None, factors[3])]
    return replace(arranged, qkv=qkv, out=out, up=up_, down=down), steps


class NativeEncoder:
    """All layers in one call, on our own products; see csrc/cpu/encoder.h. Arguments as of :func:`make_encoder`."""

    def __init__(
        self,
        layers: Sequence[LayerParameters],
        norm: Vectors | None,
        num_heads: int,
        precision: str,
        columns: Sequence[Tensor] | None = None,
    ):
        dtype = BF16 if precision == "bf16" else torch.float32  # of the weights
        alive: list[Tensor] = []  # until they are copied

        def address_of(x: Tensor | None, kind: torch.dtype = torch.float32) -> int:
            if x is None:
                return 0
            alive.append(x.detach().to(kind).contiguous())
            return alive[-1].data_ptr()

        def vectors(of: Vectors) -> list[int]:
            return [address_of(vector) for vector in of]

        def matrix(of: Vectors, step: tuple[Tensor | None, Tensor | None]) -> tuple[int, int, int, int, int, int]:
            placed = address_of(step[0], torch.int32), address_of(step[1])
            return address_of(of[0], dtype), *of[0].shape, address_of(of[1]), *placed

        steps: list = [[(None, None)] * 4] * len(layers)
        if columns is not None:
            found = [_balanced(of, columns[4 * i : 4 * i + 4]) for i, of in enumerate(layers)]
            layers, steps = [layer for layer, _ in found], [step for _, step in found]

        described = [
            (
                [matrix(*each) for each in zip((layer.qkv, layer.out, layer.up, layer.down), step, strict=True)],
                None if layer.attention_norm is None else vectors(layer.attention_norm),
                vectors(layer.feed_forward_norm),
                -1 if layer.window is None else layer.window,
                layer.gated,
                not layer.exact,
            )
            for layer, step in zip(layers, steps, strict=True)
        ]
        self.compiles = False
        self._widths = [weight.shape[1] for of in layers for weight, _ in (of.qkv, of.out, of.up, of.down)]
        self._encoder = compute().Encoder(
            described, None if norm is None else vectors(norm), layers[0].down[0].shape[0], num_heads, layers[0].eps,
            precision,
        )  # fmt: skip
        self.dtype = BF16 if self._encoder.bf16 else torch.float32

    def __call__(
        self,
        x: Tensor,
        cu_seqlens: Tensor,
        rotary: Sequence[tuple[Tensor, Tensor] | None],
        rows: Tensor | None = None,
        largest: Tensor | None = None,
    ) -> Tensor:
        """As :class:`InferenceEncoder`; ``largest``: see :meth:`largest`."""
        own, bounds = x.to(self.dtype, copy=True).contiguous(), cu_seqlens.to(torch.int32).contiguous()
        wanted = None if rows is None else rows.to(torch.int64).contiguous()
        count = own.shape[0] if wanted is None else wanted.shape[0]
        angles = [(0, 0) if each is None else (each[0].data_ptr(), each[1].data_ptr()) for each in rotary]
        if count:
            self._encoder.forward(
                own.data_ptr(), own.shape[0], bounds.data_ptr(), bounds.shape[0] - 1, angles, address(wanted), count,
                torch.get_num_threads(), address(largest),
            )  # fmt: skip
        return own if wanted is None else own[:count]

    def largest(
        self, x: Tensor, cu_seqlens: Tensor, rotary: Sequence[tuple[Tensor, Tensor] | None]
    ) -> Sequence[Tensor]:
        """The largest magnitude (in,) in each column of what each matrix is multiplied with, in the order of use."""
        found = torch.zeros(self._encoder.num_columns)
        self(x, cu_seqlens, rotary, largest=found)
        return found.split(self._widths)


class OneDnnEncoder:
    """One kernel after another, on oneDNN's products. Arguments as of :func:`make_encoder`.

    Its blocked layout spares oneDNN to lay the weights out anew for every product: a quarter of the time at 17 tokens,
    3 % at 2,048 (one core of an AMD EPYC, Zen 4).
    """

    def __init__(
        self, layers: Sequence[LayerParameters], norm: Vectors | None, num_heads: int, dtype: torch.dtype, tokens: int
    ):
        self.layers = [_Layer(layer, dtype, tokens) for layer in layers]
        self.norm = None if norm is None else _Norm(norm, layers[-1].eps)
        self.num_heads, self.dtype, self.compiles = num_heads, dtype, True

    def __call__(
        self,
        x: Tensor,
        cu_seqlens: Tensor,
        rotary: Sequence[tuple[Tensor, Tensor] | None],
        rows: Tensor | None = None,
    ) -> Tensor:
        """As :class:`InferenceEncoder`."""
        own = x.to(self.dtype, copy=True).contiguous()
        if not x.shape[0]:
            return own if rows is None else own.index_select(0, rows)
        run = self._post if self.norm is None else self._pre
        return run(own, _Attention(own, self.num_heads, cu_seqlens), rotary, rows)

    def _post(self, x: Tensor, attention: _Attention, rotary, rows: Tensor | None) -> Tensor:
        between = torch.empty_like(x)
        for layer, angles in zip(self.layers, rotary, strict=True):
            context = attention(_linear(x, layer.qkv, layer.qkv_bias), angles, layer.window)
            if rows is not None and layer is self.layers[-1]:
                context, x = context.index_select(0, rows), x.index_select(0, rows)
                between = torch.empty_like(x)
            assert layer.attention_norm is not None
            layer.attention_norm(_linear(context, layer.out), layer.out_bias, x, between)
            out = _linear(layer.activate(_linear(between, layer.up)), layer.down)
            layer.feed_forward_norm(out, layer.down_bias, between, x)
        return x

    def _pre(self, x: Tensor, attention: _Attention, rotary, rows: Tensor | None) -> Tensor:
        inner, first = torch.empty_like(x), self.layers[0].attention_norm
        inner = inner.copy_(x) if first is None else first(x, None, None, inner)
        following = [*(layer.attention_norm for layer in self.layers[1:]), self.norm]
        for layer, angles, norm in zip(self.layers, rotary, following, strict=True):
            context = attention(_linear(inner, layer.qkv, layer.qkv_bias), angles, layer.window)
            if rows is not None and layer is self.layers[-1]:
                context, x = context.index_select(0, rows), x.index_select(0, rows)
                inner = torch.empty_like(x)
            layer.feed_forward_norm(_linear(context, layer.out), layer.out_bias, x, inner, total=x)
            out = _linear(layer.activate(_linear(inner, layer.up)), layer.down)
            assert norm is not None
            norm(out, layer.down_bias, x, inner, total=x)
        return inner
