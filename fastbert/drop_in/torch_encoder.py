"""Drop-in classes for nn.TransformerEncoder and nn.TransformerEncoderLayer.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fastbert import ops
from fastbert.batch import unpack
from fastbert.drop_in.huggingface import WORTH_PACKING, DropIn
from fastbert.drop_in.rules import active_dropout, add_norm, all_stock, is_faster
from fastbert.weights.torch_layers import approximation_of, name_of, unsupported_attention


class TransformerEncoderLayer(DropIn):
    what = "attention, add_layer_norm, feed_forward"
    training: bool

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return unsupported_attention(module.self_attn)

    def _is_stock(self) -> bool:
        parts: dict[type[nn.Module], tuple[nn.Module, ...]] = {
            nn.MultiheadAttention: (self.self_attn,),
            NonDynamicallyQuantizableLinear: (self.self_attn.out_proj,),
            nn.LayerNorm: (self.norm1, self.norm2),
            nn.Dropout: (self.dropout, self.dropout1, self.dropout2),
        }
        return all_stock(*((module, kind) for kind, modules in parts.items() for module in modules))

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False, *, fastbert=None):
        """Stock arguments; ``fastbert``: (cu_seqlens, max_seqlen) where src is packed, (T, D)."""
        if fastbert is None and not self._supports(src, src_mask, src_key_padding_mask, is_causal):
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        settings, norms = self._fastbert, (self.norm1, self.norm2)
        if self.norm_first:
            attended = self._attended(norms[0](src), src_key_padding_mask, fastbert)
            normed, hidden = add_norm(settings, attended, src, norms[1], active_dropout(self.dropout1), return_sum=True)
            return hidden + F.dropout(self._fed(normed), active_dropout(self.dropout2))
        attended = self._attended(src, src_key_padding_mask, fastbert)
        hidden = add_norm(settings, attended, src, norms[0], active_dropout(self.dropout1))
        return add_norm(settings, self._fed(hidden), hidden, norms[1], active_dropout(self.dropout2))

    def _supports(self, src: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> bool:
        if mask is not None or is_causal or src.is_nested or src.ndim != 3 or not self._is_stock():
            return False
        if padding is not None and padding.dtype != torch.bool:
            return False
        heads = src.unflatten(-1, (self.self_attn.num_heads, self.self_attn.head_dim))
        return is_faster(self._fastbert, "attention", q=heads, k=heads, v=heads, bias=None)

    def _attended(self, x: Tensor, padding: Tensor | None, packed: tuple[Tensor, int] | None) -> Tensor:
        attention = self.self_attn
        qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attention.num_heads, attention.head_dim)).unbind(-3)
        rest: dict[str, Any] = {
            "dropout_p": attention.dropout if attention.training else 0.0,
            "impl": self._fastbert.impl,
        }
        if packed is not None:
            context = ops.attention(q, k, v, *packed, **rest)
        else:
            time_first = not attention.batch_first
            q, k, v = (y.transpose(0, 1) if time_first else y for y in (q, k, v))
            real = None if padding is None else ~padding
            context = ops.attention(q, k, v, attention_mask=real, **rest)
            context = context.transpose(0, 1) if time_first else context
        out = attention.out_proj
        return F.linear(context.flatten(-2), out.weight, out.bias)

    def _fed(self, x: Tensor) -> Tensor:
        """linear2(dropout(activation(linear1(x))))."""
        form = approximation_of(self.activation)
        if form is None:
            inner = self.activation(self.linear1(x))
        else:
            inner = ops.bias_gelu(self.linear1(x), None, form, impl=self._fastbert.impl)
        return self.linear2(self.dropout(inner))


class TransformerEncoder(DropIn):
    """Hands its layers the boolean mask that the stock encoder would turn into numbers, or drops the padding."""

    what = "padding"
    training: bool

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        padding = src_key_padding_mask
        supported = mask is None and not is_causal and padding is not None and padding.dtype == torch.bool
        supported = supported and all(isinstance(layer, TransformerEncoderLayer) for layer in self.layers)
        if not supported or src.is_nested or src.ndim != 3 or self._nests():
            return super().forward(src, mask, padding, is_causal)
        if self._fastbert.drop_padding and not torch.compiler.is_compiling() and self._may_pack(padding):
            return self._packed(src, padding)
        for layer in self.layers:
            src = layer(src, src_key_padding_mask=padding)
        return src if self.norm is None else self.norm(src)

    def _nests(self) -> bool:
        """Whether the stock encoder may go on with nested tensors, whose padding comes back as zeros."""
        grad = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        return bool(getattr(self, "use_nested_tensor", False)) and not self.layers[0].training and not grad

    def _may_pack(self, padding: Tensor) -> bool:
        if not all(isinstance(layer, TransformerEncoderLayer) and layer._is_stock() for layer in self.layers):
            return False
        return 0 < int((~padding).sum()) <= WORTH_PACKING * padding.numel()

    def _packed(self, src: Tensor, padding: Tensor) -> Tensor:
        real = ~padding
        time_first = not self.layers[0].self_attn.batch_first
        src = src.transpose(0, 1) if time_first else src
        kept = real.flatten().nonzero().squeeze(1)
        lengths = real.sum(1)
        packed = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32), int(lengths.max())
        hidden = src.flatten(0, 1)[kept]
        for layer in self.layers:
            hidden = layer(hidden, fastbert=packed)
        hidden = hidden if self.norm is None else self.norm(hidden)
        out = unpack(hidden, kept, *real.shape)
        return out.transpose(0, 1) if time_first else out


CLASSES: dict[str, type[DropIn]] = {
    "torch.nn.modules.transformer.TransformerEncoderLayer": TransformerEncoderLayer,
    "torch.nn.modules.transformer.TransformerEncoder": TransformerEncoder,
}
LEFT: dict[str, str] = {
    "torch.nn.modules.transformer.TransformerDecoderLayer": "a decoder: cross-attention and causal masks",
    "torch.nn.modules.activation.MultiheadAttention": (
        "its query, key and value may differ; layers.MultiHeadAttention.from_torch converts one used as self-attention"
    ),
}


def note_on(layer: Any) -> str | None:
    """What of a layer that was changed stays PyTorch's own."""
    if approximation_of(layer.activation) is None:
        return f"its activation {name_of(layer.activation)}: the kernels compute GELU"
    return None
