"""Bias + GELU, and GeGLU, forward and backward with the bias gradient.

    bias_gelu:  y = gelu(x + b)                          x, y (T, F), b (F,)
    geglu:      y = gelu(g + b_g) · (v + b_v)            x = [g | v] (T, 2F), b (2F,), y (T, F)
    gelu(z) = z · Φ(z) exactly, or its tanh form, which is z · sigmoid(2u) with u = √(2/π) (z + 0.044715 z³)

Bytes:  bias_gelu 2·e·T·F forward, 3·e·T·F backward; geglu 3 and 5. Only x and b are saved.
FLOPs:  about 40 instructions an element for the exact form, which on an H100 makes it instruction-bound; 25 for tanh.
The backward's programs own a block of columns and a fixed group of rows and keep the bias gradient's partial sums.

Reference: Hendrycks & Gimpel, Gaussian Error Linear Units, 2016; Shazeer, GLU Variants Improve Transformer, 2020.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastbert.kernels import configs, eager
from fastbert.kernels.launch import Config, arch_of, cdiv, launch, next_power_of_2

# programs of the bias gradient's pass: eight for each of 132 SMs, and then each column block has as many again
ROW_GROUPS = 1056


@triton.jit
def _gelu(z, EXACT: tl.constexpr):
    if EXACT:
        return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    return z * tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))


@triton.jit
def _gelu_slope(z, EXACT: tl.constexpr):
    if EXACT:
        return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    v = 1.5957691216057308 * (z + 0.044715 * z * z * z)
    # sigmoid(v) and 1 - sigmoid(v), neither by a subtraction: far out, 1 - s would be all rounding
    e = tl.exp(-tl.abs(v))
    large = 1.0 / (1.0 + e)
    s = tl.where(v >= 0, large, e * large)
    rest = tl.where(v >= 0, e * large, large)
    return s + z * s * rest * 1.5957691216057308 * (1.0 + 0.134145 * z * z)


@triton.jit
def _load(X, BIAS, at, f, mask, real):
    x = tl.load(X + at, mask=mask, other=0.0).to(tl.float32)
    if BIAS is not None:
        x += tl.load(BIAS + f, mask=real, other=0.0).to(tl.float32)[None, :]
    return x


@triton.jit(do_not_specialize=["T"])
def gelu_forward_kernel(
    X, BIAS, Y, T, F, column_blocks, stride_xt,
    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, EXACT: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    t = (pid // column_blocks).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    f = pid % column_blocks * BLOCK_F + tl.arange(0, BLOCK_F)
    real = f < F
    mask = (t[:, None] < T) & real[None, :]
    at = t[:, None] * stride_xt + f[None, :]
    y = _gelu(_load(X, BIAS, at, f, mask, real), EXACT)
    if GATED:
        y *= _load(X, BIAS, at + F, f + F, mask, real)
    tl.store(Y + t[:, None] * F + f[None, :], y.to(Y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["T", "rows_per_group"])
def gelu_backward_kernel(
    X, BIAS, DY, DX, PART_BIAS, T, F, column_blocks, rows_per_group, stride_xt, stride_yt,
    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, EXACT: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    group = (pid // column_blocks).to(tl.int64)
    f = pid % column_blocks * BLOCK_F + tl.arange(0, BLOCK_F)
    real = f < F
    width = F
    if GATED:
        width = 2 * F
    sum_gate = tl.zeros([BLOCK_T, BLOCK_F], tl.float32)
    sum_value = tl.zeros([BLOCK_T, BLOCK_F], tl.float32)
    for offset in range(0, rows_per_group, BLOCK_T):
        t = group * rows_per_group + offset + tl.arange(0, BLOCK_T)
        mask = (t[:, None] < T) & real[None, :]
        at = t[:, None] * stride_xt + f[None, :]
        z = _load(X, BIAS, at, f, mask, real)
        dy = tl.load(DY + t[:, None] * stride_yt + f[None, :], mask=mask, other=0.0).to(tl.float32)
        out = t[:, None] * width + f[None, :]
        if GATED:
            dvalue = dy * _gelu(z, EXACT)
            tl.store(DX + out + F, dvalue.to(DX.dtype.element_ty), mask=mask)
            sum_value += dvalue
            dy *= _load(X, BIAS, at + F, f + F, mask, real)
        dgate = dy * _gelu_slope(z, EXACT)
        tl.store(DX + out, dgate.to(DX.dtype.element_ty), mask=mask)
        sum_gate += dgate
    if PART_BIAS is not None:
        tl.store(PART_BIAS + group * width + f, tl.sum(sum_gate, 0), mask=real)
        if GATED:
            tl.store(PART_BIAS + group * width + F + f, tl.sum(sum_value, 0), mask=real)


def gelu_config(op: str, x: Tensor, num_columns: int) -> Config:
    arch = arch_of(x)
    if arch == "interpreter":
        static = Config({"BLOCK_T": 16, "BLOCK_F": 64})
    else:
        # eight elements a thread, 16 bytes; the backward keeps fewest registers when they are all of one row
        block = 256 if op == "gelu_forward" else max(16, min(1024, next_power_of_2(num_columns)))
        static = Config({"BLOCK_T": 1024 // block, "BLOCK_F": block}, 4, 2)
    return configs.pick(op, arch, x.element_size(), num_columns, static)


def forward(x: Tensor, bias: Tensor | None, exact: bool, gated: bool) -> Tensor:
    """y (T, F) of x (T, F), or (T, 2F) when ``gated``."""
    num_rows, width = x.shape
    num_columns = width // 2 if gated else width
    y = torch.empty((num_rows, num_columns), dtype=x.dtype, device=x.device)
    launch_forward(x, bias, y, exact, gated)
    return y


def launch_forward(x: Tensor, bias: Tensor | None, y: Tensor, exact: bool, gated: bool) -> None:
    """Fill y (T, F)."""
    num_rows, num_columns = y.shape
    config = gelu_config("gelu_forward", x, num_columns)
    column_blocks = cdiv(num_columns, config.blocks["BLOCK_F"])
    launch(
        gelu_forward_kernel, cdiv(num_rows, config.blocks["BLOCK_T"]) * column_blocks, config,
        X=x, BIAS=bias, Y=y, T=num_rows, F=num_columns, column_blocks=column_blocks, stride_xt=x.stride(0), EXACT=exact,
        GATED=gated,
    )  # fmt: skip


def backward(
    grad_y: Tensor, x: Tensor, bias: Tensor | None, exact: bool, gated: bool, bias_needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """dx like x, and dbias float32 in the bias's shape, (0,) where none is wanted."""
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    groups = cdiv(x.shape[0], rows_per_group(x, gated, bias_needs_grad))
    parts = torch.empty((groups, x.shape[1] if bias_needs_grad else 0), dtype=torch.float32, device=x.device)
    if grad_y.stride(-1) != 1:
        grad_y = grad_y.contiguous()
    launch_backward(grad_y, x, bias, dx, parts if bias_needs_grad else None, exact, gated)
    return dx, parts.sum(0)


