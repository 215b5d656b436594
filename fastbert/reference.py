"""Every op in plain PyTorch: the specification, the fallback and the text to learn from.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size, F intermediate_size,
V vocabulary, M masked positions. Functions accept any floating dtype, float64 included: the custom kernels are tested
against these in float64.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, scores_mask: Tensor | None, bias: Tensor | None, scale: float, dropout_p: float
) -> Tensor:
    """softmax(q kᵀ · scale + bias) v over padded heads-first tensors (B, N, L, H).

    ``scores_mask`` broadcasts to (B, N, L, L), True where attention is allowed; a row without any gives 0, and so
    does one whose bias is -inf throughout.

    Reference: Vaswani et al., Attention Is All You Need, 2017.
    """
    q = q * scale
    if q.dtype == torch.float16:  # whose largest number, 65,504, products of queries and keys may exceed
        q, k = q.float(), k.float()
    scores = torch.matmul(q, k.transpose(-1, -2))  # (B, N, L, L)
    if bias is not None:
        scores = scores + bias
        finite = bias != -torch.inf
        scores_mask = finite if scores_mask is None else scores_mask & finite
    if scores_mask is None:
        weights = scores.softmax(-1)
    else:
        # the smallest finite number, not -inf: a row without an allowed key must have finite gradients
        weights = scores.masked_fill(~scores_mask, torch.finfo(scores.dtype).min).softmax(-1)
        weights = weights * scores_mask.any(-1, keepdim=True)
    if dropout_p:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights.to(v.dtype), v)


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
    is_causal: bool = False,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_k: int | None = None,
) -> Tensor:
    """Multi-head attention, packed (T, N, H) with ``cu_seqlens`` or padded (B, L, N, H); see :func:`ops.attention`."""
    if seed is not None and dropout_p:
        with torch.random.fork_rng(devices=[q.device] if q.is_cuda else []):
            torch.manual_seed(seed)
            return attention(
                q, k, v, cu_seqlens, max_seqlen,
                attention_mask=attention_mask, window=window, bias=bias, scale=scale, dropout_p=dropout_p,
                is_causal=is_causal, cu_seqlens_k=cu_seqlens_k, max_seqlen_k=max_seqlen_k,
            )  # fmt: skip
    options = window, bias, 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale, dropout_p, is_causal
    if cu_seqlens is None:
        return _padded_attention(q, k, v, attention_mask, *options)

    assert max_seqlen is not None
    if cu_seqlens_k is None:
        cu_seqlens_k, max_seqlen_k = cu_seqlens, max_seqlen
    assert max_seqlen_k is not None
    num_sequences = cu_seqlens.shape[0] - 1
    if q.shape[0] == num_sequences * max_seqlen and k.shape[0] == num_sequences * max_seqlen_k:
        # all of one length: packed is padded
        lengths = max_seqlen, max_seqlen_k, max_seqlen_k
        padded_q, padded_k, padded_v = (
            x.unflatten(0, (num_sequences, length)) for x, length in zip((q, k, v), lengths, strict=True)
        )
        return _padded_attention(padded_q, padded_k, padded_v, None, *options).reshape(q.shape)
    rows = _padded_rows(cu_seqlens, max_seqlen, q.shape[0])
    rows_k = rows if cu_seqlens_k is cu_seqlens else _padded_rows(cu_seqlens_k, max_seqlen_k, k.shape[0])
    q = _padded(q, rows, num_sequences, max_seqlen)
    k, v = (_padded(x, rows_k, num_sequences, max_seqlen_k) for x in (k, v))
    real = torch.arange(max_seqlen_k, device=q.device) < cu_seqlens_k.diff()[:, None]  # (B, L)
    return _padded_attention(q, k, v, real, *options).flatten(0, 1).index_select(0, rows)


def _padded_rows(cu_seqlens: Tensor, max_seqlen: int, total: int) -> Tensor:
    """Row b · L + i of each packed token (T,), in shapes that do not depend on numbers."""
    token = torch.arange(total, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:].long(), token, right=True).clamp(max=max(cu_seqlens.shape[0] - 2, 0))
    rows = token - cu_seqlens.long()[sequence] + sequence * max_seqlen
    return rows.clamp(max=max((cu_seqlens.shape[0] - 1) * max_seqlen - 1, 0))


def _padded(x: Tensor, rows: Tensor, num_sequences: int, length: int) -> Tensor:
    flat = x.new_zeros((num_sequences * length, *x.shape[1:])).index_copy(0, rows, x)
    return flat.unflatten(0, (num_sequences, length))


def _padded_attention(q, k, v, attention_mask, window, bias, scale, dropout_p, is_causal) -> Tensor:
    length, keys = q.shape[1], k.shape[1]
    allowed = None
    if attention_mask is not None:
        allowed = (attention_mask != 0)[:, None, None, :]  # (B, 1, 1, L): padding is not attended to
    if window is not None or is_causal:
        ahead = torch.arange(keys, device=q.device) - torch.arange(length, device=q.device)[:, None]  # (L, L)
        near = ahead <= (0 if is_causal else window)
        near = near if window is None else near & (ahead >= -window)
        allowed = near if allowed is None else allowed & near
    if bias is not None:
        bias = bias[..., :length, :keys]
    if (groups := q.shape[2] // max(k.shape[2], 1)) > 1:  # query heads that share a key and value head
        k, v = (x.repeat_interleave(groups, 2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, N, L, H)
    return scaled_dot_product_attention(q, k, v, allowed, bias, scale, dropout_p).transpose(1, 2)


def rotary_tables(position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotation angles, each (T, H / 2).

    Reference: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
    """
    exponent = torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32) / head_dim
    angles = position_ids[..., None].float() * (1.0 / theta**exponent)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + H/2) of each head: x (…, N, H), cos and sin (…, H / 2)."""
    cos, sin = cos.unsqueeze(-2).to(x.dtype), sin.unsqueeze(-2).to(x.dtype)  # over heads
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    *,
    dropout_p: float = 0.0,
    return_sum: bool = False,
):
    """LayerNorm(residual + dropout(x)); with ``return_sum`` also the sum, which a pre-norm block carries on.

    Reference: Ba et al., Layer Normalization, 2016.
    """
    x = F.dropout(x, dropout_p) if dropout_p else x
    total = x if residual is None else x + residual
    normed = F.layer_norm(total, total.shape[-1:], weight, bias, eps)
    return (normed, total) if return_sum else normed


def bias_gelu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(x + bias). Reference: Hendrycks & Gimpel, Gaussian Error Linear Units, 2016."""
    return F.gelu(x if bias is None else x + bias, approximate=approximate)


