"""Text from a masked language model: masks are filled over several steps, the most confident first.

The prompt is followed by [MASK]s. At each step the model proposes a token for every mask; some proposals are kept, the
others masked again. Optional Gibbs sweeps then mask and resample every generated token in turn, given all others. A
model trained with ``--objective diffusion`` has seen fully masked texts and can start from nothing; one trained with
few masks needs a prompt, or small ``block``s.

Legend: B texts written at once, L tokens of a text, V vocabulary, M masked rows of a batch.

References: Ghazvininejad et al., Mask-Predict, 2019 (re-masking); Nie et al., Large Language Diffusion Models, 2025
(confidence order, blocks); Wang & Cho, BERT Has a Mouth, and It Must Speak, 2019 (Gibbs); Holtzman et al., The Curious
Case of Neural Text Degeneration, 2020 (top-p); Keskar et al., CTRL, 2019 (repetition penalty).
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from fastbert.batch import pack_rows
from fastbert.inference.masked_lm import predict
from fastbert.inference.sampling import Sampling
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer


def generate(
    model: BertForPreTraining, tokenizer: Tokenizer, rows: Sequence[Sequence[int]], sampling: Sampling
) -> list[list[int]]:
    """Fill every [MASK] of the rows, all rows at once; the same arguments give the same rows.

    Args:
        model, tokenizer: they belong together.
        rows: token ids with [CLS], [SEP] and [MASK]s, at most as long as the model takes.
        sampling: how.
    """
    sampling.check()
    with torch.inference_mode():
        return _Sampler(model, tokenizer, sampling).write([list(row) for row in rows])


class _Sampler:
    def __init__(self, model: BertForPreTraining, tokenizer: Tokenizer, sampling: Sampling):
        self.model, self.tokenizer, self.how = model, tokenizer, sampling
        self.random = torch.Generator().manual_seed(sampling.seed)
        unused = [i for i, entry in enumerate(tokenizer.vocab) if re.fullmatch(r"\[unused\d+\]", entry)]
        self.banned = torch.tensor([*tokenizer.special_ids, *unused])
        self.continues = torch.from_numpy(tokenizer.is_continuation).bool()

    def write(self, rows: list[list[int]]) -> list[list[int]]:
        masked = [[i for i, token in enumerate(row) if token == self.tokenizer.mask_id] for row in rows]
        longest = max((len(positions) for positions in masked), default=0)
        block = self.how.block or max(longest, 1)
        for begin in range(0, longest, block):
            self._fill(rows, [positions[begin : begin + block] for positions in masked], block, longest)
        for _ in range(self.how.gibbs):
            self._sweep(rows, masked)
        return rows

    def _fill(self, rows: list[list[int]], masked: list[list[int]], block: int, longest: int) -> None:
        """Fill these positions of the rows in their share of the steps."""
        steps = block if self.how.steps is None else max(1, round(self.how.steps * block / longest))
        confidence: list[dict[int, float]] = [{} for _ in rows]  # of kept tokens, when they were proposed
        for step in range(steps):
            masks = [
                [position for position in positions if row[position] == self.tokenizer.mask_id]
                for row, positions in zip(rows, masked, strict=True)
            ]
            if not any(masks):
                break
            proposals = self._propose(rows, masks)
            for row, positions, left, proposed, sure in zip(rows, masked, masks, proposals, confidence, strict=True):
                stay = len(positions) * (steps - step - 1) // steps  # masks after this step
                keep = len(left) if self.how.remask else max(len(left) - stay, 0)
                for position in self._ranked(left, {p: proposed[p][1] for p in left})[:keep]:
                    row[position], sure[position] = self._sample_token(row, position, *proposed[position])
                if self.how.remask and stay:
                    for position in sorted(positions, key=lambda p: (sure[p], p))[:stay]:
                        row[position] = self.tokenizer.mask_id

    def _ranked(self, positions: list[int], confidence: dict[int, float]) -> list[int]:
        if self.how.order == "left-to-right":
            return positions
        if self.how.order == "random":
            return [positions[i] for i in torch.randperm(len(positions), generator=self.random).tolist()]
        return sorted(positions, key=lambda p: (-confidence[p], p))

    def _sweep(self, rows: list[list[int]], masked: list[list[int]]) -> None:
        """Resample every generated position in random order, one of each row at a time."""
        orders = [[positions[i] for i in torch.randperm(len(positions), generator=self.random)] for positions in masked]
        for turn in range(max(map(len, orders), default=0)):
            resampled = [order[turn : turn + 1] for order in orders]
            for row, positions in zip(rows, resampled, strict=True):
                for position in positions:
                    row[position] = self.tokenizer.mask_id
            for row, positions, proposed in zip(rows, resampled, self._propose(rows, resampled), strict=True):
                for position in positions:
                    row[position], _ = self._sample_token(row, position, *proposed[position])

    def _propose(self, rows: list[list[int]], masks: list[list[int]]) -> list[dict[int, tuple[int, float, Tensor]]]:
        """For each mask of each row: a sampled token, its probability, and the log-probabilities (V,) it came from."""
        live = [number for number, positions in enumerate(masks) if positions]
        index, start = [], 0
        for number in live:
            index += [start + position for position in masks[number]]
            start += len(rows[number])
        batch = pack_rows([rows[number] for number in live], index).to(self.model.device)
        logits = predict(self.model, batch).double().cpu()  # (M, V); float64: draws repeat across devices
        logits[:, self.banned] = -torch.inf
        found: list[dict[int, tuple[int, float, Tensor]]] = [{} for _ in rows]
        at = 0
        for number in live:
            here = logits[at : at + len(masks[number])]
            at += len(here)
            if self.how.repetition_penalty != 1:
                seen = torch.tensor(sorted(set(rows[number]) - {self.tokenizer.mask_id}))
                here[:, seen] = torch.where(
                    here[:, seen] > 0,
                    here[:, seen] / self.how.repetition_penalty,
                    here[:, seen] * self.how.repetition_penalty,
                )
            for position, row in zip(masks[number], here, strict=True):
                if rows[number][position - 1] == self.tokenizer.cls_id and not self.continues.all():
                    row[self.continues.nonzero().squeeze(1)] = -torch.inf  # no word begins with "##"
            log_probs = here.log_softmax(-1)
            tokens = self._draw(log_probs)
            for position, token, row in zip(masks[number], tokens.tolist(), log_probs, strict=True):
                found[number][position] = (token, float(row[token].exp()), row)
        return found

    def _draw(self, log_probs: Tensor) -> Tensor:
        """One token a row of (M, V).

        Raises:
            InputError: probabilities that are not numbers.
        """
        if log_probs.isnan().any():
            raise InputError("the model's probabilities are NaN: its weights are damaged. Try: another checkpoint")
        if self.how.temperature == 0:
            return log_probs.argmax(-1)
        scaled = (log_probs / self.how.temperature).softmax(-1)
        if self.how.top_p < 1:
            ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
            # a token stays while those before it have less than top_p; the first always does
            ordered[ordered.cumsum(-1) - ordered >= self.how.top_p] = 0
            scaled = torch.zeros_like(scaled).scatter(-1, order, ordered)
        return torch.multinomial(scaled, 1, generator=self.random).squeeze(-1)

    def _sample_token(self, row: list[int], position: int, token: int, probability: float, log_probs: Tensor):
        """The proposal, or another sample if it would repeat the text."""
        if not self._repeats(row, position, token):
            return token, probability
        others = log_probs.clone()
        while True:
            others[token] = -torch.inf
            if not others.isfinite().any():  # a vocabulary so small that everything repeats
                return int(log_probs.argmax()), float(log_probs.max().exp())
            token = int(self._draw(others[None])[0])
            if not self._repeats(row, position, token):
                return token, float(log_probs[token].exp())

    def _repeats(self, row: list[int], position: int, token: int) -> bool:
        """Whether a token repeats a neighbor, or completes an n-gram found elsewhere in the row."""
        size = self.how.no_repeat_ngram
        if not size:
            return False
        if token in (row[position - 1], row[position + 1]):
            return True
        filled = [*row[:position], token, *row[position + 1 :]]
        grams = [tuple(filled[i : i + size]) for i in range(1, len(filled) - size)]
        for begin in range(max(position - size + 1, 1), min(position + 1, len(filled) - size)):
            gram = grams[begin - 1]
            if self.tokenizer.mask_id not in gram and grams.count(gram) > 1:
                return True
        return False


def masked_sequences(
    tokenizer: Tokenizer, prompt: str, length: int | None, samples: int, default_length: int, max_length: int
) -> list[list[int]]:
    """The initial sequences: the prompt, then masks.

    Args:
        tokenizer: of the model.
        prompt: may be empty, and may hold [MASK]s.
        length: tokens to add at the end; None: none to a prompt with [MASK]s, else ``default_length``.
        samples: number of sequences.
        max_length: of the model.

    Raises:
        InputError: a length or a number of samples that makes no sense; a prompt that does not fit.
    """
    ids = list(tokenizer.encode(prompt).ids)
    if length is None:
        length = 0 if tokenizer.mask_id in ids else min(default_length, max_length - len(ids))
    if length < 0 or (length == 0 and tokenizer.mask_id not in ids):
        raise InputError(f"length={length}: expected a positive number of tokens, or [MASK]s in the prompt")
    if samples < 1:
        raise InputError(f"samples={samples}: expected at least 1")
    if len(ids) + length > max_length:
        raise InputError(
            f"a prompt of {len(ids) - 2} tokens and {length} new ones: the model takes {max_length - 2} together"
        )
    # the frame's [SEP] stays last
    end = len(ids) - len(tokenizer.frame.after)
    row = [*ids[:end], *[tokenizer.mask_id] * length, *ids[end:]]
    return [list(row) for _ in range(samples)]
