"""Filling [MASK]s, independently or jointly.

A masked language model has no single joint probability of several masked tokens, but one for every order of filling
them. Here the order is "most confident next": of the remaining masks, the one whose best token is most likely is
filled, then the others are predicted again. The tokens filled so far determine the next position, so every filling is
reached in exactly one way, and the products of the conditional probabilities sum to 1 over all fillings: a true joint
distribution, comparable between any two fillings of a text. (Words of different numbers of pieces need different
numbers of masks; these are compared by their log-probabilities as usual.)

Legend: V vocabulary, M masked rows of a batch, S unfinished fillings.

Reference: Ghazvininejad et al., Mask-Predict, 2019 (easiest first); Salazar et al. 2020.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastbert.batch import PackedBatch, by_token_budget, inference_tokens, pack_rows
from fastbert.inference.masked_lm import predict
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

MAX_ROWS = 2048  # masked rows of a batch: their logits are (M, V)
MAX_TEMPLATES = 512

Pieces = tuple[int, ...]
Candidates = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Template:
    """A text with one [MASK] for every piece of the words to fill in."""

    ids: Pieces
    slots: tuple[tuple[int, ...], ...]  # the positions of each word
    words: tuple[tuple[Pieces, ...] | None, ...]  # candidates of each word; None: any
    whole_words: bool  # a free word is one initial piece and then "##" pieces


@dataclass(frozen=True)
class Filling:
    """A template with all or some of its masks filled."""

    template: Template
    ids: Pieces
    open: tuple[int, ...]  # positions still masked
    log_score: float = 0.0

    @classmethod
    def begin(cls, template: Template) -> "Filling":
        """Nothing filled yet."""
        return cls(template, template.ids, tuple(itertools.chain(*template.slots)))

    def with_token(self, position: int, token: int, log_prob: float) -> "Filling":
        ids = (*self.ids[:position], token, *self.ids[position + 1 :])
        return Filling(self.template, ids, tuple(p for p in self.open if p != position), self.log_score + log_prob)

    def with_most_likely(self, position: int, tokens: Tensor, log_probs: Tensor, count: int) -> "list[Filling]":
        """Fill a position with the ``count`` most likely of the allowed ``tokens`` (K,), in order."""
        values, order = log_probs.topk(min(count, len(tokens)))
        return [
            self.with_token(position, token, value)
            for token, value in zip(tokens[order].tolist(), values.tolist(), strict=True)
        ]

    def allowed(self, position: int) -> list[int] | None:
        """The tokens that the candidates allow at a position; None: any."""
        for slot, words in zip(self.template.slots, self.template.words, strict=True):
            if position in slot and words is not None:
                filled = [i for i, other in enumerate(slot) if other not in self.open]
                fitting = [word for word in words if all(word[i] == self.ids[slot[i]] for i in filled)]
                return sorted({word[slot.index(position)] for word in fitting})
        return None

    def words(self) -> list[list[int]]:
        """The tokens of each word."""
        return [[self.ids[position] for position in slot] for slot in self.template.slots]


# ---- independently ----
def independent(
    model: BertForPreTraining, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], top_k: int
) -> list[list[list[dict]]]:
    """Guess every [MASK] given the text with all its [MASK]s: for each row, for each mask, ``top_k`` dictionaries."""
    answers = []
    with torch.inference_mode():
        masks = [[i for i, token in enumerate(ids) if token == tokenizer.mask_id] for ids in rows]
        for part, batch in _batches(model, rows, masks):
            probabilities = predict(model, batch).float().softmax(-1)
            scores, tokens = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
            guesses = iter(zip(scores.tolist(), tokens.tolist(), strict=True))
            for ids, positions in zip(rows[part], masks[part], strict=True):
                answers.append(
                    [
                        [_guess(tokenizer, ids, position, *pair) for pair in zip(*next(guesses), strict=True)]
                        for position in positions
                    ]
                )
    return answers


def _guess(tokenizer: Tokenizer, ids: Sequence[int], position: int, score: float, token: int) -> dict:
    filled = [*ids[:position], token, *ids[position + 1 :]]
    return {
        "score": score,
        "token": token,
        "token_str": tokenizer.piece_text(token),
        "sequence": readable_ids(tokenizer, filled),
    }


def readable_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of ids without [CLS], [SEP] and [PAD]; [MASK] and [UNK] are shown."""
    hidden = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
    return tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False)


