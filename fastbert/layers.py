"""The parts of an encoder as nn.Modules, usable in any PyTorch model, padded or packed.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size, F intermediate_size.
A hidden state is packed (T, D) when ``cu_seqlens`` and ``max_seqlen`` are given, else padded (B, L, D) with an optional
``attention_mask`` (B, L), non-zero = real token.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert import ops
from fastbert.config import BertConfig
from fastbert.ops.cuda_layer import LayerPass
from fastbert.ops.modules import add_norm, all_stock, fused_layer, project_and_activate
from fastbert.reference import attention_weights, rotary_tables
from fastbert.weights import torch_layers

Device = torch.device | str | int | None
Dtype = torch.dtype | None


class Embeddings(nn.Module):
    """Word (+ learned position, + token type) embeddings, LayerNorm, dropout, and ELECTRA's projection.

    Reference: Devlin et al., BERT, 2019, section 3; Clark et al., ELECTRA, 2020.
    """

    def __init__(self, config: BertConfig, impl: str = "auto", *, device: Device = None, dtype: Dtype = None):
        super().__init__()
        width, new = config.embedding_width, partial(nn.Embedding, device=device, dtype=dtype)
        self.word = new(config.padded_vocab_size, width)
        self.position = new(config.max_position_embeddings, width) if config.position == "learned" else None
        self.token_type = new(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.bias, device=device, dtype=dtype)
        self.project = None
        if width != config.hidden_size:
            self.project = nn.Linear(width, config.hidden_size, device=device, dtype=dtype)
        self.dropout_p = config.hidden_dropout_prob
        self.impl = impl

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        embedding_table: Tensor | None = None,
    ) -> Tensor:
        """ids (T,) or (B, L) → (…, D). Default positions count along the last dimension, default types are 0.

        ``embedding_table``: the word table to look up in, see :func:`ops.tie_embedding`; default: the weight.
        """
        if position_ids is None and self.position is not None:
            position_ids = torch.arange(input_ids.shape[-1], device=input_ids.device).expand_as(input_ids)
        if token_type_ids is None and self.token_type is not None:
            token_type_ids = torch.zeros_like(input_ids)
        tables = [table for table in (self.word, self.position, self.token_type) if table is not None]
        if not all_stock((self.norm, nn.LayerNorm), *((table, nn.Embedding) for table in tables)):
            hidden = self.word(input_ids)
            if self.position is not None:
                hidden = hidden + self.position(position_ids)
            if self.token_type is not None:
                hidden = hidden + self.token_type(token_type_ids)
            return self._projected(self.norm(hidden))
        hidden = ops.embed_layer_norm(
            input_ids,
            position_ids,
            token_type_ids,
            self.word.weight if embedding_table is None else embedding_table,
            None if self.position is None else self.position.weight,
            None if self.token_type is None else self.token_type.weight,
            self.norm.weight,
            self.norm.bias,
            self.norm.eps,
            impl=self.impl,
        )
        return self._projected(hidden)

    def _projected(self, hidden: Tensor) -> Tensor:
        hidden = F.dropout(hidden, self.dropout_p, self.training)
        return hidden if self.project is None else self.project(hidden)


class MultiHeadAttention(nn.Module):
    """Self-attention with one fused projection for queries, keys and values (rows [Q | K | V], each (N, H)).

    ``batch_first=False``: padded hidden states are (L, B, D), as nn.MultiheadAttention's default has them.

    Reference: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        bias: bool = True,
        dropout_p: float = 0.0,
        window: int | None = None,
        impl: str = "auto",
        batch_first: bool = True,
        device: Device = None,
        dtype: Dtype = None,
    ):
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size={hidden_size} is not divisible by num_heads={num_heads}")
        self.num_heads, self.head_dim, self.batch_first = num_heads, hidden_size // num_heads, batch_first
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=bias, device=device, dtype=dtype)
        self.out = nn.Linear(hidden_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self.dropout_p, self.window, self.impl = dropout_p, window, impl

    def forward(
        self,
        hidden: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        *,
        attention_mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        rows: Tensor | None = None,
        need_weights: bool = False,
    ):
        """(T, D) packed or (B, L, D) padded → the same shape; ``rotary``: (cos, sin), each (…, H / 2).

        ``rows`` (M,) int64, distinct, packed call only: return only these rows, (M, D).
        ``need_weights``, padded call only: return also the attention weights (B, N, L, L), without dropout.
        """
        if need_weights and (cu_seqlens is not None or rows is not None):
            raise ValueError("need_weights=True: packed sequences have no (B, N, L, L) weights. Try: a padded call")
        time_first = cu_seqlens is None and not self.batch_first
        qkv = self.qkv(hidden.transpose(0, 1) if time_first else hidden)
        qkv = qkv.unflatten(-1, (3, self.num_heads, self.head_dim))  # (…, 3, N, H)
        options: dict[str, Any] = {
            "rotary": rotary,
            "attention_mask": attention_mask,
            "window": self.window,
            "bias": bias,
        }
        context = ops.qkv_attention(
            qkv, cu_seqlens, max_seqlen,
            **options, dropout_p=self.dropout_p if self.training else 0.0, impl=self.impl,
        ).flatten(-2)  # fmt: skip
        out = self.out(context if rows is None else context.index_select(0, rows))
        out = out.transpose(0, 1) if time_first else out
        return (out, attention_weights(qkv, **options)) if need_weights else out

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention, impl: str = "auto") -> "MultiHeadAttention":
        """Self-attention with a copy of the weights; see :func:`fastbert.weights.torch_layers.attention_from_torch`."""
        return torch_layers.attention_from_torch(cls, module, impl)

    def to_torch(self, batch_first: bool = True) -> nn.MultiheadAttention:
        """The nn.MultiheadAttention with a copy of the weights."""
        return torch_layers.attention_to_torch(self, batch_first)


