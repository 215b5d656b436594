"""The ops: each checks its arguments, chooses an implementation (choose.py), and calls it.

``impl="auto"`` (or the environment variable ``FASTBERT_IMPL``) follows the rule of :func:`choose`. An implementation
requested by name that cannot run raises with the reason, it never falls back. ``python -m fastbert.info`` prints
op → implementation → why.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size, V vocabulary, M masked rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastbert import reference
from fastbert.ops.checks import check_attention, check_cu_seqlens, check_options
from fastbert.ops.choose import OPS, Impl, choose, implementation
from fastbert.ops.choose import requested_impl as requested_impl
from fastbert.ops.cpu.frozen_encoder import InferenceEncoder, LayerParameters, Sample, make_encoder
from fastbert.ops.optimizer_steps import disable_malloc_trim as disable_malloc_trim
from fastbert.ops.optimizer_steps import fused_adamw as fused_adamw
from fastbert.ops.optimizer_steps import fused_muon as fused_muon
from fastbert.ops.optimizer_steps import gradient_norm as gradient_norm
from fastbert.system.processor import bf16_is_fast as bf16_is_fast
from fastbert.system.processor import supports_onednn_matmul

__all__ = [
    "OPS", "Impl", "add_layer_norm", "attention", "bias_gelu", "choose", "embed_layer_norm", "feed_forward", "geglu",
    "masked_lm_loss", "qkv_attention", "rotary",
]  # fmt: skip


def _broadcast(x: Tensor | None, shape: torch.Size) -> Tensor | None:
    """x in exactly this shape, as kernels want it; PyTorch's error where it does not broadcast."""
    return x if x is None or x.shape == shape else x.expand(shape).contiguous()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    *,
    attention_mask: Tensor | None = None,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    impl: str = "auto",
    is_causal: bool = False,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_k: int | None = None,
) -> Tensor:
    """Multi-head attention, packed or padded, of a sequence to itself or to another.

    Kernels run self-attention in both directions, with grouped queries too; the reference runs the rest.

    Args:
        q, k, v: packed (T, N, H) with ``cu_seqlens``, or padded (B, L, N, H). k and v may have fewer heads, a divisor
            of N, each shared by N / heads neighbouring queries; and another length, with ``cu_seqlens_k`` where packed.
        cu_seqlens: (B + 1,) int32, cumulative lengths of the packed sequences.
        max_seqlen: longest sequence, in tokens.
        attention_mask: (B, L) of the keys, non-zero = real token (padded call only).
        window: None, or w: a token sees |i - j| <= w.
        bias: additive, (N, L, L) or (B, N, L, L), queries by keys.
        scale: factor of q kᵀ; None: 1/sqrt(H).
        dropout_p: probability of dropping an attention weight.
        seed: makes the dropout reproducible.
        impl: "auto", "reference", "triton" or "cpp".
        is_causal: query i sees keys j <= i only, both counted from 0 as in PyTorch's ``scaled_dot_product_attention``.
        cu_seqlens_k, max_seqlen_k: of packed k and v, where they are other sequences than q.

    Returns:
        The shape of ``q``. A token with nothing to attend to gives zeros, with finite gradients.

    Raises:
        ValueError: shapes or options that do not fit together.
        RuntimeError: the requested implementation cannot run here.

    Reference: Vaswani et al., Attention Is All You Need, 2017; Dao et al., FlashAttention, 2022; Ainslie et al., GQA,
    2023.
    """
    check_attention(
        q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p, cu_seqlens_k, max_seqlen_k
    )
    if (groups := q.shape[-2] // max(k.shape[-2], 1)) > 1:
        k, v = (x.repeat_interleave(groups, -2) for x in (k, v))
    tensors = {"q": q, "k": k, "v": v, "bias": bias, "attention_mask": attention_mask}
    op = implementation(
        "attention", impl, tensors,
        scale=scale, dropout_p=dropout_p, is_causal=is_causal, cross=cu_seqlens_k is not None,
    )  # fmt: skip
    more = {}
    if op is reference.attention:
        more = {"is_causal": is_causal, "cu_seqlens_k": cu_seqlens_k, "max_seqlen_k": max_seqlen_k}
    return op(
        q, k, v, cu_seqlens, max_seqlen,
        attention_mask=attention_mask, window=window, bias=bias, scale=scale, dropout_p=dropout_p, seed=seed, **more,
    )  # fmt: skip


def qkv_attention(
    qkv: Tensor,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int | None = None,
    *,
    rotary: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    impl: str = "auto",
) -> Tensor:
    """:func:`attention` of the fused projection qkv, (T, 3, N, H) or (B, L, 3, N, H), after rotating q and k.

    The kernels do both without a copy of q, k and v; the reference runs :func:`rotary` and :func:`attention`.

    Args:
        rotary: None, or (cos, sin), each (…, H / 2).
        others: as in :func:`attention`.
    """
    q, k, v = qkv.unbind(-3)
    check_attention(q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p)
    options: dict[str, Any] = {"window": window, "bias": bias, "scale": scale, "dropout_p": dropout_p, "seed": seed}
    cos, sin = rotary or (None, None)
    tensors = {"q": q, "k": k, "v": v, "bias": bias, "attention_mask": attention_mask, "cos": cos, "sin": sin}
    chosen = choose("attention", impl, tensors, scale=scale, dropout_p=dropout_p)[0]
    if chosen == "triton" and rotary is not None:
        chosen = choose("rotary", impl, {"x": q, "cos": cos, "sin": sin})[0]
    if chosen == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.qkv_attention(
            qkv, cu_seqlens, max_seqlen, rotary=rotary, attention_mask=attention_mask, **options
        )
    if chosen == "triton":
        from fastbert.kernels import public

        return public.qkv_attention(
            qkv, cu_seqlens, max_seqlen, rotary=rotary, attention_mask=attention_mask, **options
        )
    if rotary is not None:
        q, k = (_rotary(x, *rotary, impl=impl) for x in (q, k))
    return attention(q, k, v, cu_seqlens, max_seqlen, attention_mask=attention_mask, **options, impl=impl)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, *, impl: str = "auto") -> Tensor:
    """Rotate each head of x (…, N, H) by its position's angles, cos and sin (…, H / 2), in pairs (i, i + H/2)."""
    op = implementation("rotary", impl, {"x": x, "cos": cos, "sin": sin})
    return op(x, cos, sin)


