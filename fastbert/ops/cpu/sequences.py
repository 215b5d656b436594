"""How the tokens of a packed batch form sequences, and which of them attend to each other."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Sequences of a packed batch with the settings of their attention."""

    num_heads: int
    cu_seqlens: Tensor  # (B + 1,) int32
    window: int | None = None
    cos: Tensor | None = None  # (T, H / 2) float32
    sin: Tensor | None = None
    dropout_p: float = 0.0  # of attention weights
    seed: int = 0
    out_dropout_p: float = 0.0  # of the output, before the residual
    out_seed: int = 0
