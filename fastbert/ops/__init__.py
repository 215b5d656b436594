"""The one dispatch point: every op checks its arguments, chooses an implementation, and calls it.

``impl="auto"`` (or the environment variable ``FASTBERT_IMPL``) follows the rule written in :func:`choose`; an
implementation asked for by name that cannot run raises with the reason, never falls back. ``python -m fastbert.info``
prints op → implementation → why.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size, V vocabulary, M masked rows.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastbert import reference
from fastbert.kernels import dispatch
from fastbert.ops.cpu import dispatch as cpu_dispatch
from fastbert.ops.cpu.frozen_encoder import InferenceEncoder, LayerParameters
from fastbert.ops.cpu.processor import bf16_is_quick as bf16_is_quick
from fastbert.ops.cpu.processor import onednn_multiplies
from fastbert.system import native

Impl = Literal["auto", "reference", "triton", "cpp"]
OPS = (
    "attention", "rotary", "add_layer_norm", "bias_gelu", "geglu", "feed_forward", "self_attention",
    "embed_layer_norm", "masked_lm_loss",
)  # fmt: skip


__all__ = [
    "OPS", "Impl", "add_layer_norm", "attention", "bias_gelu", "choose", "embed_layer_norm", "feed_forward", "geglu",
    "masked_lm_loss", "qkv_attention", "rotary",
]  # fmt: skip


def wished() -> str:
    """The implementation that ``FASTBERT_IMPL`` asks for, or auto."""
    return os.environ.get("FASTBERT_IMPL", "auto") or "auto"


def choose(
    op: str, impl: str = "auto", tensors: Mapping[str, Tensor | None] | None = None, **options: object
) -> tuple[str, str]:
    """Return ``(implementation, why)`` for an op on these tensors (argument name → tensor or None).

    Rule: a name given by the caller or by ``FASTBERT_IMPL`` is taken or refused. Otherwise ("auto") the Triton kernel
    serves CUDA tensors that it can take, the C++ kernel CPU tensors that it can take where it was measured quicker, and
    the reference everything else. Without ``tensors`` the answer is for tensors that a kernel can take, on this
    machine's CUDA device if it has one. ``FASTBERT_IMPL`` speaks for whole programs: ``cpp`` rules the text engine too,
    so an op without a C++ kernel for its arguments then takes the reference; so does, with ``triton``, an op for which
    no Triton kernel was written (the optimizers' steps).

    Raises:
        ValueError: unknown implementation name.
        RuntimeError: the implementation cannot run this op here.
    """
    asked = "impl argument"
    if impl == "auto":
        impl, asked = wished(), "FASTBERT_IMPL"
    if impl not in get_args(Impl):
        raise ValueError(f"{asked}={impl!r}: expected one of {', '.join(get_args(Impl))}")
    if impl == "reference":
        return "reference", f"{asked} says so"
    on_cuda = (
        torch.cuda.is_available() if tensors is None else any(x is not None and x.is_cuda for x in tensors.values())
    )
    if impl == "cpp" or (impl == "auto" and not on_cuda):
        return _choose_cpp(op, impl, asked, tensors, options)
    why = dispatch.no_kernel(op, {}) if tensors is None else dispatch.refusal(op, tensors, **options)
    if why is None:
        return "triton", f"{asked} says so" if impl == "triton" else "a kernel takes these CUDA tensors"
    unwritten = asked == "FASTBERT_IMPL" and dispatch.no_kernel(op, tensors or {}) is not None
    if impl == "triton" and not unwritten:
        raise RuntimeError(f"{asked}='triton': {op}: {why}")
    return "reference", why


def _choose_cpp(op: str, impl: str, asked: str, tensors, options: Mapping[str, object]) -> tuple[str, str]:
    why = cpu_dispatch.refusal(op, tensors or {}, **options)
    if why is None and impl == "auto":
        why = cpu_dispatch.slower(op, tensors)
    if why is None:
        return "cpp", f"{asked} says so" if impl == "cpp" else "a C++ kernel takes these CPU tensors"
    if impl == "cpp" and asked != "FASTBERT_IMPL":
        raise RuntimeError(f"{asked}='cpp': {op}: {why}")
    return "reference", why


def _implementation(op: str, impl: str, tensors: Mapping[str, Tensor | None], **options: object) -> Callable[..., Any]:
    """The function that :func:`choose` names; triton is imported when it is first needed."""
    chosen = choose(op, impl, tensors, **options)[0]
    if chosen == "triton":
        from fastbert.kernels import public

        return getattr(public, op)
    if chosen == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return getattr(cpu_public, op)
    return getattr(reference, op)


def _check_attention(q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p) -> None:
    if q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}: expected one shape"
        )
    if cu_seqlens is not None:
        if q.ndim != 3:
            raise ValueError(f"q has shape {tuple(q.shape)}: with cu_seqlens it is packed, (tokens, heads, head_dim)")
        if max_seqlen is None:
            raise ValueError("max_seqlen is missing: with cu_seqlens give the longest sequence's length")
        if attention_mask is not None:
            raise ValueError("attention_mask and cu_seqlens exclude each other: packed sequences have no padding")
        _check_cu_seqlens(cu_seqlens, max_seqlen, q)
    elif q.ndim != 4:
        raise ValueError(
            f"q has shape {tuple(q.shape)}: expected padded (batch, length, heads, head_dim), or give cu_seqlens"
        )
    elif attention_mask is not None and attention_mask.shape != q.shape[:2]:
        raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}: expected {tuple(q.shape[:2])}")
    length = q.shape[1] if cu_seqlens is None else max_seqlen
    if bias is not None and (bias.ndim not in (3, 4) or bias.shape[-3] != q.shape[-2] or min(bias.shape[-2:]) < length):
        raise ValueError(f"bias has shape {tuple(bias.shape)}: expected (…, {q.shape[-2]} heads, {length}, {length})")
    if window is not None and window < 0:
        raise ValueError(f"window={window}: expected None or a distance >= 0 in tokens")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p={dropout_p}: expected a probability in [0, 1)")


def _check_cu_seqlens(cu_seqlens: Tensor, max_seqlen: int, q: Tensor) -> None:
    """Values are read on the CPU only: on a GPU that waits for the device, and the kernels cut what does not fit."""
    if cu_seqlens.ndim != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or not cu_seqlens.numel():
        kind, shape = cu_seqlens.dtype, tuple(cu_seqlens.shape)
        raise ValueError(f"cu_seqlens is {kind} of shape {shape}: expected torch.int32, (sequences + 1,)")
    if cu_seqlens.device.type != "cpu" or torch.compiler.is_compiling() or type(cu_seqlens) is not Tensor:
        return
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != q.shape[0]:
        raise ValueError(f"cu_seqlens goes from {ends[0]} to {ends[-1]}: expected 0 to q's {q.shape[0]} tokens")
    lengths = [b - a for a, b in itertools.pairwise(ends)]
    if lengths and (min(lengths) < 0 or max(lengths) > max_seqlen):
        raise ValueError(f"sequences of {min(lengths)} to {max(lengths)} tokens: expected 0 to max_seqlen={max_seqlen}")


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
) -> Tensor:
    """Bidirectional multi-head attention, packed or padded.

    Args:
        q, k, v: packed (T, N, H) with ``cu_seqlens``, or padded (B, L, N, H).
        cu_seqlens: (B + 1,) int32, cumulative lengths of the packed sequences.
        max_seqlen: longest sequence, in tokens.
        attention_mask: (B, L), non-zero = real token (padded call only).
        window: None, or w: a token sees |i - j| <= w.
        bias: additive, (N, L, L) or (B, N, L, L).
        scale: factor of q kᵀ; None: 1/sqrt(H).
        dropout_p: probability of dropping an attention weight.
        seed: makes the dropout reproducible.
        impl: "auto", "reference", "triton" or "cpp".

    Returns:
        The shape of ``q``. A token that may look nowhere gives zeros, with finite gradients.

    Raises:
        ValueError: shapes or options that do not fit together.
        RuntimeError: the implementation asked for cannot run here.

    Reference: Vaswani et al., Attention Is All You Need, 2017; Dao et al., FlashAttention, 2022.
    """
    _check_attention(q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p)
    tensors = {"q": q, "k": k, "v": v, "bias": bias, "attention_mask": attention_mask}
    op = _implementation("attention", impl, tensors, scale=scale, dropout_p=dropout_p)
    return op(
        q, k, v, cu_seqlens, max_seqlen,
        attention_mask=attention_mask, window=window, bias=bias, scale=scale, dropout_p=dropout_p, seed=seed,
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
    """:func:`attention` of the fused projection qkv, (T, 3, N, H) or (B, L, 3, N, H), q and k turned by ``rotary``.

    The C++ kernel does both without a copy; the others are :func:`rotary` and :func:`attention` one after the other.

    Args:
        rotary: None, or (cos, sin), each (…, H / 2).
        others: as in :func:`attention`.
    """
    q, k, v = qkv.unbind(-3)
    _check_attention(q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p)
    options: dict[str, Any] = {"window": window, "bias": bias, "scale": scale, "dropout_p": dropout_p, "seed": seed}
    cos, sin = rotary or (None, None)
    # the kernels' rules are about q, k and v, however they came
    tensors = {"q": q, "k": k, "v": v, "bias": bias, "attention_mask": attention_mask, "cos": cos, "sin": sin}
    if (impl in ("auto", "cpp")) and choose("attention", impl, tensors, scale=scale, dropout_p=dropout_p)[0] == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.qkv_attention(
            qkv, cu_seqlens, max_seqlen, rotary=rotary, attention_mask=attention_mask, **options
        )
    if rotary is not None:
        q, k = (_rotary(x, *rotary, impl=impl) for x in (q, k))
    return attention(q, k, v, cu_seqlens, max_seqlen, attention_mask=attention_mask, **options, impl=impl)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, *, impl: str = "auto") -> Tensor:
    """Rotate each head of x (…, N, H) by its position's angles, cos and sin (…, H / 2): pairs are (i, i + H/2)."""
    op = _implementation("rotary", impl, {"x": x, "cos": cos, "sin": sin})
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
    tensors = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    op = _implementation("add_layer_norm", impl, tensors, dropout_p=dropout_p)
    return op(x, residual, weight, bias, eps, dropout_p=dropout_p, return_sum=return_sum)


def bias_gelu(x: Tensor, bias: Tensor | None = None, approximate: str = "none", *, impl: str = "auto") -> Tensor:
    """GELU(x + bias), exact ("none") or "tanh". x (…, F), bias (F,) or None."""
    op = _implementation("bias_gelu", impl, {"x": x, "bias": bias})
    return op(x, bias, approximate)


def geglu(x: Tensor, bias: Tensor | None = None, approximate: str = "none", *, impl: str = "auto") -> Tensor:
    """GELU(gate) · value of x (…, 2F) = [gate | value]; returns (…, F)."""
    op = _implementation("geglu", impl, {"x": x, "bias": bias})
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
    tensors = {
        "x": x, "norm_weight": norm_weight, "norm_bias": norm_bias, "up_weight": up_weight, "up_bias": up_bias,
        "down_weight": down_weight, "down_bias": down_bias,
    }  # fmt: skip
    op = _implementation("feed_forward", impl, tensors, dropout_p=dropout_p)
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
    source: Tensor | None = None,
    norm: str = "post",
    eps: float = 1e-12,
    dropout_p: float = 0.0,
    attention_dropout_p: float = 0.0,
    impl: str = "auto",
) -> Tensor:
    """The attention half of a layer over packed sequences; see :func:`reference.self_attention`."""
    tensors = {
        "x": x, "norm_weight": norm_weight, "norm_bias": norm_bias, "qkv_weight": qkv_weight, "qkv_bias": qkv_bias,
        "out_weight": out_weight, "out_bias": out_bias,
    }  # fmt: skip
    op = _implementation("self_attention", impl, tensors, num_heads=num_heads)
    return op(
        x, norm_weight, norm_bias, qkv_weight, qkv_bias, out_weight, out_bias, cu_seqlens, max_seqlen,
        num_heads=num_heads, window=window, rotary=rotary, rows=rows, source=source, norm=norm, eps=eps,
        dropout_p=dropout_p, attention_dropout_p=attention_dropout_p,
    )  # fmt: skip


