"""Inference-only copy of an encoder in float32 or bfloat16; refreshed automatically when the model's weights change.

Legend: T packed tokens, M rows, D hidden_size, V vocabulary.
"""

import threading
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert import ops
from fastbert.batch import PackedBatch, inference_tokens, pack_rows, row_multiple
from fastbert.layers import Encoder, EncoderLayer
from fastbert.model import BertForPreTraining
from fastbert.ops.modules import all_stock
from fastbert.ops.snapshot import Snapshot
from fastbert.system import native
from fastbert.system.devices import quick_at_bf16
from fastbert.system.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "int8"]
SAMPLES = 8  # texts of random tokens


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of hidden states: "auto" is bfloat16 on a device with instructions for it, else float32.

    "int8", on a CPU only, is as "auto".

    Raises:
        InputError: unknown precision, or one that the device has not.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision!r}: expected one of {', '.join(get_args(Precision))}")
    if precision == "int8" and device.type != "cpu":
        raise InputError(f"precision={precision!r}: for a CPU only, not {device.type}. Try: auto")
    if precision in ("auto", "int8"):
        precision = "bf16" if quick_at_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


class FrozenModel:
    """Hidden states of a model in evaluation, without a graph.

    Args:
        model: its weights are copied again when they change.
        dtype: torch.float32 or torch.bfloat16. On a CPU where the C++ kernels run, matrices are copied in that dtype
            and packed; elsewhere the model itself runs, under autocast for bfloat16.
        int8: matrices are quantized, see :func:`fastbert.load`.
    """

    def __init__(self, model: BertForPreTraining, dtype: torch.dtype, int8: bool = False):
        self.model, self.dtype, self.int8 = model, dtype, int8
        self._source: object = None  # what the encoder below was made from
        self._snapshot: Snapshot | None = None
        self._encoder: ops.InferenceEncoder | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return FrozenModel, (self.model, self.dtype, self.int8)  # packed weights cannot be copied

    def encode(self, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        """As :meth:`BertForPreTraining.encode`: (T, D), or with ``rows`` (M, D), in :attr:`dtype`.

        Raises:
            InputError: with ``int8``, where no kernel of ours serves the model.
        """
        model = self.model
        encoder = self._prepared()
        if encoder is None:
            if self.int8:
                raise InputError("precision='int8': takes our C++ kernels and layers without changes. Try: auto")
            with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                return model.encode(batch, rows).to(self.dtype)  # norms give float32 under autocast
        model.check_length(batch)
        hidden, each = self._embedded(batch)
        if not encoder.compiles:
            return encoder(hidden, batch.cu_seqlens, each, rows)
        # whole blocks of rows: without them oneDNN compiles code for every number of tokens that a server meets
        wanted = batch.num_tokens if rows is None else len(rows)
        hidden = F.pad(hidden, (0, 0, 0, -batch.num_tokens % row_multiple(batch.num_tokens)))
        rows = None if rows is None else F.pad(rows, (0, -wanted % row_multiple(wanted)))
        return encoder(hidden, batch.cu_seqlens, each, rows)[:wanted]

    def _embedded(self, batch: PackedBatch) -> tuple[Tensor, list]:
        """What an encoder gets: hidden states, and every layer's angles."""
        model = self.model
        hidden = model.embeddings(batch.input_ids, batch.position_ids, batch.token_type_ids)
        angles = model.encoder._rotary(batch.position_ids, torch.float32)
        return hidden, [angles[model.config.is_global_layer(i)] for i in range(len(model.encoder.layers))]

    # ---- copies ----
    def _prepared(self) -> "ops.InferenceEncoder | None":
        """The encoder prepared from the model as it is now, copied again after a change; None where none serves it."""
        # elsewhere the kernels take the model's own weights
        if self.model.device.type != "cpu" or not native.status()[0]:
            return None
        source = self.model.encoder, self.model.impl, ops.requested_impl()
        with self._lock:  # a server asks from several threads
            if self._snapshot is None or self._source != source or not self._snapshot.is_current():
                snapshot = Snapshot(self.model.encoder)
                self._encoder = self._copy()  # refused once, refused again
                self._source, self._snapshot = source, snapshot
            return self._encoder

    def _copy(self) -> "ops.InferenceEncoder | None":
        model, norm = self.model, self.model.encoder.norm
        layers = _describe(model)
        if layers is None:
            return None
        last = None if norm is None else (norm.weight, norm.bias)
        heads, tokens = model.config.num_attention_heads, inference_tokens(model.device)
        sample, dtype = (self._sample(), torch.float32) if self.int8 else (None, self.dtype)
        return ops.inference_encoder(layers, last, heads, dtype, tokens, sample, impl=model.impl)

    def _sample(self) -> ops.Sample:
        """Random tokens, whose columns of great values are those of any text's, as an encoder gets them."""
        config, length = self.model.config, min(32, self.model.config.max_position_embeddings)
        random = np.random.default_rng(0)
        batch = pack_rows(list(random.integers(0, config.vocab_size, (SAMPLES, length))))
        with torch.no_grad():
            hidden, angles = self._embedded(batch)
        return hidden, batch.cu_seqlens, angles


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
        if not stock or attention.num_heads != model.config.num_attention_heads:
            return None
        if len({norm.eps for norm in norms}) > 1:  # a prepared layer has one eps
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
