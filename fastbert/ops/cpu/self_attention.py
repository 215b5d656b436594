"""The attention half of a layer as one node of the graph, pre- or post-norm, over packed sequences.

    post: out = LayerNorm(x + drop(W_o attention(W_qkv x + b_qkv) + b_o))        pre: the LayerNorm is before W_qkv

Shapes: x (T, D), W_qkv (3D, D), rows [Q | K | V] of N heads each; W_o (D, D); ``rows`` (M,) of the T are computed
after the attention: out is (M, D). The attention kernel reads queries, keys and values where the projection left them,
turns them by their positions on the way, and writes the three gradients into one tensor: no copies.

Reference: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
"""

import torch
from torch import Tensor

from fastbert import reference
from fastbert.ops.cpu import bf16_copies, matmul, single_query
from fastbert.ops.cpu import residual as residual_kernels
from fastbert.ops.cpu import rows as row_kernels
from fastbert.ops.cpu.dropout import draw_seed
from fastbert.ops.cpu.embed import scatter_add
from fastbert.ops.cpu.second_order import gradients_of, refuse_dropout, under_create_graph
from fastbert.ops.cpu.sequences import Sequences
from fastbert.system.native import compute


def _attention(at: Sequences, qkv: Tensor, others: list[Tensor], lse: Tensor, backward: bool) -> None:
    """Forward: others = [out]; backward: [grad_out, grad_qkv]. (T, D) and (T, 3D) tensors."""
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    head = width // at.num_heads
    size = qkv.element_size()

    def three(x: Tensor) -> list[tuple[int, int, int]]:
        return [(x.data_ptr() + i * width * size, 3 * width, head) for i in range(3)]

    one = (others[0].data_ptr(), width, head)
    inputs, outputs = ([*three(qkv), one], three(others[1])) if backward else (three(qkv), [one])
    compute().cpu_attention(
        backward, qkv.dtype == row_kernels.BF16, inputs, outputs, lse.data_ptr(),
        (row_kernels.address(at.cos), row_kernels.address(at.sin)), at.cu_seqlens.data_ptr(), 0,
        (at.cu_seqlens.shape[0] - 1, at.num_heads, tokens, head), -1 if at.window is None else at.window, head**-0.5,
        torch.get_num_threads(), at.dropout_p, at.seed,
    )  # fmt: skip


