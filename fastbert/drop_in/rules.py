"""Rules shared by the drop-in modules: when calling an op pays, and which modules may be read past.

A drop-in class (huggingface.py, torch_encoder.py) precedes a stock class in the method resolution order and overrides
``forward``; ``super().forward`` is the stock code, which runs whenever the fast one is unsupported.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from fastbert import ops
from fastbert.ops import modules
from fastbert.ops.modules import all_stock as all_stock


class Settings(NamedTuple):
    """How one model was accelerated; every drop-in module carries it as ``_fastbert``."""

    impl: str = "auto"
    drop_padding: bool = False


def is_faster(settings: Settings, op: str, **tensors: Tensor | None) -> bool:
    """False where the op would run its reference: then the stock code is as good, and often faster.

    An implementation requested by name runs whatever it is, or raises.
    """
    return settings.impl != "auto" or ops.choose(op, "auto", tensors)[0] != "reference"


def active_dropout(module: nn.Module) -> float:
    """The probability that a dropout module applies now."""
    return getattr(module, "p", 0.0) if module.training else 0.0


def add_norm(settings: Settings, x: Tensor, residual: Tensor, norm: nn.LayerNorm, dropout_p: float, **rest: Any):
    """``norm(residual + dropout(x))``."""
    return modules.add_norm(norm, x, residual, dropout_p=dropout_p, impl=settings.impl, **rest)


def project_and_activate(settings: Settings, dense: Any, x: Tensor, approximate: str, gated: bool = False) -> Tensor:
    """GELU, or GeGLU, of ``dense(x)``."""
    return modules.project_and_activate(dense, x, approximate, gated=gated, impl=settings.impl)
