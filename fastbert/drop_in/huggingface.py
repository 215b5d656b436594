"""Drop-in classes for Hugging Face's BERT, RoBERTa, DistilBERT and ModernBERT.

Each overrides one module's ``forward`` and hands over to the stock code (``super().forward``) whenever a call asks for
something that it does not do. The base model gives its attention modules a :class:`Plan`, as a keyword argument that
transformers passes down: the two-dimensional mask, or where padding is dropped the packed sequences' bounds.

Legend: B sequences, L padded length, T packed tokens, N heads, H head_dim, D hidden_size.
"""

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert import ops
from fastbert.batch import unpack
from fastbert.drop_in.rules import (
    Settings,
    active_dropout,
    add_norm,
    all_stock,
    is_faster,
    project_and_activate,
)
from fastbert.weights.torch_layers import approximation_of, name_of

# dropping padding costs a gather and a scatter of the hidden states
WORTH_PACKING = 0.95
_IMPLEMENTATIONS = ("sdpa", "eager")


class Plan(NamedTuple):
    """What the attention modules of one forward pass need to know about padding."""

    key_mask: Tensor | None = None  # (B, L) bool, True = real token
    cu_seqlens: Tensor | None = None  # (B + 1,) int32, when the tokens lie packed as one row (1, T)
    max_seqlen: int | None = None


