"""LayerNorm of summed embedding rows, and the way back: rows of the gradient added to the rows they came from.

    out = LayerNorm(word[id] + position[p] + token_type[s])

Shapes: tables (V, D), (P, D), (S, D); ids (T,) int64; out (T, D). The gradients of a table are summed in float32 for
each of its rows, in the order of the tokens, and rounded once: the bits do not depend on the threads.

Reference: Devlin et al., BERT, 2019, section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert.ops.cpu import bf16_copies, rows
from fastbert.ops.cpu.second_order import gradients_of, under_create_graph
from fastbert.system.native import compute


def gather(tables: list[Tensor], indices: list[Tensor]) -> Tensor:
    """Sum of the tables' rows, (T, D).

    Raises:
        IndexError: an index outside its table.
    """
    count, width = indices[0].shape[0], tables[0].shape[1]
    out = tables[0].new_empty((count, width))
    compute().cpu_gather_rows(
        out.dtype == rows.BF16, count, width, [t.data_ptr() for t in tables], [i.data_ptr() for i in indices],
        [t.shape[0] for t in tables], out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def scatter_add(table: Tensor, index: Tensor, grad: Tensor) -> Tensor:
    """table (V, D) += the rows of grad (T, D) where index (T,) says; in place."""
    compute().cpu_scatter_rows(
        grad.dtype == rows.BF16, index.shape[0], grad.shape[1], table.shape[0], index.data_ptr(), grad.data_ptr(),
        table.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return table


def _embed_again(ctx, grad):
    _, _, _, weight, bias, *rest = ctx.saved_tensors
    indices, tables = rest[: len(rest) // 2], rest[len(rest) // 2 :]

    def output(weight, bias, *tables):
        rows = sum(F.embedding(index, table.to(grad.dtype)) for index, table in zip(indices, tables, strict=True))
        return F.layer_norm(rows, rows.shape[-1:], weight, bias, ctx.eps)

    of_norm = gradients_of(output, [weight, bias, *tables], (grad,))
    return None, None, None, *of_norm[:2], None, *of_norm[2:]


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, indices, used, sparse_word, weight, bias, eps, *tables):
        total = gather(used, indices)
        out, total, mean, rstd = rows.layer_norm(total, None, None, weight, bias, eps)
        ctx.save_for_backward(total, mean, rstd, weight, bias, *indices, *tables)
        ctx.eps, ctx.sparse_word = eps, sparse_word
        ctx.sizes, ctx.dtypes = [len(t) for t in tables], [t.dtype for t in tables]
        return out

    @staticmethod
    @under_create_graph(_embed_again)
    def backward(ctx, grad):
        total, mean, rstd, weight, bias, *rest = ctx.saved_tensors
        indices = rest[: len(rest) // 2]
        grad, grad_weight, grad_bias, _ = rows.layer_norm_backward(
            grad.contiguous(), None, total, mean, rstd, weight, bias is not None, False
        )
        gradients = []
        for number, (index, size, dtype) in enumerate(zip(indices, ctx.sizes, ctx.dtypes, strict=True)):
            shape, values = (size, grad.shape[1]), grad.to(dtype)
            if number == 0 and ctx.sparse_word:
                gradients.append(torch.sparse_coo_tensor(index[None], values, shape, check_invariants=False))
            else:
                gradients.append(scatter_add(values.new_zeros(shape), index, values))
        return None, None, None, grad_weight, grad_bias, None, *gradients


class _TieEmbedding(torch.autograd.Function):
    """One table for two uses; see :func:`tie_embedding`."""

    @staticmethod
    def forward(ctx, table, for_projection):
        return table.view_as(table), for_projection.view_as(table)

    @staticmethod
    def backward(ctx, lookup, projection):
        if lookup is None or not lookup.is_sparse:  # always under create_graph, where this is differentiable
            both = lookup is not None and projection is not None
            return (lookup + projection if both else lookup if projection is None else projection), None
        index, grad = lookup._indices()[0], lookup._values()
        if projection is None:
            projection = grad.new_zeros(lookup.shape)
        return scatter_add(projection.contiguous(), index, grad.to(projection.dtype)), None


def tie_embedding(table: Tensor) -> tuple[Tensor, Tensor]:
    """The table twice: for :func:`embed_layer_norm` and for the product of a tied decoder.

    The lookup's gradient may be a few rows. They are added to the projection's in place, which spares filling, reading
    and adding a table of zeros. The projection's gradient must not be shared, as a product's is not.
    """
    # a gradient that need not be float32 is not made float32 on its way here either
    any_dtype = table.is_leaf and getattr(table, "grad_dtype", table.dtype) is None
    for_projection = bf16_copies.as_dtype(table, bf16_copies.compute_dtype(table)) if any_dtype else table.detach()
    lookup, projection = _TieEmbedding.apply(table, for_projection)
    lookup.embedding_table = projection.embedding_table = table  # whose bfloat16 copy the kernels use
    return lookup, projection


def embed_layer_norm(
    input_ids: Tensor,
    position_ids: Tensor | None,
    token_type_ids: Tensor | None,
    word: Tensor,
    position: Tensor | None,
    token_type: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """LayerNorm of the summed rows; semantics of :func:`fastbert.reference.embed_layer_norm`."""
    pairs = [(word, input_ids), (position, position_ids), (token_type, token_type_ids)]
    tables = [table for table, index in pairs if table is not None and index is not None]
    indices = [index.reshape(-1).contiguous() for table, index in pairs if table is not None and index is not None]
    dtype = bf16_copies.compute_dtype(word)
    weight, bias = rows.dense(weight), rows.dense(bias)
    used = [bf16_copies.as_dtype(getattr(table, "embedding_table", table), dtype) for table in tables]
    if torch.is_grad_enabled():
        out = _Embed.apply(indices, used, hasattr(word, "embedding_table"), weight, bias, eps, *tables)
    else:
        out = rows.layer_norm(gather(used, indices), None, None, weight, bias, eps, keep=False)[0]
    return out.view(*input_ids.shape, out.shape[-1])