_rotary = rotary  # an argument of qkv_attention has the name


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    dropout_p: float = 0.0,
    return_sum: bool = False,
    impl: str = "auto",
):
    """LayerNorm(residual + dropout(x)) over the last dimension; ``return_sum`` also returns the sum.

    Args: x, residual (…, D); weight (D,); bias (D,) or None; eps added to the variance.
    Returns: (…, D), or ``(normed, summed)``.
    """
    check_options(dropout_p=dropout_p)
    residual = residual if residual is None or x.ndim < residual.ndim else _broadcast(residual, x.shape)
    tensors = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    op = implementation("add_layer_norm", impl, tensors, dropout_p=dropout_p)
    return op(x, residual, weight, bias, eps, dropout_p=dropout_p, return_sum=return_sum)


def bias_gelu(x: Tensor, bias: Tensor | None = None, approximate: str = "none", *, impl: str = "auto") -> Tensor:
    """GELU(x + bias), exact ("none") or "tanh". x (…, F), bias (F,) or None."""
    check_options(approximate=approximate)
    bias = _broadcast(bias, x.shape[-1:])
    op = implementation("bias_gelu", impl, {"x": x, "bias": bias})
    return op(x, bias, approximate)


def geglu(x: Tensor, bias: Tensor | None = None, approximate: str = "none", *, impl: str = "auto") -> Tensor:
    """GELU(gate) · value of x (…, 2F) = [gate | value]; returns (…, F)."""
    check_options(approximate=approximate)
    bias = _broadcast(bias, x.shape[-1:])
    op = implementation("geglu", impl, {"x": x, "bias": bias})
    return op(x, bias, approximate)


def feed_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    up_weight: Tensor,
    up_bias: Tensor | None,
    down_weight: Tensor,
    down_bias: Tensor | None,
    *,
    norm: str = "pre",
    mlp: str = "gelu",
    eps: float = 1e-12,
    approximate: str = "none",
    dropout_p: float = 0.0,
    impl: str = "auto",
) -> Tensor:
    """LayerNorm → Linear → GELU/GeGLU → Linear → residual, pre- or post-norm; see :func:`reference.feed_forward`."""
    check_options(norm=norm, mlp=mlp, approximate=approximate, dropout_p=dropout_p)
    tensors = {
        "x": x, "norm_weight": norm_weight, "norm_bias": norm_bias, "up_weight": up_weight, "up_bias": up_bias,
        "down_weight": down_weight, "down_bias": down_bias,
    }  # fmt: skip
    op = implementation("feed_forward", impl, tensors, norm=norm, mlp=mlp, dropout_p=dropout_p)
    return op(
        x, norm_weight, norm_bias, up_weight, up_bias, down_weight, down_bias,
        norm=norm, mlp=mlp, eps=eps, approximate=approximate, dropout_p=dropout_p,
    )  # fmt: skip


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
    impl: str = "auto",
) -> Tensor:
    """The attention half of a layer over packed sequences; see :func:`reference.self_attention`."""
    check_options(norm=norm, dropout_p=dropout_p, attention_dropout_p=attention_dropout_p)
    check_cu_seqlens(cu_seqlens, max_seqlen, (x if unique_index is None else unique_index).shape[0])
    cos, sin = rotary or (None, None)
    tensors = {
        "x": x, "norm_weight": norm_weight, "norm_bias": norm_bias, "qkv_weight": qkv_weight, "qkv_bias": qkv_bias,
        "out_weight": out_weight, "out_bias": out_bias, "rows": rows, "unique_index": unique_index,
        "cos": cos, "sin": sin,
    }  # fmt: skip
    op = implementation("self_attention", impl, tensors, num_heads=num_heads, norm=norm)
    return op(
        x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias, cu_seqlens, max_seqlen,
        num_heads=num_heads, window=window, rotary=rotary, rows=rows, unique_index=unique_index, norm=norm, eps=eps,
        dropout_p=dropout_p, attention_dropout_p=attention_dropout_p,
    )  # fmt: skip