def forward(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, qkv_weight: Tensor, qkv_bias: Tensor | None,
    out_weight: Tensor, out_bias: Tensor | None, rows: Tensor | None, at: Sequences, eps: float, post: bool, keep: bool,
    unique_index: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """out, and what the backward needs: inner, qkv, context, lse, total, mean, rstd."""
    inner, total, mean, rstd = (x,) * 4
    if not post and norm_weight is not None:
        inner, total, mean, rstd = row_kernels.layer_norm(x, None, None, norm_weight, norm_bias, eps, keep)
    dropping = at.dropout_p or at.out_dropout_p
    if not (keep or dropping) and unique_index is None and rows is not None and single_query.supports(inner, rows, at):
        qkv, lse = x.new_empty(0), x.new_empty(0)
        requested = context = single_query.context(inner, qkv_weight, qkv_bias, rows, at)
    else:
        qkv = matmul.linear(inner, qkv_weight, qkv_bias)
        if unique_index is not None:  # equal tokens share what depends on token and position alone
            x, qkv = x.index_select(0, unique_index), qkv.index_select(0, unique_index)
        context = torch.empty_like(x)
        lse = torch.empty((at.num_heads, x.shape[0]), dtype=torch.float32)
        _attention(at, qkv, [context], lse, backward=False)
        requested = context if rows is None else context.index_select(0, rows)
    residual = x if rows is None else x.index_select(0, rows)
    dropped = at.out_dropout_p, at.out_seed
    if post:
        assert norm_weight is not None
        out, total, mean, rstd = residual_kernels.normed(
            requested, out_weight, out_bias, residual, norm_weight, norm_bias, eps, keep, *dropped
        )
    else:
        out = residual_kernels.added(requested, out_weight, out_bias, residual, *dropped)
    return [out, inner, qkv, context, lse, total, mean, rstd]


def backward(
    grad: Tensor, inner: Tensor, qkv: Tensor, context: Tensor, lse: Tensor, total: Tensor, mean: Tensor, rstd: Tensor,
    norm_weight: Tensor | None, has_norm_bias: bool, qkv_weight: Tensor, qkv_bias: Tensor | None, out_weight: Tensor,
    out_bias: Tensor | None, rows: Tensor | None, at: Sequences, post: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """grad_x, and the gradients of norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias."""
    requested = context if rows is None else context.index_select(0, rows)
    norm = None
    if post:
        assert norm_weight is not None
        norm = (total, mean, rstd, norm_weight, has_norm_bias)
    grad, grad_context, of_norm, of_out = residual_kernels.backward(
        grad, requested, out_weight, out_bias, norm, at.out_dropout_p, at.out_seed
    )
    if rows is not None:
        grad_context = scatter_add(torch.zeros_like(context), rows, grad_context)
    grad_qkv = torch.empty_like(qkv)
    _attention(at, qkv, [grad_context, grad_qkv], lse, backward=True)
    grad_qkv_weight = matmul.weight_gradient(grad_qkv, inner)
    grad_qkv_bias = None if qkv_bias is None else row_kernels.sum_rows(grad_qkv, qkv_bias.dtype)
    residual = grad if rows is None else scatter_add(torch.zeros_like(inner), rows, grad)
    if post or norm_weight is None:
        # post-norm: grad is ours to write to; else it came from outside
        own = residual if post or rows is not None else residual.clone()
        grad_x = matmul.add_input_gradient(own, grad_qkv, qkv_weight)
    else:
        grad_inner = matmul.input_gradient(grad_qkv, qkv_weight)
        grad_x, *of_norm, _ = row_kernels.layer_norm_backward(
            grad_inner, residual, total, mean, rstd, norm_weight, has_norm_bias, False
        )
    return grad_x, *of_norm, grad_qkv_weight, grad_qkv_bias, *of_out


def _self_attention_again(ctx, grad):
    inner, _, _, _, total, _, _, norm_weight, *rest = ctx.saved_tensors
    _, qkv_bias, _, out_bias, rows, cu_seqlens, cos, sin, norm_bias, qkv_weight, out_weight = rest
    at, post = ctx.at, ctx.post
    refuse_dropout(max(at.dropout_p, at.out_dropout_p))
    x = inner if post or norm_weight is None else total

    def output(x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias):
        used = (None if w is None else w.to(x.dtype) for w in (qkv_weight, qkv_bias, out_weight, out_bias))
        return reference.self_attention(
            x, norm_weight, norm_bias, *used, cu_seqlens, int(cu_seqlens.diff().max()), num_heads=at.num_heads,
            window=at.window, rotary=None if cos is None else (cos, sin), rows=rows, norm="post" if post else "pre",
            eps=ctx.eps,
        )  # fmt: skip

    inputs = [x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias]
    return *gradients_of(output, inputs, (grad,)), None, None, None, None, None


class _SelfAttention(torch.autograd.Function):
    """The parameters come twice: as the graph knows them, and ``used`` as they are computed with."""

    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias, used, rows, at, eps, post):
        qkv, own_bias, out_w = used
        out, *kept = forward(x, norm_weight, norm_bias, qkv, own_bias, out_w, out_bias, rows, at, eps, post, True)
        # some are read through `at`; saved, PyTorch checks that nobody has changed them
        ctx.save_for_backward(
            *kept, norm_weight, qkv, qkv_bias, out_w, out_bias, rows, at.cu_seqlens, at.cos, at.sin, norm_bias,
            qkv_weight, out_weight,
        )  # fmt: skip
        ctx.at, ctx.post, ctx.eps = at, post, eps
        return out

    @staticmethod
    @under_create_graph(_self_attention_again)
    def backward(ctx, grad):
        *kept, norm_weight, qkv, qkv_bias, out_weight, out_bias, rows, _, _, _, norm_bias, _, _ = ctx.saved_tensors
        gradients = backward(
            grad.contiguous(), *kept, norm_weight, norm_bias is not None, qkv, qkv_bias, out_weight, out_bias, rows,
            ctx.at, ctx.post,
        )  # fmt: skip
        return *gradients, None, None, None, None, None


def self_attention(
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    num_heads: int,
    window: int | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    rows: Tensor | None = None,
    unique_index: Tensor | None = None,
    norm: str = "post",
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    attention_dropout_p: float = 0.0,
) -> Tensor:
    """The attention half of a layer; semantics of :func:`fastbert.reference.self_attention`."""
    rows = None if rows is None else rows.contiguous()
    cos, sin = (None, None) if rotary is None else (table.float().contiguous() for table in rotary)
    at = Sequences(
        num_heads, cu_seqlens.to(torch.int32).contiguous(), window, cos, sin,
        attention_dropout_p, draw_seed() if attention_dropout_p else 0, dropout_p, draw_seed() if dropout_p else 0,
    )  # fmt: skip
    dtype = bf16_copies.compute_dtype(x)
    x = row_kernels.flat(x).to(dtype)
    norm_weight, norm_bias = row_kernels.dense(norm_weight), row_kernels.dense(norm_bias)
    qkv_bias, out_bias = row_kernels.dense(qkv_bias), row_kernels.dense(out_bias)
    used = (
        bf16_copies.as_dtype(qkv_weight, dtype),
        bf16_copies.as_dtype(qkv_bias, dtype),
        bf16_copies.as_dtype(out_weight, dtype),
    )
    if torch.is_grad_enabled():
        x = x if unique_index is None else x.index_select(0, unique_index)
        return _SelfAttention.apply(
            x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias, used, rows, at, eps, norm == "post"
        )
    return forward(x, norm_weight, norm_bias, *used, out_bias, rows, at, eps, norm == "post", False, unique_index)[0]