def geglu(x: Tensor, bias: Tensor | None = None, approximate: str = "none") -> Tensor:
    """GELU(gate) · value for x (…, 2F) = [gate | value]. Reference: Shazeer, GLU Variants Improve Transformer, 2020."""
    gate, value = (x if bias is None else x + bias).chunk(2, -1)
    return F.gelu(gate, approximate=approximate) * value


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
) -> Tensor:
    """The position-wise half of a layer as one op.

    ``norm="pre"``:  x + W₂ act(W₁ LayerNorm(x) + b₁) + b₂;  ``norm="post"``: LayerNorm(x + W₂ act(W₁ x + b₁) + b₂).
    ``mlp="gelu"``: up_weight (F, D); ``mlp="geglu"``: (2F, D). down_weight (D, F).
    """
    inner = add_layer_norm(x, None, norm_weight, norm_bias, eps) if norm == "pre" else x
    act = geglu if mlp == "geglu" else bias_gelu
    out = F.linear(act(F.linear(inner, up_weight), up_bias, approximate), down_weight, down_bias)
    if norm == "post":
        return add_layer_norm(out, x, norm_weight, norm_bias, eps, dropout_p=dropout_p)
    return x + (F.dropout(out, dropout_p) if dropout_p else out)


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
    """The attention half of a layer as one op, packed.

    ``norm="post"``: LayerNorm(x + W_o attention(W_qkv x + b_qkv) + b_o);  ``norm="pre"``: x + W_o attention(W_qkv
    LayerNorm(x) + b_qkv) + b_o, without a LayerNorm where ``norm_weight`` is None. ``rotary``: (cos, sin), each
    (T, H / 2). ``rows`` (M,): only these rows of the result, (M, D). ``unique_index`` (T,) int64: x holds
    distinct rows (U, D), and the input of token t is row unique_index[t]. ``attention_dropout_p`` drops
    attention weights, ``dropout_p`` elements of the output before the residual.
    """
    inner = x if norm == "post" or norm_weight is None else add_layer_norm(x, None, norm_weight, norm_bias, eps)
    qkv = F.linear(inner, qkv_weight, qkv_bias)
    if unique_index is not None:
        x, qkv = x.index_select(0, unique_index), qkv.index_select(0, unique_index)
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(-3)
    if rotary is not None:
        q, k = (turned(z, *rotary) for z in (q, k))
    context = attention(q, k, v, cu_seqlens, max_seqlen, window=window, dropout_p=attention_dropout_p).flatten(-2)
    if rows is not None:
        context, x = context.index_select(0, rows), x.index_select(0, rows)
    out = F.linear(context, out_weight, out_bias)
    if norm == "pre":
        return x + (F.dropout(out, dropout_p) if dropout_p else out)
    assert norm_weight is not None
    return add_layer_norm(out, x, norm_weight, norm_bias, eps, dropout_p=dropout_p)


turned = rotary  # an argument above has the name


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
    """LayerNorm(word[input_ids] + position[position_ids] + token_type[token_type_ids]); absent tables are skipped."""
    total = F.embedding(input_ids, word)
    if position is not None and position_ids is not None:
        total = total + F.embedding(position_ids, position)
    if token_type is not None and token_type_ids is not None:
        total = total + F.embedding(token_type_ids, token_type)
    return F.layer_norm(total, total.shape[-1:], weight, bias, eps)


def masked_lm_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    vocab_size: int | None = None,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of ``hidden @ weightᵀ + bias`` against ``labels``, over the masked rows only.

    Args:
        hidden: (M, D) hidden states of the masked positions, after the prediction head's transform.
        weight: (V, D) tied embedding; rows from ``vocab_size`` on are padding and take no part.
        bias: (V,) or None.
        labels: (M,) int64; -100 is ignored. No label at all gives 0, not NaN.
        row_weights: (M,) the weight of each row in the mean; None: all are 1.
    """
    logits = F.linear(hidden, weight, bias)
    if vocab_size is not None and vocab_size < logits.shape[-1]:
        logits = logits[:, :vocab_size]
    logits = logits.float() if logits.dtype != torch.float64 else logits
    labeled = labels != -100
    if row_weights is None:
        return F.cross_entropy(logits, labels, reduction="sum") / labeled.sum().clamp(min=1)
    total = (F.cross_entropy(logits, labels, reduction="none") * row_weights).sum()
    return total / (row_weights * labeled).sum().clamp(min=torch.finfo(row_weights.dtype).tiny)


def label_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, vocab_size: int | None = None
) -> Tensor:
    """Log-probability of each row's label, (M,); arguments as :func:`masked_lm_loss`, without -100."""
    logits = F.linear(hidden, weight, bias)[:, :vocab_size]
    logits = logits.float() if logits.dtype != torch.float64 else logits
    return logits.gather(1, labels[:, None]).squeeze(1) - logits.logsumexp(-1)
