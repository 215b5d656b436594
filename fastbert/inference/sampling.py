"""How a text is sampled from a masked language model: the options of ``Bert.generate`` and of the command."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastbert.system.cli import unset
from fastbert.system.errors import InputError

Order = Literal["confidence", "random", "left-to-right"]


@dataclass(frozen=True)
class Sampling:
    """How texts are sampled."""

    steps: Annotated[int | None, unset("N")] = None
    """Denoising steps (default: one for each mask; fewer are faster and coarser)."""
    temperature: float = 0.7
    """Sampling temperature; 0 always takes the most probable token."""
    top_p: float = 0.9
    """Sample from the most probable tokens that together have this probability."""
    order: Order = "confidence"
    """Which proposals a step keeps: the most confident, random ones, or the leftmost."""
    remask: bool = False
    """Let later steps mask the least confident tokens again."""
    block: Annotated[int | None, unset("N")] = None
    """Finish this many tokens, from the left, before the next ones begin (default: all at once)."""
    gibbs: int = 0
    """Gibbs sweeps over the finished text: each token is sampled again given all others."""
    repetition_penalty: float = 1.2
    """Makes tokens that the text already has less probable; 1: no penalty."""
    no_repeat_ngram: int = 3
    """No n-gram of this length twice, and no token twice in a row; 0: no limit."""
    seed: int = 0
    """Random seed; the same seed and options give the same text."""

    def check(self) -> None:
        def refuse(name: str, expected: str) -> None:
            raise InputError(f"{name}={getattr(self, name)!r}: expected {expected}")

        if self.steps is not None and self.steps < 1:
            refuse("steps", "at least 1, or None for one a mask")
        if not self.temperature >= 0:
            refuse("temperature", "0 or more")
        if not 0 < self.top_p <= 1:
            refuse("top_p", "a probability above 0, at most 1")
        if self.order not in get_args(Order):
            refuse("order", f"one of {', '.join(get_args(Order))}")
        if self.block is not None and self.block < 1:
            refuse("block", "at least 1 token, or None")
        if self.gibbs < 0:
            refuse("gibbs", "0 or more sweeps")
        if not self.repetition_penalty > 0:
            refuse("repetition_penalty", "a positive number")
        if self.no_repeat_ngram < 0:
            refuse("no_repeat_ngram", "0 or more tokens")
        if not 0 <= self.seed < 2**63:
            refuse("seed", "0 or more, below 2^63")
