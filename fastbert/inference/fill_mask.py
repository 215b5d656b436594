"""Filling [MASK]s: each on its own, or all of a text together.

A masked language model has no single joint probability of several hidden tokens; it has one for every order of filling
them. Here the order is "the surest next": of the masks left, the one whose best token is the likeliest is filled, and
then the others are asked again. What is filled decides what comes next, so every filling has exactly one way to be
made, and the products of the conditional probabilities along these ways sum to 1 over all fillings: they are a true
joint distribution, and comparable between any two fillings of one text. (Words of different numbers of pieces stand in
texts with different numbers of masks; between these the comparison is the usual one, of the two log-probabilities.)

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

from fastbert.batch import inference_tokens, pack_rows
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

MAX_ROWS = 2048  # masked rows of a batch: their logits are (M, V)
MAX_TEMPLATES = 512

Pieces = tuple[int, ...]
Candidates = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Template:
    """A text with as many [MASK]s as the words in it are to have pieces."""

    ids: Pieces
    slots: tuple[tuple[int, ...], ...]  # the places of each word
    words: tuple[tuple[Pieces, ...] | None, ...]  # what each word may be; None: anything
    whole_words: bool  # a free word begins with a piece that begins words, and goes on with "##" pieces


@dataclass(frozen=True)
class Filling:
    """A template with its masks filled, all or so far."""

    template: Template
    ids: Pieces
    open: tuple[int, ...]  # places yet to be filled
    log_score: float = 0.0

    @classmethod
    def begin(cls, template: Template) -> "Filling":
        """Nothing filled yet."""
        return cls(template, template.ids, tuple(itertools.chain(*template.slots)))

    def with_token(self, place: int, token: int, log_prob: float) -> "Filling":
        ids = (*self.ids[:place], token, *self.ids[place + 1 :])
        return Filling(self.template, ids, tuple(p for p in self.open if p != place), self.log_score + log_prob)

    def with_likeliest(self, place: int, tokens: Tensor, log_probs: Tensor, count: int) -> "list[Filling]":
        """Fill a place in up to ``count`` ways, the likeliest first, of the ``tokens`` (K,) that may stand there."""
        values, order = log_probs.topk(min(count, len(tokens)))
        return [
            self.with_token(place, token, value)
            for token, value in zip(tokens[order].tolist(), values.tolist(), strict=True)
        ]

    def allowed(self, place: int) -> list[int] | None:
        """The tokens that the words given leave for a place; None: any."""
        for slot, words in zip(self.template.slots, self.template.words, strict=True):
            if place in slot and words is not None:
                filled = [i for i, other in enumerate(slot) if other not in self.open]
                fitting = [word for word in words if all(word[i] == self.ids[slot[i]] for i in filled)]
                return sorted({word[slot.index(place)] for word in fitting})
        return None

    def words(self) -> list[list[int]]:
        """The tokens of each word."""
        return [[self.ids[place] for place in slot] for slot in self.template.slots]


# ---- each on its own ----
def independent(
    model: BertForPreTraining, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], top_k: int
) -> list[list[list[dict]]]:
    """Guess every [MASK] given the text with all its [MASK]s: for each row, for each mask, ``top_k`` dictionaries."""
    answers = []
    with torch.inference_mode():
        for chunk, index in _chunks(rows, tokenizer.mask_id, inference_tokens(_device(model))):
            batch = pack_rows(chunk, index).to(_device(model))
            probabilities = model.predict(batch).float().softmax(-1)
            scores, tokens = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
            guesses = iter(zip(scores.tolist(), tokens.tolist(), strict=True))
            for ids in chunk:
                places = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
                answers.append(
                    [
                        [_guess(tokenizer, ids, place, *pair) for pair in zip(*next(guesses), strict=True)]
                        for place in places
                    ]
                )
    return answers


def _guess(tokenizer: Tokenizer, ids: Sequence[int], place: int, score: float, token: int) -> dict:
    filled = [*ids[:place], token, *ids[place + 1 :]]
    return {
        "score": score,
        "token": token,
        "token_str": tokenizer.id_to_token(token),
        "sequence": readable_ids(tokenizer, filled),
    }


def readable_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of ids: [CLS], [SEP] and [PAD] left out, [MASK] and [UNK] shown."""
    hidden = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id}
    return tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False)


