"""Residual + dropout + LayerNorm in one pass over memory.

    s = residual + dropout(x)        y = (s - mean(s)) / sqrt(var(s) + eps) · weight + bias

Shapes: x, residual, y, s (T, D), rows at any stride; weight, bias (D,); mean, rstd (T,) float32. D up to 16 384.
Bytes:  forward 4·e·T·D (x, residual read; y, s written); backward 3·e·T·D (dy, s read; ds written), + e·T·D with
        dropout or with a gradient of s. FLOPs: about 8·T·D and 12·T·D, so memory sets the time.
The backward walks a fixed number of row groups, each keeping float32 sums of dweight and dbias; the groups are added
up in a second, small pass: no atomics, and the same sums on every GPU.

Reference: Ba, Kiros, Hinton, Layer Normalization, 2016.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastbert.kernels import configs, eager
from fastbert.kernels.dropout import row_dropout, seed_tensor, threshold_of
from fastbert.kernels.launch import Config, arch_of, cdiv, launch, next_power_of_2

ROW_GROUPS = 512


@triton.jit
def add_layer_norm_forward_kernel(
    X, RESIDUAL, WEIGHT, BIAS, SEED, Y, NARROW, SUM, MEAN, RSTD, eps, threshold, inverse_keep,
    stride_xt, stride_rt, D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    real = d < D
    s = tl.load(X + t * stride_xt + d, mask=real, other=0.0).to(tl.float32)
    if DROPOUT:
        s = s * row_dropout(tl.load(SEED), t, threshold, inverse_keep, BLOCK)
    if RESIDUAL is not None:
        s += tl.load(RESIDUAL + t * stride_rt + d, mask=real, other=0.0).to(tl.float32)
    if SUM is not None:
        tl.store(SUM + t * D + d, s.to(SUM.dtype.element_ty), mask=real)
    mean = tl.sum(s, 0) / D
    centred = tl.where(real, s - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    y = centred * rstd * tl.load(WEIGHT + d, mask=real, other=0.0).to(tl.float32)
    if BIAS is not None:
        y += tl.load(BIAS + d, mask=real, other=0.0).to(tl.float32)
    tl.store(Y + t * D + d, y.to(Y.dtype.element_ty), mask=real)
    if NARROW is not None:
        tl.store(NARROW + t * D + d, y.to(NARROW.dtype.element_ty), mask=real)
    tl.store(MEAN + t, mean)
    tl.store(RSTD + t, rstd)


@triton.jit(do_not_specialize=["T", "rows_per_group"])
def add_layer_norm_backward_kernel(
    DY, DSUM, SUM, WEIGHT, SEED, MEAN, RSTD, DRESIDUAL, DX, PARTS, T, rows_per_group, threshold, inverse_keep,
    stride_yt, stride_gt, stride_st, D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
    SUM_DX: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    real = d < D
    weight = tl.load(WEIGHT + d, mask=real, other=0.0).to(tl.float32)
    part_weight = tl.zeros([BLOCK], tl.float32)
    part_bias = tl.zeros([BLOCK], tl.float32)
    if SUM_DX:
        part_dx = tl.zeros([BLOCK], tl.float32)
    first = group.to(tl.int64) * rows_per_group
    for t in range(first, tl.minimum(first + rows_per_group, T)):
        dy = tl.load(DY + t * stride_yt + d, mask=real, other=0.0).to(tl.float32)
        s = tl.load(SUM + t * stride_st + d, mask=real, other=0.0).to(tl.float32)
        rstd = tl.load(RSTD + t)
        normed = tl.where(real, (s - tl.load(MEAN + t)) * rstd, 0.0)
        part_weight += dy * normed
        part_bias += dy
        dy = dy * weight
        ds = (dy - normed * (tl.sum(dy * normed, 0) / D) - tl.sum(dy, 0) / D) * rstd
        if DSUM is not None:
            ds += tl.load(DSUM + t * stride_gt + d, mask=real, other=0.0).to(tl.float32)
        if DRESIDUAL is not None:
            tl.store(DRESIDUAL + t * D + d, ds.to(DRESIDUAL.dtype.element_ty), mask=real)
        if DX is not None:
            if DROPOUT:
                ds = ds * row_dropout(tl.load(SEED), t, threshold, inverse_keep, BLOCK)
            tl.store(DX + t * D + d, ds.to(DX.dtype.element_ty), mask=real)
            if SUM_DX:
                part_dx += ds
    part = PARTS + group.to(tl.int64) * D + d  # (2 or 3, groups, D)
    plane = tl.num_programs(0).to(tl.int64) * D
    tl.store(part, part_weight, mask=real)
    tl.store(part + plane, part_bias, mask=real)
    if SUM_DX:
        tl.store(part + 2 * plane, part_dx, mask=real)


def row_config(op: str, x: Tensor, width: int, most_warps: int = 16) -> Config:
    """One row a program: more rows a program cost registers and so resident programs (118 → 4 an SM at 2 rows)."""
    block = max(16, next_power_of_2(width))
    warps = min(max(block // 256, 4), most_warps)
    return configs.pick(op, arch_of(x), x.element_size(), block, Config({"BLOCK": block}, warps, 2))


def row_groups(num_rows: int) -> tuple[int, int]:
    """(groups, rows a group) for the sums over rows; the same on every GPU, so the sums are too."""
    rows_per_group = max(cdiv(num_rows, ROW_GROUPS), 1)
    return cdiv(num_rows, rows_per_group), rows_per_group


def forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, seed: Tensor | None, eps: float,
    dropout_p: float, keep_sum: bool, y_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, s, mean, rstd of x (T, D); without ``keep_sum`` s is (0,). s, and by default y, have the wider dtype."""
    num_rows, width = x.shape
    out = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = torch.empty((num_rows, width), dtype=y_dtype or out, device=x.device)
    total = torch.empty((num_rows, width) if keep_sum else (0,), dtype=out, device=x.device)
    mean, rstd = (torch.empty((num_rows,), dtype=torch.float32, device=x.device) for _ in range(2))
    launch_forward(x, residual, weight, bias, seed, y, None, total if keep_sum else None, mean, rstd, eps, dropout_p)
    return y, total, mean, rstd


