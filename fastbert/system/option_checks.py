"""Checks of a command's options, whose names are those of the command line with underscores for dashes."""

from collections.abc import Callable
from typing import Any

from fastbert.system.errors import InputError


def flag(name: str) -> str:
    """``batch_tokens`` → ``--batch-tokens``."""
    return f"--{name.replace('_', '-')}"


def require(options: Any, expected: str, holds: Callable[[Any], bool], *names: str) -> None:
    """Refuse the first of the named options that is not None and for which ``holds`` is false (as it is for NaN).

    Raises:
        InputError: with the option, its value, and what was ``expected``.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not holds(value):
            raise InputError(f"{flag(name)} {value}: expected {expected}")


def require_positive(options: Any, *names: str) -> None:
    require(options, "a positive number", lambda value: 0 < value < float("inf"), *names)


def require_count(options: Any, *names: str) -> None:
    require(options, "at least 1", lambda value: value >= 1, *names)


def require_seed(options: Any) -> None:
    """Of PyTorch's generators."""
    require(options, "0 or more, below 2^63", lambda seed: 0 <= seed < 2**63, "seed")
