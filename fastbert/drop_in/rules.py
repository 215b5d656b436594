"""What the drop-in modules agree on: when an op is worth calling, and which modules may be read past.

A drop-in class (huggingface.py, torch_encoder.py) stands before a stock class in the method resolution order
and overrides ``forward``; ``super().forward`` is the stock code, which runs whenever the fast one cannot serve.
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastbert import ops


class Settings(NamedTuple):
    """How one model was accelerated; every drop-in module carries it as ``_fastbert``."""

    impl: str = "auto"
    drop_padding: bool = False


def serves(settings: Settings, op: str, **tensors: Tensor | None) -> bool:
    """False where the op would only be its reference: then the stock code is as good, and often quicker.

    An implementation asked for by name is taken whatever it is, or raises.
    """
    return settings.impl != "auto" or ops.choose(op, "auto", tensors)[0] != "reference"


def plain(module: Any, kind: type[nn.Module]) -> bool:
    """True for exactly this class without hooks: then its weights may be used without calling it.

    LoRA, quantisation, pruning and parametrisations replace the class or hang hooks on it.
    """
    return type(module) is kind and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def active_dropout(module: nn.Module) -> float:
    """Probability that a dropout module applies now."""
    return getattr(module, "p", 0.0) if module.training else 0.0


def add_norm(settings: Settings, x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout_p: float, **rest: Any):
    """``norm(residual + dropout(x))`` through the dispatch point."""
    return ops.add_layer_norm(
        x, residual, norm.weight, norm.bias, norm.eps, dropout_p=dropout_p, impl=settings.impl, **rest
    )


def project_and_activate(settings: Settings, dense: Any, x: Tensor, approximate: str, gated: bool = False):
    """GELU, or GeGLU, of ``dense(x)``; a plain Linear's bias is added, and its gradient summed, by the kernel."""
    activation = ops.geglu if gated else ops.bias_gelu
    if plain(dense, nn.Linear) and dense.bias is not None:
        up = F.linear(x, dense.weight)
        return activation(up, dense.bias.to(up.dtype), approximate, impl=settings.impl)
    return activation(dense(x), None, approximate, impl=settings.impl)
