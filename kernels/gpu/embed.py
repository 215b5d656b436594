"""Word + position + token-type embeddings gathered, summed and normalised in one pass.

    s = word[input_ids] + position[position_ids] + token_type[token_type_ids]        y = LayerNorm(s)

Shapes: ids (T,) int32 or int64; word (V, D), position (P, D), token_type (S, D), absent tables skipped; y, s (T, D).
Bytes:  e·T·D for each table, 2·e·T·D written (y, and s for the backward). FLOPs: about 10·T·D.
The backward is LayerNorm's kernel (norm.py) and then PyTorch's sort-based embedding gradient, which uses no atomics.

Reference: Devlin et al., BERT, 2019, section 3; Ba et al., Layer Normalization, 2016.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastbert.kernels import eager, norm
from fastbert.kernels.launch import launch


@triton.jit
def _table_row(TABLE, IDS, t, num_rows, d, D: tl.constexpr):
    """Row IDS[t] of a table, or NaN where there is no such row: loud, and nothing outside is read."""
    row = tl.load(IDS + t).to(tl.int64)
    safe = tl.maximum(tl.minimum(row, num_rows - 1), 0)
    values = tl.load(TABLE + safe * D + d, mask=d < D, other=0.0).to(tl.float32)
    return tl.where(row == safe, values, float("nan"))


@triton.jit
def embed_layer_norm_kernel(
    INPUT_IDS, POSITION_IDS, TYPE_IDS, WORD, POSITION, TYPE, WEIGHT, BIAS, Y, SUM, MEAN, RSTD, eps, num_words,
    num_positions, num_types, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    real = d < D
    s = _table_row(WORD, INPUT_IDS, t, num_words, d, D)
    if POSITION is not None:
        s += _table_row(POSITION, POSITION_IDS, t, num_positions, d, D)
    if TYPE is not None:
        s += _table_row(TYPE, TYPE_IDS, t, num_types, d, D)
    tl.store(SUM + t * D + d, s.to(SUM.dtype.element_ty), mask=real)
    mean = tl.sum(s, 0) / D
    centred = tl.where(real, s - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    y = centred * rstd * tl.load(WEIGHT + d, mask=real, other=0.0).to(tl.float32)
    if BIAS is not None:
        y += tl.load(BIAS + d, mask=real, other=0.0).to(tl.float32)
    tl.store(Y + t * D + d, y.to(Y.dtype.element_ty), mask=real)
    tl.store(MEAN + t, mean)
    tl.store(RSTD + t, rstd)


def forward(
    input_ids: Tensor, position_ids: Tensor | None, type_ids: Tensor | None, word: Tensor, position: Tensor | None,
    token_type: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, s (T, D), mean, rstd (T,)."""
    num_tokens, width = input_ids.shape[0], word.shape[1]
    y, total = (torch.empty((num_tokens, width), dtype=word.dtype, device=word.device) for _ in range(2))
    mean, rstd = (torch.empty((num_tokens,), dtype=torch.float32, device=word.device) for _ in range(2))
    launch(
        embed_layer_norm_kernel, num_tokens, norm.row_config("embed_layer_norm", word, width),
        INPUT_IDS=input_ids, POSITION_IDS=position_ids, TYPE_IDS=type_ids, WORD=word, POSITION=position,
        TYPE=token_type, WEIGHT=weight, BIAS=bias, Y=y, SUM=total, MEAN=mean, RSTD=rstd, eps=eps,
        num_words=word.shape[0], num_positions=0 if position is None else position.shape[0],
        num_types=0 if token_type is None else token_type.shape[0], D=width,
    )  # fmt: skip
    return y, total, mean, rstd


_forward = torch.library.custom_op("fastbert::embed_layer_norm", forward, mutates_args=())


@_forward.register_fake
def _(input_ids, position_ids, type_ids, word, position, token_type, weight, bias, eps):
    shape = (input_ids.shape[0], word.shape[1])
    mean, rstd = (word.new_empty(shape[:1], dtype=torch.float32) for _ in range(2))
    return word.new_empty(shape), word.new_empty(shape), mean, rstd


def _setup_context(ctx, inputs, output) -> None:
    input_ids, position_ids, type_ids, word, position, token_type, weight, bias, _eps = inputs
    _y, total, mean, rstd = output
    ctx.save_for_backward(input_ids, position_ids, type_ids, total, weight, mean, rstd)
    ctx.rows = [None if table is None else table.shape[0] for table in (word, position, token_type)]
    ctx.dtypes = [None if x is None else x.dtype for x in (word, position, token_type, weight, bias)]
    ctx.mark_non_differentiable(total, mean, rstd)
    ctx.set_materialize_grads(False)


def _table_gradient(ds: Tensor, ids: Tensor | None, num_rows: int | None, dtype: torch.dtype | None) -> Tensor | None:
    if ids is None or num_rows is None:
        return None
    return torch.ops.aten.embedding_dense_backward(ds, ids, num_rows, -1, False).to(dtype)


def _gradients(ctx, grad_y, *_):
    input_ids, position_ids, type_ids, total, weight, mean, rstd = ctx.saved_tensors
    ds, _, (dweight, dbias) = eager.call(
        ctx, norm._backward, norm.backward, grad_y, None, total, weight, mean, rstd, None, 0.0, total.dtype, None
    )
    tables = [
        _table_gradient(ds, ids, rows, dtype) if wanted else None
        for ids, rows, dtype, wanted in zip(
            (input_ids, position_ids, type_ids), ctx.rows, ctx.dtypes, ctx.needs_input_grad[3:6], strict=False
        )
    ]
    dbias = None if ctx.dtypes[4] is None else dbias.to(ctx.dtypes[4])
    return None, None, None, *tables, dweight.to(ctx.dtypes[3]), dbias, None


_forward.register_autograd(_gradients, setup_context=_setup_context)
_run = eager.direct(_forward, forward, _setup_context, _gradients)


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
    """Embeddings + LayerNorm in Triton; semantics of :func:`fastbert.reference.embed_layer_norm`.

    Ids are not checked on the host, which would wait for the device: an id outside its table gives NaN.
    """
    shape = input_ids.shape
    if position is None or position_ids is None:
        position = position_ids = None
    if token_type is None or token_type_ids is None:
        token_type = token_type_ids = None
    ids = [None if x is None else x.expand(shape).reshape(-1) for x in (input_ids, position_ids, token_type_ids)]
    y, *_ = _run(*ids, word, position, token_type, weight, bias, eps)
    return y.view(*shape, word.shape[1])