def tied(table: Tensor, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """One table (V, D) for two uses: :func:`embed_layer_norm` first, :func:`masked_lm_loss` second.

    Where the C++ kernels take both, the few rows' gradient of the first is added to the second's in its place.
    """
    if torch.is_grad_enabled() and choose("embed_layer_norm", impl, {"word": table})[0] == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.tied(table)
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
    tensors = {
        "word": word, "position": position, "token_type": token_type, "weight": weight, "bias": bias,
        "input_ids": input_ids,
    }  # fmt: skip
    op = _implementation("embed_layer_norm", impl, tensors)
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
    op = _implementation("masked_lm_loss", impl, tensors)
    weighted = {} if row_weights is None else {"row_weights": row_weights}  # the Triton kernel takes none
    return op(hidden, weight, bias, labels, vocab_size=vocab_size, **weighted)


def label_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, vocab_size: int | None = None,
    impl: str = "auto",
) -> Tensor:  # fmt: skip
    """Log-probability of each masked row's label, (M,), no gradient; see :func:`reference.label_log_probs`.

    It runs where :func:`masked_lm_loss` would run in C++, on the same kernel, and else as the reference.
    """
    tensors = {"hidden": hidden, "weight": weight, "bias": bias, "labels": labels}
    if choose("masked_lm_loss", impl, tensors)[0] == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return cpu_public.label_log_probs(hidden, weight, bias, labels, vocab_size=vocab_size)
    with torch.no_grad():
        return reference.label_log_probs(hidden, weight, bias, labels, vocab_size=vocab_size)