def passes_options_down(kind: type[nn.Module]) -> bool:
    """True for the modules of newer transformers, which hand unknown keyword arguments on."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(kind.forward).parameters.values())


if TYPE_CHECKING:
    _Stock = Any  # the stock class that comes next in the order of resolution
else:
    _Stock = object


class DropIn(_Stock):
    """What every class here has: its settings, and a reason to leave a module alone (None: take it)."""

    what = ""  # for the report
    _fastbert: Settings

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return None


class Attention(DropIn):
    """Self-attention; subclasses project and give ``attend`` the heads."""

    what = "attention"
    config: Any

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        stock = type(module)
        if getattr(module, "is_decoder", False) or getattr(module, "is_causal", False):
            return "a decoder: causal attention"
        if getattr(module, "position_embedding_type", None) not in (None, "absolute"):
            return f"relative positions ({module.position_embedding_type})"
        if not passes_options_down(stock):
            import transformers

            return f"transformers {transformers.__version__} does not hand {stock.__name__} the padding mask as it is"
        return None

    def supports(self, heads: Tensor, attention_mask: Any, plan: Plan | None, options: dict[str, Any]) -> bool:
        """Whether this call can be served; ``heads`` (…, N, H) stands for the queries to come."""
        if plan is not None and plan.cu_seqlens is not None:
            return True  # the base model looked before it packed
        if any(value is not None for name, value in options.items() if name.startswith(("past_", "encoder_", "head_"))):
            return False
        if options.get("output_attentions") or self.config._attn_implementation not in _IMPLEMENTATIONS:
            return False
        if attention_mask is not None and plan is None:
            return False
        return is_faster(self._fastbert, "attention", q=heads, k=heads, v=heads, bias=None)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan | None, dropout_p: float, **rest: Any) -> Tensor:
        """Context (…, D) of q, k, v (B, L, N, H), or of packed ones (1, T, N, H)."""
        rest = {**rest, "dropout_p": dropout_p, "impl": self._fastbert.impl}
        if plan is None or plan.cu_seqlens is None:
            mask = None if plan is None else plan.key_mask
            return ops.attention(q, k, v, attention_mask=mask, **rest).flatten(-2)
        q, k, v = (x.squeeze(0) for x in (q, k, v))
        return ops.attention(q, k, v, plan.cu_seqlens, plan.max_seqlen, **rest).flatten(-2).unsqueeze(0)


class BertSelfAttention(Attention):
    def forward(self, hidden_states, attention_mask=None, *args, fastbert: Plan | None = None, **kwargs):
        shape = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
        positional = {f"past_{index}": value for index, value in enumerate(args)}
        if not self.supports(hidden_states.view(shape), attention_mask, fastbert, {**positional, **kwargs}):
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        plan = None if attention_mask is None and (fastbert is None or fastbert.cu_seqlens is None) else fastbert
        q, k, v = (project(hidden_states).view(shape) for project in (self.query, self.key, self.value))
        return self.attend(q, k, v, plan, active_dropout(self.dropout)), None


class DistilBertSelfAttention(Attention):
    def forward(self, hidden_states, attention_mask=None, *args, fastbert: Plan | None = None, **kwargs):
        shape = (*hidden_states.shape[:-1], self.n_heads, self.attention_head_size)
        positional = {f"past_{index}": value for index, value in enumerate(args)}
        if not self.supports(hidden_states.view(shape), attention_mask, fastbert, {**positional, **kwargs}):
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        plan = None if attention_mask is None and (fastbert is None or fastbert.cu_seqlens is None) else fastbert
        q, k, v = (project(hidden_states).view(shape) for project in (self.q_lin, self.k_lin, self.v_lin))
        return self.out_lin(self.attend(q, k, v, plan, active_dropout(self.dropout))), None


class ModernBertAttention(Attention):
    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        if "position_embeddings" not in inspect.signature(type(module).forward).parameters:
            import transformers

            return f"ModernBertAttention of transformers {transformers.__version__} computes its rotation inside"
        return Attention.unsupported_reason(module)

    def forward(
        self, hidden_states, position_embeddings=None, attention_mask=None, fastbert: Plan | None = None, **kwargs
    ):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        # the sliding layers' mask says more than their padding, so without a plan none of it is known
        eager = self.config._attn_implementation == "eager" and self.sliding_window is not None
        packed = fastbert is not None and fastbert.cu_seqlens is not None
        if not packed and (eager or not self.supports(hidden_states.view(shape), attention_mask, fastbert, kwargs)):
            return super().forward(hidden_states, position_embeddings, attention_mask, **kwargs)
        q, k, v = self.Wqkv(hidden_states).view(*shape[:-2], 3, -1, self.head_dim).unbind(-3)
        # (1 or B, L, H), the second half repeats the first
        cos, sin = (table[..., : self.head_dim // 2] for table in position_embeddings)
        cos, sin = (table.squeeze(0) if table.shape[0] == 1 and q.shape[0] != 1 else table for table in (cos, sin))
        q, k = (ops.rotary(x, cos, sin, impl=self._fastbert.impl) for x in (q, k))
        window = None if self.sliding_window is None else self.sliding_window - 1
        dropout_p = self.attention_dropout if self.training else 0.0
        return self.out_drop(self.Wo(self.attend(q, k, v, fastbert, dropout_p, window=window))), None


class DenseAddNorm(DropIn):
    """BertSelfOutput and BertOutput: LayerNorm(residual + dropout(dense(x)))."""

    what = "add_layer_norm"

    def forward(self, hidden_states, input_tensor):
        norm = self.LayerNorm
        if not (all_stock((norm, nn.LayerNorm)) and all_stock((self.dropout, nn.Dropout))):
            return super().forward(hidden_states, input_tensor)
        if not is_faster(self._fastbert, "add_layer_norm", x=input_tensor, weight=norm.weight, bias=norm.bias):
            return super().forward(hidden_states, input_tensor)
        hidden_states = self.dense(hidden_states)
        return add_norm(self._fastbert, hidden_states, input_tensor, norm, active_dropout(self.dropout))


def _activation_reason(activation: Any) -> str | None:
    return None if approximation_of(activation) else f"activation {name_of(activation)}: the kernels compute GELU"


class BertIntermediate(DropIn):
    what = "bias_gelu"

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return _activation_reason(module.intermediate_act_fn)

    def forward(self, hidden_states):
        form = approximation_of(self.intermediate_act_fn)
        if form is None or not is_faster(self._fastbert, "bias_gelu", x=hidden_states):
            return super().forward(hidden_states)
        return project_and_activate(self._fastbert, self.dense, hidden_states, form)


class DistilBertFFN(DropIn):
    what = "bias_gelu"

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return _activation_reason(module.activation)

    def ff_chunk(self, hidden_states):
        form = approximation_of(self.activation)
        if form is None or not is_faster(self._fastbert, "bias_gelu", x=hidden_states):
            return super().ff_chunk(hidden_states)
        return self.dropout(self.lin2(project_and_activate(self._fastbert, self.lin1, hidden_states, form)))


class DistilBertBlock(DropIn):
    what = "add_layer_norm"

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return None if passes_options_down(type(module)) else "an older transformers, whose block returns a tuple"

    def forward(self, hidden_states, *args, **kwargs):
        norms = self.sa_layer_norm, self.output_layer_norm
        served = all(
            all_stock((norm, nn.LayerNorm))
            and is_faster(self._fastbert, "add_layer_norm", x=hidden_states, weight=norm.weight, bias=norm.bias)
            for norm in norms
        )
        if not served:
            return super().forward(hidden_states, *args, **kwargs)
        attended = self.attention(hidden_states, *args, **kwargs)[0]
        hidden_states = add_norm(self._fastbert, attended, hidden_states, norms[0], 0.0)
        return add_norm(self._fastbert, self.ffn(hidden_states), hidden_states, norms[1], 0.0)


class ModernBertMLP(DropIn):
    what = "geglu"

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return _activation_reason(module.act)

    def forward(self, hidden_states):
        form = approximation_of(self.act)
        if form is None or not is_faster(self._fastbert, "geglu", x=hidden_states):
            return super().forward(hidden_states)
        return self.Wo(self.drop(project_and_activate(self._fastbert, self.Wi, hidden_states, form, gated=True)))


class ModernBertLayer(DropIn):
    what = "add_layer_norm"

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        if "position_embeddings" in inspect.signature(type(module).forward).parameters:
            return None
        return "an older transformers, whose layer returns a tuple"

    def forward(self, hidden_states, *args, **kwargs):
        norm = self.mlp_norm
        if not all_stock((norm, nn.LayerNorm)) or not is_faster(
            self._fastbert, "add_layer_norm", x=hidden_states, weight=norm.weight, bias=norm.bias
        ):
            return super().forward(hidden_states, *args, **kwargs)
        attended = self.attn(self.attn_norm(hidden_states), *args, **kwargs)[0]
        normed, hidden_states = add_norm(self._fastbert, attended, hidden_states, norm, 0.0, return_sum=True)
        return hidden_states + self.mlp(normed)


class BaseModel(DropIn):
    """BertModel and its like: tells the attention modules about padding, or drops it."""

    what = "padding"
    config: Any

    @staticmethod
    def unsupported_reason(module: Any) -> str | None:
        return None if passes_options_down(type(module)) else "an older transformers, which hands no options down"

    def forward(self, input_ids=None, attention_mask=None, *args, **kwargs):
        plan = self._plan(attention_mask, kwargs)
        if plan is None:
            return super().forward(input_ids, attention_mask, *args, **kwargs)
        if self._fastbert.drop_padding and not args and self._may_pack(plan.key_mask, kwargs):
            return self._packed(input_ids, plan.key_mask, **kwargs)
        return super().forward(input_ids, attention_mask, *args, fastbert=plan, **kwargs)

    def _plan(self, attention_mask: Any, options: dict[str, Any]) -> Plan | None:
        """None: the stock attention must run, with the stock masks."""
        config = self.config
        if getattr(config, "is_decoder", False) or config._attn_implementation not in _IMPLEMENTATIONS:
            return None
        if options.get("output_attentions") or getattr(config, "output_attentions", False):
            return None
        if attention_mask is None:
            return Plan()
        if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
            return None
        real = attention_mask != 0
        # eager attention over nothing but padding looks at all of it alike, SDPA and the kernels give zeros
        if config._attn_implementation == "eager" and (torch.compiler.is_compiling() or not real.any(1).all()):
            return None
        return Plan(real)

    def _may_pack(self, real: Tensor | None, options: dict[str, Any]) -> bool:
        understood = ("token_type_ids", "position_ids", "inputs_embeds", "output_hidden_states", "return_dict")
        if real is None or torch.compiler.is_compiling():  # the number of tokens would be a new shape every time
            return False
        if any(value is not None for name, value in options.items() if name not in understood):
            return False
        if options.get("return_dict") is False or not getattr(self.config, "return_dict", True):
            return False
        count = int(real.sum())
        if not 0 < count <= WORTH_PACKING * real.numel():
            return False
        if getattr(self.config, "model_type", "") == "modernbert":
            # a window counts tokens, so a hole in the middle would bring neighbours nearer
            starts = real[:, 0].int() + (real.int().diff(dim=1) == 1).sum(1)
            return bool((starts <= 1).all())
        return True

    def _positions(self, input_ids: Tensor | None, real: Tensor) -> Tensor:
        """(B, L) position of each token, as the stock embeddings count them."""
        columns = torch.arange(real.shape[1], device=real.device).expand(real.shape)
        padding = getattr(self.embeddings, "padding_idx", None)  # RoBERTa counts real words from padding_idx + 1
        if padding is None:
            return columns
        if input_ids is None:
            return columns + padding + 1
        words = input_ids.ne(padding).int()
        return (words.cumsum(1) * words).long() + padding

    def _packed(self, input_ids, real: Tensor, token_type_ids=None, position_ids=None, inputs_embeds=None, **options):
        """The stock forward on one row (1, T) of real tokens; padding comes back as zeros."""
        rows, length = real.shape
        kept = real.flatten().nonzero().squeeze(1)
        lengths = real.sum(1)
        plan = Plan(None, F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32), int(lengths.max()))
        positions = self._positions(input_ids, real) if position_ids is None else position_ids.expand(rows, length)
        given = {"inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids, "position_ids": positions}
        options |= {
            name: value.expand(rows, *value.shape[1:]).flatten(0, 1)[kept][None]
            for name, value in given.items()
            if value is not None
        }
        if input_ids is not None:
            input_ids = input_ids.flatten()[kept][None]
        layer_types = set(getattr(self.config, "layer_types", None) or ())
        # the plan says it all: without these ModernBERT would make a (T, T) mask
        masks = dict.fromkeys(layer_types) if layer_types else None
        out = super().forward(input_ids, masks, fastbert=plan, **options)
        out.last_hidden_state = unpack(out.last_hidden_state[0], kept, rows, length)
        if out.get("hidden_states") is not None:
            out.hidden_states = tuple(unpack(state[0], kept, rows, length) for state in out.hidden_states)
        if out.get("pooler_output") is not None:
            out.pooler_output = self.pooler(out.last_hidden_state)
        return out


_BERT_LIKE = {"bert": "Bert", "roberta": "Roberta", "xlm_roberta": "XLMRoberta", "camembert": "Camembert"}
_PARTS = {
    "SelfAttention": BertSelfAttention, "SelfOutput": DenseAddNorm, "Intermediate": BertIntermediate,
    "Output": DenseAddNorm, "Model": BaseModel,
}  # fmt: skip
_DISTILBERT, _MODERNBERT = (f"transformers.models.{m}.modeling_{m}." for m in ("distilbert", "modernbert"))
# full name of a stock class → its drop-in
CLASSES: dict[str, type[DropIn]] = {
    f"transformers.models.{module}.modeling_{module}.{prefix}{part}": drop_in
    for module, prefix in _BERT_LIKE.items()
    for part, drop_in in _PARTS.items()
} | {
    _DISTILBERT + "DistilBertSelfAttention": DistilBertSelfAttention,
    _DISTILBERT + "FFN": DistilBertFFN,
    _DISTILBERT + "TransformerBlock": DistilBertBlock,
    _DISTILBERT + "DistilBertModel": BaseModel,
    _MODERNBERT + "ModernBertAttention": ModernBertAttention,
    _MODERNBERT + "ModernBertMLP": ModernBertMLP,
    _MODERNBERT + "ModernBertEncoderLayer": ModernBertLayer,
    _MODERNBERT + "ModernBertModel": BaseModel,
}
_EMBEDDINGS = "runs once, and nn.Embedding gives its padding row no gradient"
# stock classes that the report names and leaves
LEFT: dict[str, str] = {
    f"transformers.models.{module}.modeling_{module}.{prefix}{part}": why
    for module, prefix in _BERT_LIKE.items()
    for part, why in (
        ("Embeddings", _EMBEDDINGS),
        ("CrossAttention", "cross-attention: the kernels are for self-attention"),
        ("SdpaSelfAttention", "an older transformers, which does not hand it the padding mask as it is"),
    )
} | {
    _DISTILBERT + "Embeddings": _EMBEDDINGS,
    _MODERNBERT + "ModernBertEmbeddings": _EMBEDDINGS,
    _DISTILBERT + "MultiHeadSelfAttention": "an older transformers, with another interface",
    _DISTILBERT + "DistilBertSdpaAttention": "an older transformers, with another interface",
}
