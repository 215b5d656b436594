"""The methods of ``Bert.fill_mask``: token ids in, the dictionaries that users see out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fastbert.inference import exact_fill, fill_mask
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

Method = Literal["independent", "best-first", "beam", "exact"]


@dataclass(frozen=True)
class FillOptions:
    """What to fill in and how; see :meth:`fastbert.bert.Bert.fill_mask`."""

    top_k: int
    method: Method
    candidates: fill_mask.Candidates | None
    beam: int
    max_pieces: int
    passes: int

    def __post_init__(self) -> None:
        for name in ("top_k", "beam", "max_pieces", "passes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.method not in get_args(Method):
            raise InputError(f"method={self.method!r}: expected one of {', '.join(get_args(Method))}")


def fill(
    model: BertForPreTraining, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], options: FillOptions
) -> list[list]:
    """The answers for each row of token ids: guesses per mask ("independent"), or joint fillings."""

    def templates(ids: Sequence[int], only: int | None = None) -> list[fill_mask.Template]:
        return fill_mask.templates(
            tokenizer, ids, candidates=options.candidates, max_pieces=options.max_pieces, only=only,
            max_length=model.config.max_position_embeddings,
        )  # fmt: skip

    top_k, width = options.top_k, max(options.beam, options.top_k)
    if options.method == "exact":
        proven = exact_fill.fill_exactly(
            model, tokenizer, [templates(ids) for ids in rows], count=top_k, beam=options.beam, passes=options.passes
        )
        return [
            [fill_mask.as_dictionary(tokenizer, best) | {"proven": is_proven} for best in fillings]
            for fillings, is_proven in proven
        ]
    if options.method != "independent":
        best_first = options.method == "best-first"
        found = fill_mask.fill_together(
            model, tokenizer, [templates(ids) for ids in rows], width=top_k if best_first else width,
            best_first=best_first,
        )  # fmt: skip
        return [[fill_mask.as_dictionary(tokenizer, best) for best in fillings[:top_k]] for fillings in found]
    if options.candidates is None and options.max_pieces == 1:
        return fill_mask.independent(model, tokenizer, rows, top_k)
    # words of several pieces for one mask at a time, the other masks stay
    masks = [list(ids).count(tokenizer.mask_id) for ids in rows]
    problems = [templates(ids, only) for ids, count in zip(rows, masks, strict=True) for only in range(count)]
    each: Any = iter(fill_mask.fill_together(model, tokenizer, problems, width=width))
    return [[[fill_mask.as_guess(tokenizer, best) for best in next(each)[:top_k]] for _ in range(n)] for n in masks]
