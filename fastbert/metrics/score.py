"""What every measure takes and gives: checked texts in, a figure with its signature out."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fastbert.system.errors import InputError

Language: TypeAlias = Literal["en", "pt"]
LANGUAGES = ("en", "pt")
References: TypeAlias = Sequence[str] | Sequence[Sequence[str | None]]


@dataclass(frozen=True)
class Score:
    """A figure for a list of texts, and all that is needed to get it again."""

    name: str
    score: float  # of the whole list
    scale: float  # what the best possible text gets: 1, 100, CIDEr's 10; inf for a perplexity, where low is good
    signature: str  # every setting, as sacrebleu writes it: "refs:1|case:mixed|tok:13a…"
    per_text: list[float] = field(default_factory=list)  # in the order of the hypotheses
    details: dict[str, float] = field(default_factory=dict)  # the parts of the figure: precision, recall …
    notes: tuple[str, ...] = ()  # what a reader must know, such as a stage that could not run

    def __float__(self) -> float:
        return self.score

    def record(self) -> dict[str, Any]:
        """The fields as a dictionary that JSON can hold."""
        return {
            "score": self.score, "scale": self.scale if self.scale != float("inf") else None,
            "signature": self.signature, "details": self.details, "notes": list(self.notes), "per_text": self.per_text,
        }  # fmt: skip


def signature(**settings: object) -> str:
    """``name:value|name:value``; yes and no for booleans, the package's version at the end."""
    from fastbert import __version__

    said = {name: {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            for name, value in settings.items()}  # fmt: skip
    return "|".join(f"{name}:{value}" for name, value in (said | {"fastbert": __version__}).items())


def paired(
    hypotheses: Sequence[str], references: References, *, allow_empty: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Check the texts and give every hypothesis a list of references.

    Args:
        hypotheses: texts.
        references: for each hypothesis a text, or a list of texts, as many for each; None where one is missing.
        allow_empty: texts without a word are taken as they are.

    Raises:
        InputError: no hypotheses, other numbers of references, or an empty text.
    """
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise InputError("hypotheses and references are lists of texts: put a single text in a list")
    if not hypotheses:
        raise InputError("no hypotheses: give at least one text to be measured")
    if len(hypotheses) != len(references):
        turned = references and all(not isinstance(r, str) and len(r or ()) == len(hypotheses) for r in references)
        remedy = ": yours are lists of all first references, all second …; list(zip(*references)) turns them"
        raise InputError(
            f"{len(hypotheses)} hypotheses and references for {len(references)}: give, in the same order, a reference "
            f"(or a list of references) for each hypothesis{remedy if turned else ''}"
        )
    lists = [[given] if isinstance(given, str) else list(given or ()) for given in references]
    wanted = len(lists[0])
    for number, (hypothesis, listed) in enumerate(zip(hypotheses, lists, strict=True), start=1):
        if not isinstance(hypothesis, str):
            raise InputError(f"hypothesis {number} is {type(hypothesis).__name__}: expected a text")
        if len(listed) != wanted:
            raise InputError(
                f"hypothesis {number} has {len(listed)} references and the first has {wanted}: "
                "give as many for each (None where there is none)"
            )
        if wrong := next((r for r in listed if r is not None and not isinstance(r, str)), None):
            raise InputError(f"a reference of hypothesis {number} is {type(wrong).__name__}: expected a text")
        texts = [text for text in listed if text is not None]
        if not texts:
            raise InputError(f"hypothesis {number} has no reference: give at least one")
        if not allow_empty and not hypothesis.strip():
            raise InputError(f"hypothesis {number} is empty: leave the text out, or allow empty ones (they score 0)")
        if not allow_empty and not all(text.strip() for text in texts):
            raise InputError(f"a reference of hypothesis {number} is empty: give its text, or None for a missing one")
        lists[number - 1] = texts
    return list(hypotheses), [[text for text in listed if text is not None] for listed in lists]


def check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise InputError(f"language {language!r}: expected one of {', '.join(LANGUAGES)}")


def library(module: str, package: str | None = None) -> Any:
    """Import what a measure needs.

    Raises:
        InputError: it is not installed; names the way to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = package or module
        raise InputError(f'{name} is not installed: pip install "fastbert[metrics]" (or pip install {name})') from None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
