"""A model prepared to be read from: its encoder in float32 or bfloat16, with weights laid out once.

What a :class:`Reader` holds are copies. Each call looks whether the model is still the one that was copied, so a model
that is trained further, or moved, is never answered for by its past.

Legend: T packed tokens, M rows, D hidden_size, V vocabulary.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastbert import ops
from fastbert.batch import PackedBatch, inference_tokens
from fastbert.layers import EncoderLayer
from fastbert.model import BertForPreTraining
from fastbert.reference import rotary_tables
from fastbert.system.errors import InputError

Precision = Literal["auto", "fp32", "bf16"]


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What hidden states are computed in: "auto" is bfloat16 on a CPU with instructions for it, else float32.

    Raises:
        InputError: unknown precision.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision={precision!r}: expected one of {', '.join(get_args(Precision))}")
    if precision == "auto":
        precision = "bf16" if device.type == "cpu" and ops.bf16_is_quick() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


class Reader:
    """Hidden states of a model in evaluation, without a graph.

    Args:
        model: the weights are read again when they change.
        dtype: torch.float32 or torch.bfloat16. On a CPU where the C++ kernels run, matrices are copied in that dtype
            and in oneDNN's layout; elsewhere the model itself runs, for bfloat16 under autocast.
    """

    def __init__(self, model: BertForPreTraining, dtype: torch.dtype):
        self.model, self.dtype = model, dtype
        self._watched: list[nn.Parameter] = []
        self._modules: list[nn.Module] = []
        self._samples: list[Tensor] = []
        self._state: object = None
        self._encoder: ops.InferenceEncoder | None = None

    def __reduce__(self) -> tuple:
        return Reader, (self.model, self.dtype)  # oneDNN's blocks cannot be copied; whoever needs them makes them anew

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
        angles: dict[bool, tuple[Tensor, Tensor] | None] = {True: None, False: None}
        if config.position == "rope":
            for everywhere, theta in ((True, config.rope_theta), (False, config.local_rope_theta)):
                angles[everywhere] = rotary_tables(batch.position_ids, config.head_dim, theta, torch.float32)
        each = [angles[config.is_global_layer(i)] for i in range(config.num_hidden_layers)]
        return self._encoder(hidden, batch.cu_seqlens, each, rows)

    # ---- copies ----
    def _prepared(self) -> bool:
        """Whether the copies are the model's, made now if need be."""
        if (state := self._current()) != self._state or state is None:
            self._modules = list(self.model.encoder.modules())
            self._watched = list(self.model.encoder.parameters())
            self._encoder = self._copy()
            # one element of each: optimizers that write without counting it change them
            self._samples = [] if self._encoder is None else [_middle(p) for p in self._watched]
            self._state = self._current()
        return self._encoder is not None

    def _current(self) -> object:
        if not self._watched:
            return None
        places = [p.data_ptr() for p in self._watched]
        counts = [0 if p.is_inference() else p._version for p in self._watched]
        values = torch.cat(self._samples).tolist() if self._samples else []
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)
        return places, counts, values, hooked, ops.wished()

    def _copy(self) -> "ops.InferenceEncoder | None":
        model = self.model
        if any(module._forward_hooks or module._forward_pre_hooks for module in self._modules):
            return None  # copies would not call them
        config, encoder = model.config, model.encoder
        norm = None if encoder.norm is None else (encoder.norm.weight, encoder.norm.bias)
        tokens = inference_tokens(self._watched[0].device)
        layers = [_parameters(layer) for layer in encoder.layers]
        return ops.inference_encoder(layers, norm, config.num_attention_heads, self.dtype, tokens, impl=model.impl)


def _middle(parameter: Tensor) -> Tensor:
    flat = parameter.detach().view(-1)
    return flat[flat.numel() // 2 :][:1]


def _parameters(layer: nn.Module) -> "ops.LayerParameters":
    assert isinstance(layer, EncoderLayer)
    attention, feed_forward, norm = layer.attention, layer.feed_forward, layer.attention_norm

    def pair(module: nn.Linear | nn.LayerNorm) -> tuple[Tensor, Tensor | None]:
        return module.weight, module.bias

    return ops.LayerParameters(
        None if norm is None else pair(norm),
        pair(attention.qkv),
        pair(attention.out),
        pair(layer.feed_forward_norm),
        pair(feed_forward.up),
        pair(feed_forward.down),
        attention.window,
        feed_forward.glu,
        feed_forward.approximate == "none",
        layer.feed_forward_norm.eps,
    )