def launch_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, seed: Tensor | None, y: Tensor,
    narrow: Tensor | None, total: Tensor | None, mean: Tensor, rstd: Tensor, eps: float, dropout_p: float,
) -> None:  # fmt: skip
    """Fill y, ``narrow``, which is y in another dtype, ``total``, mean and rstd."""
    num_rows, width = x.shape
    launch(
        add_layer_norm_forward_kernel, num_rows, row_config("add_layer_norm_forward", x, width),
        X=x, RESIDUAL=residual, WEIGHT=weight, BIAS=bias, SEED=seed, Y=y, NARROW=narrow, SUM=total, MEAN=mean,
        RSTD=rstd, eps=eps, threshold=threshold_of(dropout_p), inverse_keep=1.0 / (1.0 - dropout_p),
        stride_xt=x.stride(0), stride_rt=0 if residual is None else residual.stride(0), D=width,
        DROPOUT=dropout_p > 0.0,
    )  # fmt: skip


def backward(
    grad_y: Tensor, grad_sum: Tensor | None, total: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor,
    seed: Tensor | None, dropout_p: float, x_dtype: torch.dtype, residual_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dresidual ((0,) where it equals dx or there is none), and dweight and dbias as (2, D) float32."""
    num_rows, width = total.shape
    two = residual_dtype is not None and (dropout_p > 0.0 or residual_dtype != x_dtype)
    dx = torch.empty((num_rows, width), dtype=x_dtype, device=total.device)
    dresidual = torch.empty((num_rows, width) if two else (0,), dtype=residual_dtype or x_dtype, device=total.device)
    parts = torch.empty((2, row_groups(num_rows)[0], width), dtype=torch.float32, device=total.device)
    if grad_y.stride(-1) != 1:
        grad_y = grad_y.contiguous()
    if grad_sum is not None and grad_sum.stride(-1) != 1:
        grad_sum = grad_sum.contiguous()
    launch_backward(grad_y, grad_sum, total, weight, seed, mean, rstd, dresidual if two else None, dx, parts, dropout_p)
    return dx, dresidual, parts.sum(1)


def launch_backward(
    grad_y: Tensor, grad_sum: Tensor | None, total: Tensor, weight: Tensor, seed: Tensor | None, mean: Tensor,
    rstd: Tensor, dresidual: Tensor | None, dx: Tensor, parts: Tensor, dropout_p: float,
) -> None:  # fmt: skip
    """Fill dx, ``dresidual`` and ``parts``, float32: (2, groups, D) of dweight and dbias, or (3, …) with dx's sums."""
    num_rows, width = total.shape
    groups, rows_per_group = row_groups(num_rows)
    launch(
        add_layer_norm_backward_kernel, groups, row_config("add_layer_norm_backward", total, width),
        DY=grad_y, DSUM=grad_sum, SUM=total, WEIGHT=weight, SEED=seed, MEAN=mean, RSTD=rstd, DRESIDUAL=dresidual, DX=dx,
        PARTS=parts, T=num_rows, rows_per_group=rows_per_group, threshold=threshold_of(dropout_p),
        inverse_keep=1.0 / (1.0 - dropout_p), stride_yt=grad_y.stride(0),
        stride_gt=0 if grad_sum is None else grad_sum.stride(0), stride_st=total.stride(0), D=width,
        DROPOUT=dropout_p > 0.0, SUM_DX=parts.shape[0] == 3,
    )  # fmt: skip


_forward = torch.library.custom_op("fastbert::add_layer_norm", forward, mutates_args=())
_backward = torch.library.custom_op("fastbert::add_layer_norm_backward", backward, mutates_args=())


@_forward.register_fake
def _(x, residual, weight, bias, seed, eps, dropout_p, keep_sum, y_dtype=None):
    out = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y = x.new_empty(x.shape, dtype=y_dtype or out)
    mean, rstd = (x.new_empty((x.shape[0],), dtype=torch.float32) for _ in range(2))
    return y, x.new_empty(x.shape if keep_sum else (0,), dtype=out), mean, rstd


@_backward.register_fake
def _(grad_y, grad_sum, total, weight, mean, rstd, seed, dropout_p, x_dtype, residual_dtype):
    two = residual_dtype is not None and (dropout_p > 0.0 or residual_dtype != x_dtype)
    dresidual = total.new_empty(total.shape if two else (0,), dtype=residual_dtype or x_dtype)
    vectors = total.new_empty((2, total.shape[1]), dtype=torch.float32)
    return total.new_empty(total.shape, dtype=x_dtype), dresidual, vectors


def _setup_context(ctx, inputs, output) -> None:
    x, residual, weight, bias, seed, _eps, ctx.dropout_p, keep_sum, _y_dtype = inputs
    _y, total, mean, rstd = output
    ctx.save_for_backward(total if keep_sum else x, weight, mean, rstd, seed)
    ctx.x_dtype, ctx.residual_dtype = x.dtype, None if residual is None else residual.dtype
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad_y, grad_sum, _grad_mean, _grad_rstd):
    total, weight, mean, rstd, seed = ctx.saved_tensors
    if grad_y is None:  # only the sum was used
        grad_y = torch.zeros_like(total)
    if grad_sum is not None and grad_sum.numel() == 0:
        grad_sum = None
    dx, dresidual, (dweight, dbias) = eager.call(
        ctx,
        _backward,
        backward,
        grad_y,
        grad_sum,
        total,
        weight,
        mean,
        rstd,
        seed,
        ctx.dropout_p,
        ctx.x_dtype,
        ctx.residual_dtype,
    )
    if ctx.residual_dtype is None:
        dresidual = None
    elif ctx.dropout_p == 0.0 and ctx.residual_dtype == ctx.x_dtype:
        dresidual = dx
    dbias = None if ctx.bias_dtype is None else dbias.to(ctx.bias_dtype)
    return dx, dresidual, dweight.to(weight.dtype), dbias, *(None,) * 5


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, forward, _setup_context, _gradients)


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    dropout_p: float = 0.0,
    return_sum: bool = False,
    seed: int | None = None,
):
    """Residual + dropout + LayerNorm in Triton; semantics of :func:`fastbert.reference.add_layer_norm`.

    Computes in float32; y and the sum have the wider of x's and residual's dtypes. Under autocast on a GPU y has
    autocast's where it is no residual stream itself (the sum is returned, or there is no residual): a product reads it
    next, and would cast it.
    """
    shape = x.shape
    rows = x.reshape(-1, shape[-1])
    residual = None if residual is None else residual.reshape(-1, shape[-1])
    draw = seed_tensor(seed, x.device) if dropout_p else None
    keep_sum = return_sum or residual is not None or dropout_p > 0.0
    narrow = x.is_cuda and (return_sum or residual is None) and torch.is_autocast_enabled("cuda")
    y_dtype = torch.get_autocast_dtype("cuda") if narrow else None
    y, total, _, _ = _run(rows, residual, weight, bias, draw, eps, dropout_p, keep_sum, y_dtype)
    return (y.view(shape), total.view(shape)) if return_sum else y.view(shape)