def _batches(
    model: BertForPreTraining, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Iterator[tuple[slice, PackedBatch]]:
    """Consecutive rows that make one batch, with the given positions of each row as masked rows."""
    budget, counts = inference_tokens(model.device), [len(each) for each in positions]
    for part in by_token_budget([len(row) for row in rows], budget, counts, MAX_ROWS):
        starts = itertools.accumulate((len(row) for row in rows[part]), initial=0)
        index = [start + i for start, each in zip(starts, positions[part], strict=False) for i in each]
        yield part, pack_rows(rows[part], index).to(model.device)


# ---- jointly ----
def templates(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    candidates: Candidates | None = None,
    max_pieces: int = 1,
    only: int | None = None,
    max_length: int,
) -> list[Template]:
    """Every combination of word lengths, in pieces, for a text's [MASK]s.

    Args:
        tokenizer: of the model.
        ids: the text, with one [MASK] a word.
        candidates: the words to choose from, the same for every [MASK] or a list for each.
        max_pieces: without candidates, the longest word in pieces.
        only: fill this [MASK] only, counted from 0; the others stay.
        max_length: the longest text of the model, in tokens.

    Raises:
        InputError: candidates that are none, or that the vocabulary cannot write; too many combinations; too long.
    """
    masks = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
    words = _candidate_words(tokenizer, candidates, len(masks)) if candidates is not None else None
    lengths: list[list[int]] = []
    for number in range(len(masks)):
        if only not in (None, number):
            lengths.append([1])
        elif words is not None:
            lengths.append(sorted({len(word) for word in words[number]}))
        else:
            lengths.append(list(range(1, max_pieces + 1)))
    if math.prod(len(each) for each in lengths) > MAX_TEMPLATES:
        raise InputError(
            f"{len(masks)} masks of {'candidates' if words else 'words'} of up to {max(map(max, lengths))} pieces give "
            f"more than {MAX_TEMPLATES} combinations of lengths: fill fewer masks at once"
        )
    found = []
    for combination in itertools.product(*lengths):
        text: list[int] = []
        slots = []
        taken = 0
        for begin, end, count in zip(masks, [*masks[1:], len(ids)], combination, strict=True):
            text += [*ids[taken:begin], *[tokenizer.mask_id] * count]
            slots.append(tuple(range(len(text) - count, len(text))))
            taken = begin + 1
            if end == len(ids):
                text += ids[taken:]
        if len(text) > max_length:
            raise InputError(f"with its masks filled a text has {len(text)} tokens and the model takes {max_length}")
        chosen = [number for number in range(len(masks)) if only in (None, number)]
        found.append(
            Template(
                tuple(text),
                tuple(slots[number] for number in chosen),
                tuple(
                    None if words is None else tuple(w for w in words[number] if len(w) == combination[number])
                    for number in chosen
                ),
                whole_words=words is None and max_pieces > 1,
            )
        )
    return found


def _candidate_words(tokenizer: Tokenizer, candidates: Candidates, num_masks: int) -> list[list[Pieces]]:
    """The pieces of every candidate, for each mask."""
    listed = [[item] if isinstance(item, str) else list(item) for item in candidates]
    if isinstance(candidates, str) or not listed or not all(listed):
        raise InputError(f"candidates={candidates!r:.60}: expected a list of words, or one list for each [MASK]")
    if all(isinstance(item, str) for item in candidates):
        listed = [[item for items in listed for item in items]] * num_masks
    elif len(listed) != num_masks:
        raise InputError(f"{len(listed)} lists of candidates for {num_masks} [MASK]s: give one list, or one for each")
    found = []
    for items in listed:
        words = []
        encoded = tokenizer.encode_words(items)
        for number, item in enumerate(items):
            pieces = tuple(encoded[number].tolist())
            if not pieces or set(pieces) & set(tokenizer.special_ids):
                raise InputError(f"candidate {item!r}: the vocabulary cannot write it: choose another word")
            words.append(pieces)
        found.append(words)
    return found


def fill_together(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    problems: Sequence[Sequence[Template]],
    *,
    width: int,
    best_first: bool = False,
) -> list[list[Filling]]:
    """Search the most likely joint fillings; all problems advance together, one token a step.

    Args:
        model, tokenizer: they belong together.
        problems: the templates of each text.
        width: unfinished fillings kept for each template (beam search). With ``best_first`` the beginnings: each
            continues with its most likely token alone.
        best_first: see ``width``.

    Returns:
        For each problem its fillings, the most likely first: up to ``width`` for each template.
    """
    choices = Choices(tokenizer)
    finished: list[list[Filling]] = [[] for _ in problems]
    live = {
        (number, template): [Filling.begin(template)]
        for number, templates_of in enumerate(problems)
        for template in templates_of
    }
    step = 0
    while live:
        branches = 1 if best_first and step else width
        owners = [key for key, fillings in live.items() for _ in fillings]
        grown: dict = {key: [] for key in live}
        everything = [filling for fillings in live.values() for filling in fillings]
        for key, children in zip(owners, _grow(model, everything, choices, branches), strict=True):
            grown[key] += children
        live = {}
        for (number, template), fillings in grown.items():
            fillings = sorted(fillings, key=lambda f: (-f.log_score, f.ids))[:width]
            finished[number] += [filling for filling in fillings if not filling.open]
            if unfinished := [filling for filling in fillings if filling.open]:
                live[number, template] = unfinished
        step += 1
    return [sorted(fillings, key=lambda f: (-f.log_score, f.ids)) for fillings in finished]


class Choices:
    """The tokens allowed at a position."""

    def __init__(self, tokenizer: Tokenizer):
        continues = np.asarray(tokenizer.is_continuation).astype(bool)
        ordinary = np.ones(len(tokenizer), bool)
        ordinary[tokenizer.special_ids] = False
        self.any = torch.from_numpy(np.flatnonzero(ordinary))
        self.first = torch.from_numpy(np.flatnonzero(ordinary & ~continues))
        self.later = torch.from_numpy(np.flatnonzero(ordinary & continues))

    def at(self, filling: Filling, position: int) -> Tensor:
        given = filling.allowed(position)
        if given is not None:
            return torch.tensor(given)
        if not filling.template.whole_words:
            return self.any
        return self.first if any(slot[0] == position for slot in filling.template.slots) else self.later


def most_confident_positions(
    model: BertForPreTraining, fillings: Sequence[Filling], choices: Choices
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each filling the most confident open position, the allowed tokens there and their log-probabilities."""
    with torch.inference_mode():
        for part, batch in _batches(model, [f.ids for f in fillings], [f.open for f in fillings]):
            log_probs = predict(model, batch).float().log_softmax(-1).cpu()  # (M, V)
            confidence = log_probs.amax(-1)
            row = 0
            for filling in fillings[part]:
                best = row + int(confidence[row : row + len(filling.open)].argmax())
                position = filling.open[best - row]
                tokens = choices.at(filling, position)
                yield position, tokens, log_probs[best][tokens]
                row += len(filling.open)


def _grow(
    model: BertForPreTraining, fillings: Sequence[Filling], choices: Choices, branches: int
) -> Iterator[list[Filling]]:
    """Fill the most confident open position of each filling in the ``branches`` most likely ways."""
    positions = most_confident_positions(model, fillings, choices)
    for filling, (position, tokens, log_probs) in zip(fillings, positions, strict=True):
        yield filling.with_most_likely(position, tokens, log_probs, branches)


def as_dictionary(tokenizer: Tokenizer, filling: Filling) -> dict:
    """A joint filling as :meth:`fastbert.bert.Bert.fill_mask` gives it."""
    words = filling.words()
    return {
        "score": math.exp(filling.log_score),
        "log_score": filling.log_score,
        "tokens": [word[0] if len(word) == 1 else word for word in words],
        "token_strs": [_word(tokenizer, word) for word in words],
        "sequence": readable_ids(tokenizer, filling.ids),
    }


def as_guess(tokenizer: Tokenizer, filling: Filling) -> dict:
    """A filling of one mask in the form of an independent guess."""
    whole = as_dictionary(tokenizer, filling)
    return {
        "score": whole["score"],
        "token": whole["tokens"][0],
        "token_str": whole["token_strs"][0],
        "sequence": whole["sequence"],
    }


def _word(tokenizer: Tokenizer, pieces: Sequence[int]) -> str:
    """A single piece as in the vocabulary, several decoded."""
    return tokenizer.piece_text(pieces[0]) if len(pieces) == 1 else tokenizer.decode(pieces)


def joint_log_scores(
    model: BertForPreTraining, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
) -> list[float]:
    """Joint log-probability (nats) of given fillings, one token for each [MASK] of a row."""
    problems = []
    for ids, chosen in zip(rows, tokens, strict=True):
        slots = tuple((i,) for i, token in enumerate(ids) if token == tokenizer.mask_id)
        words = tuple(((token,),) for token in chosen)
        problems.append([Template(tuple(ids), slots, words, whole_words=False)])
    return [fillings[0].log_score for fillings in fill_together(model, tokenizer, problems, width=1)]