def rows_per_group(x: Tensor, gated: bool, bias_needs_grad: bool) -> int:
    """Rows of x that one program of the backward walks: a group's partial sums are worth many."""
    block_t = gelu_config("gelu_backward", x, x.shape[1] // 2 if gated else x.shape[1]).blocks["BLOCK_T"]
    return cdiv(max(cdiv(x.shape[0], ROW_GROUPS), 1), block_t) * block_t if bias_needs_grad else block_t


def launch_backward(
    grad_y: Tensor, x: Tensor, bias: Tensor | None, dx: Tensor, parts: Tensor | None, exact: bool, gated: bool
) -> None:
    """Fill dx and ``parts`` (groups, F or 2F) float32, whose sums are the bias's gradient; None: not wanted."""
    num_rows, width = x.shape
    num_columns = width // 2 if gated else width
    config = gelu_config("gelu_backward", x, num_columns)
    column_blocks = cdiv(num_columns, config.blocks["BLOCK_F"])
    rows = rows_per_group(x, gated, parts is not None)
    launch(
        gelu_backward_kernel, cdiv(num_rows, rows) * column_blocks, config,
        X=x, BIAS=bias, DY=grad_y, DX=dx, PART_BIAS=parts, T=num_rows, F=num_columns, column_blocks=column_blocks,
        rows_per_group=rows, stride_xt=x.stride(0), stride_yt=grad_y.stride(0), EXACT=exact, GATED=gated,
    )  # fmt: skip


_forward = torch.library.custom_op("fastbert::gelu", forward, mutates_args=())
_backward = torch.library.custom_op("fastbert::gelu_backward", backward, mutates_args=())


@_forward.register_fake
def _(x, bias, exact, gated):
    return x.new_empty((x.shape[0], x.shape[1] // 2 if gated else x.shape[1]))


@_backward.register_fake
def _(grad_y, x, bias, exact, gated, bias_needs_grad):
    return x.new_empty(x.shape), x.new_empty((x.shape[1] if bias_needs_grad else 0,), dtype=torch.float32)


def _setup_context(ctx, inputs, output) -> None:
    x, bias, ctx.exact, ctx.gated = inputs
    ctx.save_for_backward(x, bias)


def _gradients(ctx, grad_y):
    x, bias = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1]
    dx, dbias = eager.call(ctx, _backward, backward, grad_y, x, bias, ctx.exact, ctx.gated, wanted)
    return dx, dbias.to(bias.dtype) if wanted else None, None, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, forward, _setup_context, _gradients)


def bias_gelu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(x + bias) in Triton, float32 inside; x (…, F), bias (F,) or None, approximate "none" or "tanh"."""
    y = _run(x.reshape(-1, x.shape[-1]), bias, approximate == "none", False)
    return y.view(x.shape)


def geglu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(gate) · value in Triton, of x (…, 2F) = [gate | value]; returns (…, F)."""
    y = _run(x.reshape(-1, x.shape[-1]), bias, approximate == "none", True)
    return y.view(*x.shape[:-1], x.shape[-1] // 2)
