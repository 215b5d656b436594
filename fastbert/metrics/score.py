"""What all measures share: checked texts, and a score with its signature."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fastbert.system.errors import InputError

ANY = "any"  # no stems, articles or synonyms; words of all scripts
Language: TypeAlias = Literal["en", "pt", "any"]
LANGUAGES = ("en", "pt", ANY)
References: TypeAlias = Sequence[str] | Sequence[Sequence[str | None]]


@dataclass(frozen=True)
class Score:
    """The score of a list of texts, with everything needed to reproduce it."""

    name: str
    score: float  # of the whole list
    scale: float  # the best possible score: 1, 100, CIDEr's 10; inf for a perplexity, where lower is better
    signature: str  # every setting, as sacrebleu writes it: "refs:1|case:mixed|tok:13a…"
    per_text: list[float] = field(default_factory=list)  # in the order of the hypotheses
    details: dict[str, float] = field(default_factory=dict)  # components: precision, recall …
    notes: tuple[str, ...] = ()  # caveats, such as a stage that could not run

    def __float__(self) -> float:
        return self.score

    def record(self) -> dict[str, Any]:
        """The fields as a JSON-compatible dictionary."""
        return {
            "score": self.score, "scale": self.scale if self.scale != float("inf") else None,
            "signature": self.signature, "details": self.details, "notes": list(self.notes), "per_text": self.per_text,
        }  # fmt: skip


def signature(**settings: object) -> str:
    """``name:value|name:value``; yes and no for booleans, and the package's version at the end."""
    from fastbert import __version__

    shown = {name: {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
             for name, value in settings.items()}  # fmt: skip
    return "|".join(f"{name}:{value}" for name, value in (shown | {"fastbert": __version__}).items())


def paired(
    hypotheses: Sequence[str], references: References, *, allow_empty: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Check the texts and pair every hypothesis with its list of references.

    Args:
        hypotheses: texts.
        references: for each hypothesis a text, or a list of texts of the same length for each; None for a missing one.
        allow_empty: accept texts without a word.

    Raises:
        InputError: no hypotheses, a different number of references, or an empty text.
    """
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise InputError("hypotheses and references: expected lists of texts. Try: a single text in a list")
    if not hypotheses:
        raise InputError("no hypotheses. Try: at least one text")
    if len(hypotheses) != len(references):
        turned = references and all(not isinstance(r, str) and len(r or ()) == len(hypotheses) for r in references)
        remedy = ". These are lists of all first references, all second …; list(zip(*references)) transposes them"
        raise InputError(
            f"{len(hypotheses)} hypotheses and references for {len(references)}. Try: a reference (or a list of "
            f"references) for each hypothesis, in the same order{remedy if turned else ''}"
        )
    lists = [[given] if isinstance(given, str) else list(given or ()) for given in references]
    expected = len(lists[0])
    for number, (hypothesis, listed) in enumerate(zip(hypotheses, lists, strict=True), start=1):
        if not isinstance(hypothesis, str):
            raise InputError(f"hypothesis {number} is {type(hypothesis).__name__}: expected a text")
        if len(listed) != expected:
            raise InputError(
                f"hypothesis {number} has {len(listed)} references and the first has {expected}. "
                "Try: the same number for each, with None for missing ones"
            )
        if wrong := next((r for r in listed if r is not None and not isinstance(r, str)), None):
            raise InputError(f"a reference of hypothesis {number} is {type(wrong).__name__}: expected a text")
        texts = [text for text in listed if text is not None]
        if not texts:
            raise InputError(f"hypothesis {number} has no reference. Try: at least one")
        if not allow_empty and not hypothesis.strip():
            raise InputError(f"hypothesis {number} is empty. Try: allow_empty, which scores it 0")
        if not allow_empty and not all(text.strip() for text in texts):
            raise InputError(f"a reference of hypothesis {number} is empty. Try: None for a missing one")
        lists[number - 1] = texts
    return list(hypotheses), [[text for text in listed if text is not None] for listed in lists]


def check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise InputError(f"language {language!r}: expected one of {', '.join(LANGUAGES)}")


def library(module: str, package: str | None = None) -> Any:
    """Import a package that a measure needs.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = package or module
        raise InputError(f'{name} is not installed. Try: pip install "fastbert[metrics]", or {name} alone') from None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