def _chunks(
    rows: Sequence[Sequence[int]], mask_id: int, batch_tokens: int
) -> Iterator[tuple[list[Sequence[int]], list[int]]]:
    """Consecutive rows that make one batch, and where their masks are in it."""
    chunk: list[Sequence[int]] = []
    index: list[int] = []
    size = 0
    for ids in rows:
        masks = [i for i, token in enumerate(ids) if token == mask_id]
        if chunk and (size + len(ids) > batch_tokens or len(index) + len(masks) > MAX_ROWS):
            yield chunk, index
            chunk, index, size = [], [], 0
        chunk.append(ids)
        index += [size + i for i in masks]
        size += len(ids)
    if chunk:
        yield chunk, index


# ---- together ----
def templates(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    *,
    candidates: Candidates | None = None,
    max_pieces: int = 1,
    only: int | None = None,
    max_length: int,
) -> list[Template]:
    """Every way to set the number of pieces of the words behind a text's [MASK]s.

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
        for item in items:
            pieces = tuple(tokenizer.encode(item, add_special_tokens=False).ids)
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
    """Search the likeliest joint fillings; all problems advance together, one token a step.

    Args:
        model, tokenizer: they belong together.
        problems: the templates of each text.
        width: unfinished fillings kept for each template (beam search). With ``best_first`` the beginnings: each
            goes on with its likeliest token alone.
        best_first: see ``width``.

    Returns:
        For each problem its fillings, the likeliest first: up to ``width`` for each template.
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
    """Which tokens may be chosen where."""

    def __init__(self, tokenizer: Tokenizer):
        continues = np.asarray(tokenizer.is_continuation).astype(bool)
        ordinary = np.ones(len(tokenizer), bool)
        ordinary[tokenizer.special_ids] = False
        self.any = torch.from_numpy(np.flatnonzero(ordinary))
        self.first = torch.from_numpy(np.flatnonzero(ordinary & ~continues))
        self.later = torch.from_numpy(np.flatnonzero(ordinary & continues))

    def at(self, filling: Filling, place: int) -> Tensor:
        given = filling.allowed(place)
        if given is not None:
            return torch.tensor(given)
        if not filling.template.whole_words:
            return self.any
        return self.first if any(slot[0] == place for slot in filling.template.slots) else self.later


def surest_places(
    model: BertForPreTraining, fillings: Sequence[Filling], choices: Choices
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each filling the surest open place, the tokens that may stand there, and their log-probabilities (float32)."""
    start, batch_tokens = 0, inference_tokens(_device(model))
    with torch.inference_mode():
        while start < len(fillings):
            stop, size, num_rows = start, 0, 0
            while stop < len(fillings) and (
                stop == start
                or (size + len(fillings[stop].ids) <= batch_tokens and num_rows + len(fillings[stop].open) <= MAX_ROWS)
            ):
                size, num_rows = size + len(fillings[stop].ids), num_rows + len(fillings[stop].open)
                stop += 1
            part = fillings[start:stop]
            starts = np.cumsum([0, *(len(filling.ids) for filling in part)])
            index = [s + place for s, filling in zip(starts[:-1], part, strict=True) for place in filling.open]
            batch = pack_rows([filling.ids for filling in part], index).to(_device(model))
            log_probs = model.predict(batch).float().log_softmax(-1).cpu()  # (M, V)
            surest = log_probs.amax(-1)
            row = 0
            for filling in part:
                best = row + int(surest[row : row + len(filling.open)].argmax())
                place = filling.open[best - row]
                tokens = choices.at(filling, place)
                yield place, tokens, log_probs[best][tokens]
                row += len(filling.open)
            start = stop


def _grow(
    model: BertForPreTraining, fillings: Sequence[Filling], choices: Choices, branches: int
) -> Iterator[list[Filling]]:
    """Fill the surest open place of each filling in the ``branches`` likeliest ways."""
    places = surest_places(model, fillings, choices)
    for filling, (place, tokens, log_probs) in zip(fillings, places, strict=True):
        yield filling.with_likeliest(place, tokens, log_probs, branches)


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
    """A single piece as the vocabulary has it, several joined to what they spell."""
    return tokenizer.id_to_token(pieces[0]) or "" if len(pieces) == 1 else tokenizer.decode(pieces)


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


def _device(model: BertForPreTraining) -> torch.device:
    return next(model.parameters()).device