# ---- what the optimizers need ----
def fused_adamw(parameters: Sequence[Tensor]) -> Callable[..., None] | None:
    """The one-pass AdamW step for these parameters, or None where PyTorch's own must do."""
    if choose("adamw", "auto", {f"parameters[{i}]": p for i, p in enumerate(parameters)})[0] != "cpp":
        return None
    from fastbert.ops.cpu import adamw

    return adamw.step if adamw.takes(parameters) else None


def fused_muon(parameters: Sequence[Tensor]) -> Callable[..., None] | None:
    """Muon's step for these matrices in one call, or None where PyTorch's operations must do."""
    if choose("muon", "auto", {f"parameters[{i}]": p for i, p in enumerate(parameters)})[0] != "cpp":
        return None
    from fastbert.ops.cpu import adamw, muon

    return muon.step if adamw.takes(parameters) else None


def renew_images(parameters: Sequence[Tensor], owner: object) -> None:
    """Bring kept bfloat16 images of weights that another process has changed up to date; they hold with ``owner``."""
    from fastbert.ops.cpu import bf16_copies

    with torch.no_grad():
        for parameter in parameters:
            if (made := bf16_copies.kept_image(parameter)) is not None:
                bf16_copies.keep(parameter, made.copy_(parameter), owner)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """√ of the sum of all squares of CPU tensors."""
    from fastbert.ops.cpu import adamw

    return adamw.gradient_norm(gradients)


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, for its next use: training asks for the same again each step."""
    if native.status()[0]:
        native.compute().keep_freed_memory()


# ---- inference ----
def inference_encoder(
    layers: Sequence[LayerParameters],
    norm: tuple[Tensor, Tensor | None] | None,
    num_heads: int,
    dtype: torch.dtype,
    tokens: int,
    *,
    impl: str = "auto",
) -> InferenceEncoder | None:
    """Layers with their weights copied and laid out for inference in ``dtype``, or None where no C++ kernel runs them.

    Args: as :class:`InferenceEncoder`; ``impl`` as everywhere.
    """
    if not onednn_multiplies(dtype):
        return None
    for layer in layers:
        x = layer.qkv[0].new_empty((1, layer.qkv[0].shape[1]))
        weights = {"x": x, "qkv_weight": layer.qkv[0], "out_weight": layer.out[0]}
        half = {"x": x, "up_weight": layer.up[0], "down_weight": layer.down[0]}
        if choose("self_attention", impl, weights, num_heads=num_heads)[0] != "cpp":
            return None
        if choose("feed_forward", impl, half)[0] != "cpp":
            return None
    return InferenceEncoder(layers, norm, num_heads, dtype, tokens)
