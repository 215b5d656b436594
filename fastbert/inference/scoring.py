"""How natural a text is to a masked language model: pseudo-log-likelihoods.

Each token is masked and predicted; the log-probabilities of a text are summed. ``l2r`` also masks the rest of the word
to the right of the token, so that the end of a rare word cannot reveal its beginning; ``pll`` masks the token alone.
Every token costs a copy of its text: the copies of all texts are packed together by length, and the prediction head
runs on the masked rows only.

Legend: L tokens of a text, [CLS] and [SEP] included; N scored tokens of it; M masked rows of a batch.

References: Salazar et al., Masked Language Model Scoring, 2020 (pll); Kauf & Ivanova, A Better Way to Do Masked
Language Model Scoring, 2023 (l2r).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fastbert import ops
from fastbert.batch import inference_tokens, pack_rows
from fastbert.inference.masked_lm import label_log_probs
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.system.marks import spans_with_marks
from fastbert.text import Tokenizer

Method = Literal["l2r", "pll"]
_MANY_TOKENS = 4_096  # of all copies: several batches on a CPU


@dataclass(frozen=True)
class TextScore:
    """The score of a text, token by token; special tokens are context and not scored."""

    text: str
    tokens: list[str]  # N vocabulary entries
    offsets: list[tuple[int, int]]  # where they begin and end in the text, in characters
    log_probs: list[float]  # N natural logarithms of probabilities

    @property
    def score(self) -> float:
        """Pseudo-log-likelihood of the text, in nats: 0 is certainty, and each token makes it smaller."""
        return math.fsum(self.log_probs)

    @property
    def pseudo_perplexity(self) -> float:
        """exp(-score / N)."""
        return pseudo_perplexity([self])


def pseudo_perplexity(scores: Sequence[TextScore]) -> float:
    """Of a corpus: exp of minus the mean over all tokens of all texts (Salazar et al. 2020, section 2.3).

    Raises:
        InputError: not a single token was scored.
    """
    count = sum(len(score.log_probs) for score in scores)
    if count == 0:
        raise InputError("no token to score: the pseudo-perplexity of an empty text does not exist")
    return math.exp(min(-math.fsum(x for score in scores for x in score.log_probs) / count, 700.0))


@dataclass(frozen=True)
class _Question:
    """A text as ids, and its tokens to be scored."""

    ids: NDArray[np.int64]  # (L,)
    words: NDArray[np.int64]  # (L,) number of the word, -1 for special tokens
    positions: NDArray[np.int64]  # (N,)

    def copies(self, first: int, stop: int, mask_id: int, method: Method) -> NDArray[np.int64]:
        """A copy of the text for each of the positions first … stop - 1, masked for it: (·, L)."""
        positions = self.positions[first:stop, None]
        columns = np.arange(len(self.ids))
        masked = columns == positions
        if method == "l2r":
            masked = (columns >= positions) & (self.words == self.words[positions])
        return np.where(masked, mask_id, self.ids)


def score_texts(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    method: Method = "l2r",
    batch_tokens: int | None = None,
) -> list[TextScore]:
    """Score texts, in their order.

    Args:
        model, tokenizer: they belong together; the model has a trained masked-LM head.
        texts: each fits the model; a [CLS], [SEP] or [PAD] written in one is context.
        method: "l2r" or "pll".
        batch_tokens: most tokens in a packed batch (at least one copy of a text); None: a default for the device.

    Raises:
        InputError: unknown method; a text that is too long or holds [MASK].
    """
    if method not in get_args(Method):
        raise InputError(f"method={method!r}: expected one of {', '.join(get_args(Method))}")
    number_of = {text: number for number, text in enumerate(dict.fromkeys(texts))}  # repeated texts are scored once
    encodings = [tokenizer.encode(text) for text in number_of]
    context = set(tokenizer.special_ids) - {tokenizer.unk_id}
    questions = []
    for text, encoding in zip(number_of, encodings, strict=True):
        if len(encoding.ids) > (limit := model.config.max_position_embeddings):
            raise InputError(
                f"the text {text[:40]!r}… has {len(encoding.ids)} tokens and the model takes {limit}: shorten it"
            )
        if tokenizer.mask_id in encoding.ids:
            raise InputError(
                f"{tokenizer.mask_token} in {text[:60]!r}: a text to be scored is whole; fill_mask guesses masks"
            )
        ids = np.array(encoding.ids, np.int64)
        words = np.array([-1 if w is None else w for w in encoding.word_ids], np.int64)
        questions.append(_Question(ids, words, np.flatnonzero([i not in context for i in encoding.ids])))

    answers = [np.zeros(len(question.positions)) for question in questions]
    device = model.device
    if device.type == "cpu" and sum(len(q.ids) * len(q.positions) for q in questions) > _MANY_TOKENS:
        ops.disable_malloc_trim()  # every batch allocates the same sizes: fresh pages cost an eighth of the time
    with torch.inference_mode():
        for parts in _batches(questions, batch_tokens or inference_tokens(device)):
            rows, masked, targets = [], [], []
            start = 0
            for index, first, stop in parts:
                question = questions[index]
                copies = question.copies(first, stop, tokenizer.mask_id, method)
                positions = question.positions[first:stop]
                masked.append(start + np.arange(len(copies)) * copies.shape[1] + positions)
                targets.append(question.ids[positions])
                rows += list(copies)
                start += copies.size
            batch = replace(pack_rows(rows, np.concatenate(masked)), labels=torch.from_numpy(np.concatenate(targets)))
            log_probs = label_log_probs(model, batch.to(device)).double().cpu().numpy()
            for index, first, stop in parts:
                answers[index][first:stop], log_probs = np.split(log_probs, [stop - first])
    return [
        TextScore(
            text,
            [encodings[number].tokens[i] for i in questions[number].positions],
            spans_with_marks(text, [encodings[number].offsets[i] for i in questions[number].positions]),
            answers[number].tolist(),
        )
        for text, number in ((text, number_of[text]) for text in texts)
    ]


def _batches(questions: Sequence[_Question], batch_tokens: int) -> Iterator[list[tuple[int, int, int]]]:
    """Copies of similar length together: lists of (question, first position, stop position)."""
    parts: list[tuple[int, int, int]] = []
    free = batch_tokens
    for index in sorted(range(len(questions)), key=lambda i: -len(questions[i].ids)):
        length, first, total = len(questions[index].ids), 0, len(questions[index].positions)
        while first < total:
            if parts and free < length:
                yield parts
                parts, free = [], batch_tokens
            stop = min(total, first + max(free // length, 1))
            parts.append((index, first, stop))
            free -= (stop - first) * length
            first = stop
    if parts:
        yield parts
