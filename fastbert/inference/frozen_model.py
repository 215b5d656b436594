"""Inference-only copy of an encoder in float32 or bfloat16; refreshed automatically when the model's weights change.

Legend: T packed tokens, M rows, D hidden_size, V vocabulary.
"""

import operator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from fastbert import ops
from fastbert.batch import PackedBatch, inference_tokens
from fastbert.layers import Encoder, EncoderLayer
from fastbert.model import BertForPreTraining
from fastbert.ops.modules import HOOKS, all_stock
from fastbert.system.devices import quick_at_bf16
from fastbert.system.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]
_SAMPLES = 64  # elements compared of each weight


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of hidden states: "auto" is bfloat16 on a device with instructions for it, else float32.

    Raises:
        InputError: unknown precision.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision!r}: expected one of {', '.join(get_args(Precision))}")
    if precision == "auto":
        precision = "bf16" if quick_at_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


class FrozenModel:
    """Hidden states of a model in evaluation, without a graph.

    Args:
        model: its weights are copied again when they change.
        dtype: torch.float32 or torch.bfloat16. On a CPU where the C++ kernels run, matrices are copied in that dtype
            and oneDNN's layout; elsewhere the model itself runs, under autocast for bfloat16.
    """

    def __init__(self, model: BertForPreTraining, dtype: torch.dtype):
        self.model, self.dtype = model, dtype
        self._state: object = None
        self._tree: _ModuleTree | None = None  # which the next two belong to
        self._layers: list[ops.LayerParameters] | None = None
        self._weights: list[tuple[Tensor, Tensor]] = []  # each with a view of some of its elements
        self._encoder: ops.InferenceEncoder | None = None

    def __reduce__(self) -> tuple:
        return FrozenModel, (self.model, self.dtype)  # oneDNN's packed weights cannot be copied

    def encode(self, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        """As :meth:`BertForPreTraining.encode`: (T, D), or with ``rows`` (M, D), in :attr:`dtype`."""
        model = self.model
        if not self._prepared():
            with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                return model.encode(batch, rows)
        assert self._encoder is not None
        model.check_length(batch)
        config = model.config
        hidden = model.embeddings(batch.input_ids, batch.position_ids, batch.token_type_ids)
        angles = model.encoder._rotary(batch.position_ids, torch.float32)
        each = [angles[config.is_global_layer(i)] for i in range(len(model.encoder.layers))]
        return self._encoder(hidden, batch.cu_seqlens, each, rows)

    # ---- copies ----
    def _prepared(self) -> bool:
        """Whether a prepared encoder serves the model as it is now; copied again after a change."""
        if self.model.device.type != "cpu":  # the kernels there take the model's own weights
            return False
        # described once for a tree: a short text takes a millisecond
        if self._tree is None or self._tree.root is not self.model.encoder or not self._tree.is_current():
            self._tree, self._layers, self._state = _ModuleTree(self.model.encoder), _describe(self.model), None
        if self._layers is None:
            self._encoder = None
        elif self._state is None or self._state != self._fingerprint():
            self._weights = [(p, _sample(p)) for p in self._layer_weights(self._layers)]
            self._encoder, self._state = self._copy(self._layers), self._fingerprint()
        return self._encoder is not None

    def _layer_weights(self, layers: "list[ops.LayerParameters]") -> list[Tensor]:
        norm = self.model.encoder.norm
        last = () if norm is None else (norm.weight, norm.bias)
        return [*_weights_of(layers), *(tensor for tensor in last if tensor is not None)]

    def _fingerprint(self) -> object:
        """Everything that a copy depends on, and some elements of each weight: not every write is counted."""
        counts = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p, _ in self._weights]
        # the view of a weight that is not contiguous is a copy
        samples = [sample if p.is_contiguous() else _sample(p) for p, sample in self._weights]
        return counts, torch.cat(samples).tolist(), self.model.impl, ops.requested_impl()

    def _copy(self, layers: "list[ops.LayerParameters]") -> "ops.InferenceEncoder | None":
        model, norm = self.model, self.model.encoder.norm
        last = None if norm is None else (norm.weight, norm.bias)
        tokens = inference_tokens(model.device)
        return ops.inference_encoder(
            layers, last, model.config.num_attention_heads, self.dtype, tokens, impl=model.impl
        )


def _sample(parameter: Tensor) -> Tensor:
    """Some elements: a view, of a weight that is not contiguous a copy."""
    flat = parameter.detach().reshape(-1)
    return flat[:: max(flat.numel() // _SAMPLES, 1)]


class _ModuleTree:
    """What decides how a module and those inside it compute, values of weights aside, compared by identity."""

    def __init__(self, root: nn.Module):
        self.root = root
        self._kept = []
        for module in root.modules():
            values = vars(module)
            contents = tuple(tuple(values[name].values()) for name in ("_parameters", "_modules"))
            self._kept.append((module, type(module), values, tuple(values.values()), contents))

    def is_current(self) -> bool:
        """Whether no class, attribute, parameter or child was replaced, and no hook added."""
        if torch_module._has_any_global_hook():
            return False
        for module, kind, values, attributes, (parameters, children) in self._kept:
            if type(module) is not kind or not _same(values, attributes) or any(map(values.__getitem__, HOOKS)):
                return False
            if not (_same(values["_parameters"], parameters) and _same(values["_modules"], children)):
                return False
        return True


def _same(values: dict, kept: tuple) -> bool:
    return len(values) == len(kept) and all(map(operator.is_, values.values(), kept))


def _weights_of(layers: "list[ops.LayerParameters]") -> list[Tensor]:
    pairs = [
        pair
        for layer in layers
        for pair in (layer.attention_norm, layer.qkv, layer.out, layer.feed_forward_norm, layer.up, layer.down)
    ]
    return [tensor for pair in pairs if pair is not None for tensor in pair if tensor is not None]


def _describe(model: BertForPreTraining) -> "list[ops.LayerParameters] | None":
    """Weights and settings of every layer; None where a module is not stock, which a copy would not call."""
    encoder = model.encoder
    found = []
    for layer in encoder.layers:
        if not isinstance(layer, EncoderLayer):
            return None
        attention, feed_forward, norms = layer.attention, layer.feed_forward, [layer.feed_forward_norm]
        norms += [] if layer.attention_norm is None else [layer.attention_norm]
        norms += [] if encoder.norm is None else [encoder.norm]
        stock = all_stock(
            (encoder, Encoder), (layer, EncoderLayer), *layer._parts(), *((norm, nn.LayerNorm) for norm in norms),
            *((linear, nn.Linear) for linear in (attention.qkv, attention.out, feed_forward.up, feed_forward.down)),
        )  # fmt: skip
        if not stock or len({norm.eps for norm in norms}) > 1:  # a prepared layer has one eps
            return None
        found.append(
            ops.LayerParameters(
                None if layer.attention_norm is None else (layer.attention_norm.weight, layer.attention_norm.bias),
                (attention.qkv.weight, attention.qkv.bias),
                (attention.out.weight, attention.out.bias),
                (layer.feed_forward_norm.weight, layer.feed_forward_norm.bias),
                (feed_forward.up.weight, feed_forward.up.bias),
                (feed_forward.down.weight, feed_forward.down.bias),
                attention.window,
                feed_forward.glu,
                feed_forward.approximate == "none",
                layer.feed_forward_norm.eps,
            )
        )
    return found or None