class FeedForward(nn.Module):
    """The position-wise network: Linear → GELU → Linear, or with ``glu`` Linear → GeGLU → Linear.

    Reference: Vaswani et al. 2017, section 3.3; Shazeer, GLU Variants Improve Transformer, 2020.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        glu: bool = False,
        bias: bool = True,
        approximate: str = "none",
        impl: str = "auto",
        device: Device = None,
        dtype: Dtype = None,
    ):
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size * (2 if glu else 1), bias=bias, device=device, dtype=dtype)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self.glu, self.approximate, self.impl = glu, approximate, impl

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        return self.down(project_and_activate(self.up, hidden, self.approximate, gated=self.glu, impl=self.impl))


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and a LayerNorm after ("post") or before ("pre") it.

    Reference: Vaswani et al. 2017 (post); Xiong et al., On Layer Normalization in the Transformer, 2020 (pre).
    """

    def __init__(
        self, config: BertConfig, index: int = 0, impl: str = "auto", *, device: Device = None, dtype: Dtype = None
    ):
        super().__init__()
        width, bias = config.hidden_size, config.bias
        new_norm = partial(nn.LayerNorm, width, config.layer_norm_eps, bias=bias, device=device, dtype=dtype)
        self.pre = config.norm == "pre"
        self.attention = MultiHeadAttention(
            width,
            config.num_attention_heads,
            bias=bias,
            dropout_p=config.attention_probs_dropout_prob,
            window=None if config.is_global_layer(index) else config.window,
            impl=impl,
            device=device,
            dtype=dtype,
        )
        # the embeddings' LayerNorm already normalises what layer 0 reads (as ModernBERT has it)
        skip_first = self.pre and index == 0
        self.attention_norm = None if skip_first else new_norm()
        self.feed_forward = FeedForward(
            width,
            config.intermediate_size,
            glu=config.mlp == "geglu",
            bias=bias,
            approximate=config.gelu_approximate,
            impl=impl,
            device=device,
            dtype=dtype,
        )
        self.feed_forward_norm = new_norm()
        self.dropout_p, self.impl = config.hidden_dropout_prob, impl

    def _parts(self) -> tuple[tuple[nn.Module, type[nn.Module]], ...]:
        """The two halves, and the classes that a kernel may stand for."""
        return (self.attention, MultiHeadAttention), (self.feed_forward, FeedForward)

    def forward(
        self,
        hidden: Tensor,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        *,
        attention_mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        rows: Tensor | None = None,
        unique_index: Tensor | None = None,
    ) -> Tensor:
        """(T, D) packed or (B, L, D) padded → the same shape, or with distinct ``rows`` (M,) of a packed batch (M, D).

        ``unique_index`` (T,) int64, packed: hidden holds distinct rows (U, D), and token t is row unique_index[t].
        """
        if cu_seqlens is not None and max_seqlen is not None and attention_mask is None and not hidden.is_cuda:
            fused = fused_layer(
                self, hidden, cu_seqlens, max_seqlen, rotary=rotary, rows=rows, unique_index=unique_index
            )
            if fused is not None:
                return fused
        hidden = hidden if unique_index is None else hidden.index_select(0, unique_index)
        how = {"attention_mask": attention_mask, "rotary": rotary, "rows": rows}
        if self.pre:
            hidden, fed = self._pre_norm(hidden, None, cu_seqlens, max_seqlen, **how)
            return hidden + F.dropout(fed, self.dropout_p, self.training)
        return self._post_norm(hidden, cu_seqlens, max_seqlen, **how)

    def _post_norm(
        self, hidden: Tensor, cu_seqlens: Tensor | None, max_seqlen: int | None, *, shared=None, **how
    ) -> Tensor:
        """A layer with its norms after."""
        if (whole := self._on_cuda(hidden, None, cu_seqlens, max_seqlen, shared, **how)) is not None:
            return whole[0]
        rows = how["rows"]
        dropout_p = self.dropout_p if self.training else 0.0
        attended = self.attention(hidden, cu_seqlens, max_seqlen, **how)
        hidden = hidden if rows is None else hidden.index_select(0, rows)
        hidden = add_norm(self.attention_norm, attended, hidden, dropout_p=dropout_p, impl=self.impl)
        fed = self.feed_forward(hidden)
        return add_norm(self.feed_forward_norm, fed, hidden, dropout_p=dropout_p, impl=self.impl)

    def _on_cuda(self, hidden, fed, cu_seqlens, max_seqlen, shared, *, attention_mask, rotary, rows):
        """On a GPU, where nothing but plain packed attention is asked: :meth:`ops.cuda_layer.LayerPass.run`."""
        if not hidden.is_cuda or attention_mask is not None or rows is not None or torch.compiler.is_compiling():
            return None
        if shared is None and cu_seqlens is not None and max_seqlen is not None:
            shared = LayerPass((self,), hidden, cu_seqlens, max_seqlen)
        return None if shared is None else shared.run(self, hidden, fed, rotary)

    def _pre_norm(
        self, hidden: Tensor, fed: Tensor | None, cu_seqlens: Tensor | None, max_seqlen: int | None, *, shared=None,
        **how,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """A layer with its norms before, of the sum ``hidden + fed``; returns such a pair, so that a kernel can add."""
        if (whole := self._on_cuda(hidden, fed, cu_seqlens, max_seqlen, shared, **how)) is not None:
            return whole
        dropout_p = self.dropout_p if self.training else 0.0
        inner = hidden
        if fed is not None:
            inner, hidden = add_norm(
                self.attention_norm, fed, hidden, dropout_p=dropout_p, return_sum=True, impl=self.impl
            )
        elif self.attention_norm is not None and hidden.is_cuda:
            # under autocast a GPU's kernel writes what the projection reads
            inner = add_norm(self.attention_norm, hidden, None, impl=self.impl)
        elif self.attention_norm is not None:
            inner = self.attention_norm(hidden)
        attended = self.attention(inner, cu_seqlens, max_seqlen, **how)
        hidden = hidden if how["rows"] is None else hidden.index_select(0, how["rows"])
        inner, hidden = add_norm(
            self.feed_forward_norm, attended, hidden, dropout_p=dropout_p, return_sum=True, impl=self.impl
        )
        return hidden, self.feed_forward(inner)

    @classmethod
    def from_torch(cls, module: nn.TransformerEncoderLayer, impl: str = "auto") -> "EncoderLayer":
        """A layer with a copy of the weights, pre- or post-norm; see :func:`torch_layers.layer_from_torch`."""
        return torch_layers.layer_from_torch(cls, module, impl)

    def to_torch(self, batch_first: bool = True) -> nn.TransformerEncoderLayer:
        """The nn.TransformerEncoderLayer with a copy of the weights."""
        return torch_layers.layer_to_torch(self, batch_first)


class Encoder(nn.Module):
    """A stack of :class:`EncoderLayer`, with rotary tables and the final LayerNorm where the architecture has them."""

    def __init__(self, config: BertConfig, impl: str = "auto", *, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.config = config
        new = partial(EncoderLayer, config, impl=impl, device=device, dtype=dtype)
        self.layers = nn.ModuleList([new(i) for i in range(config.num_hidden_layers)])
        norm = partial(nn.LayerNorm, config.hidden_size, config.layer_norm_eps, bias=config.bias)
        self.norm = norm(device=device, dtype=dtype) if config.norm == "pre" else None

    def _rotary(self, position_ids: Tensor, dtype: torch.dtype) -> dict[bool, tuple[Tensor, Tensor] | None]:
        """Tables for global (True) and local (False) layers, whose base frequency may differ."""
        config = self.config
        if config.position != "rope":
            return {True: None, False: None}
        tables = rotary_tables(position_ids, config.head_dim, config.rope_theta, dtype)
        if config.window is None or config.local_rope_theta == config.rope_theta:
            return {True: tables, False: tables}
        return {True: tables, False: rotary_tables(position_ids, config.head_dim, config.local_rope_theta, dtype)}

    def forward(
        self,
        hidden: Tensor,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        *,
        attention_mask: Tensor | None = None,
        rows: Tensor | None = None,
        unique_index: Tensor | None = None,
    ) -> Tensor:
        """(T, D) packed or (B, L, D) padded → the same shape; ``position_ids`` (…,) default to counting from 0.

        With distinct ``rows`` (M,) of a packed batch → (M, D): the last layer computes those rows only.
        With ``unique_index`` (T,) int64 of a packed batch ``hidden`` holds distinct rows (U, D), and token t starts as
        row unique_index[t].
        """
        if position_ids is None:
            if cu_seqlens is None:
                position_ids = torch.arange(hidden.shape[-2], device=hidden.device).expand(hidden.shape[:-1])
            else:
                num_tokens = hidden.shape[0] if unique_index is None else unique_index.shape[0]
                starts = cu_seqlens[:-1].long().repeat_interleave(cu_seqlens.diff())
                position_ids = torch.arange(num_tokens, device=hidden.device) - starts
        rotary = self._rotary(position_ids, hidden.dtype)
        if hidden.is_cuda and unique_index is None and self._calls_kernels():
            return self._layers_on_cuda(hidden, cu_seqlens, max_seqlen, attention_mask, rotary, rows)
        for index, layer in enumerate(self.layers):
            tables = rotary[self.config.is_global_layer(index)]
            hidden = layer(
                hidden, cu_seqlens, max_seqlen, attention_mask=attention_mask, rotary=tables,
                rows=rows if index == len(self.layers) - 1 else None,
                unique_index=unique_index if index == 0 else None,
            )  # fmt: skip
        return hidden if self.norm is None else self.norm(hidden)

    def _calls_kernels(self) -> bool:
        """Whether the layers are stock, and each residual sum can be made by the kernel of the norm that follows it."""
        if not all_stock(*((layer, EncoderLayer) for layer in self.layers)):
            return False
        norms = [] if self.norm is None else [self.norm, *(x.attention_norm for x in list(self.layers)[1:])]
        return None not in norms and all_stock(*((norm, nn.LayerNorm) for norm in norms))

    def _layers_on_cuda(self, hidden, cu_seqlens, max_seqlen, attention_mask, rotary, rows) -> Tensor:
        layers: list[EncoderLayer] = list(self.layers)  # type: ignore[arg-type]
        shared: Any = None
        fed: Any = None
        if cu_seqlens is not None and max_seqlen is not None and not torch.compiler.is_compiling():
            shared = LayerPass(layers if rows is None else layers[:-1], hidden, cu_seqlens, max_seqlen)
        for index, layer in enumerate(layers):
            tables = rotary[self.config.is_global_layer(index)]
            of_layer = rows if index == len(layers) - 1 else None
            how = {"attention_mask": attention_mask, "rotary": tables, "rows": of_layer, "shared": shared}
            if self.norm is None:
                hidden = layer._post_norm(hidden, cu_seqlens, max_seqlen, **how)
            else:
                hidden, fed = layer._pre_norm(hidden, fed, cu_seqlens, max_seqlen, **how)
        if self.norm is None:
            return hidden
        return add_norm(self.norm, fed, hidden, dropout_p=layer.dropout_p if layer.training else 0.0, impl=layer.impl)
