"""Which optimizer updates which parameter."""

from collections.abc import Iterable

from torch import Tensor, nn

from fastbert.config import BertConfig


def uses_muon(name: str, parameter: Tensor) -> bool:
    """Whether Muon may update it: a matrix between hidden states, not an embedding, a head, a bias or a gain."""
    return name.startswith("encoder.layers.") and parameter.ndim == 2


def fused_projections(name: str, config: BertConfig) -> int:
    """Number of projections stacked in a matrix: three for Q, K and V, two for the gate and value of a GLU, else 1."""
    if name.endswith("attention.qkv.weight"):
        return 3
    return 2 if name.endswith("feed_forward.up.weight") and config.mlp == "geglu" else 1


def split_param_groups(
    named: Iterable[tuple[str, nn.Parameter]], optimizer: str
) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
    """Named parameters for Muon (none if ``optimizer`` is "adamw") and those for AdamW."""
    named = list(named)
    hidden = [(n, p) for n, p in named if optimizer == "muon" and uses_muon(n, p)]
    taken = {n for n, _ in hidden}
    return hidden, [(n, p) for n, p in named if n not in taken]