def tie_embedding(table: Tensor, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """A tied embedding (V, D) as ``(lookup, projection)``, for :func:`embed_layer_norm` and :func:`masked_lm_loss`.

    Where the C++ kernels run both, the few rows of the lookup's gradient are added to the projection's in place.
    """
    if torch.is_grad_enabled() and choose("embed_layer_norm", impl, {"word": table})[0] == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.tie_embedding(table)
    return table, table


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
    *,
    impl: str = "auto",
) -> Tensor:
    """LayerNorm of the summed word (V, D), position (P, D) and token-type (S, D) rows; absent tables are skipped."""
    if position is not None and position_ids is not None and position_ids.shape != input_ids.shape:
        position_ids = position_ids.expand(input_ids.shape)
    if token_type is not None and token_type_ids is not None and token_type_ids.shape != input_ids.shape:
        token_type_ids = token_type_ids.expand(input_ids.shape)
    tensors = {
        "word": word, "position": position, "token_type": token_type, "weight": weight, "bias": bias,
        "input_ids": input_ids, "position_ids": None if position is None else position_ids,
        "token_type_ids": None if token_type is None else token_type_ids,
    }  # fmt: skip
    op = implementation("embed_layer_norm", impl, tensors)
    return op(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, eps)


def masked_lm_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    vocab_size: int | None = None,
    row_weights: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Mean cross-entropy of the masked rows against a tied decoder; see :func:`reference.masked_lm_loss`."""
    tensors = {"hidden": hidden, "weight": weight, "bias": bias, "labels": labels, "row_weights": row_weights}
    op = implementation("masked_lm_loss", impl, tensors)
    weighted = {} if row_weights is None else {"row_weights": row_weights}  # the Triton kernel takes none
    return op(hidden, weight, bias, labels, vocab_size=vocab_size, **weighted)


def label_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, vocab_size: int | None = None,
    impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Log-probability of each masked row's label, (M,), without a gradient; see :func:`reference.label_log_probs`.

    Runs on the C++ kernel of :func:`masked_lm_loss` where that would, else as the reference.
    """
    tensors = {"hidden": hidden, "weight": weight, "bias": bias, "labels": labels}
    if choose("masked_lm_loss", impl, tensors)[0] == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.label_log_probs(hidden, weight, bias, labels, vocab_size=vocab_size)
    with torch.no_grad():
        return reference.label_log_probs(hidden, weight, bias, labels, vocab_size=vocab_size)


def inference_encoder(
    layers: Sequence[LayerParameters],
    norm: tuple[Tensor, Tensor | None] | None,
    num_heads: int,
    dtype: torch.dtype,
    tokens: int,
    sample: Sample | None = None,
    *,
    impl: str = "auto",
) -> InferenceEncoder | None:
    """Layers with their weights copied and packed for inference in ``dtype``, or None where no C++ kernel runs them.

    Args: as :func:`make_encoder`.
    """
    if not supports_onednn_matmul(dtype) or any(layer.qkv[0].device.type != "cpu" for layer in layers):
        return None
    for layer in layers:
        x = layer.qkv[0].new_empty((1, layer.qkv[0].shape[1]))
        weights = {"x": x, "qkv_weight": layer.qkv[0], "out_weight": layer.out[0]}
        half = {"x": x, "up_weight": layer.up[0], "down_weight": layer.down[0]}
        if choose("self_attention", impl, weights, num_heads=num_heads)[0] != "cpp":
            return None
        if choose("feed_forward", impl, half, mlp="geglu" if layer.gated else "gelu")[0] != "cpp":
            return None
    return make_encoder(layers, norm, num_heads, dtype, tokens, sample)
