"""Measures of a pretrained model: masked-LM loss, perplexity and accuracy, next-sentence accuracy, examples.

Legend: B sequences, V vocabulary, M masked positions.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastbert.batch import PackedBatch
from fastbert.bert import Bert
from fastbert.model import BertForPreTraining


@dataclass(frozen=True)
class Evaluation:
    """Means over the masked tokens and over the sentence pairs of an evaluation text."""

    loss: float  # nats per masked token
    accuracy: float  # of masked tokens guessed right
    masked_tokens: int
    next_sentence_accuracy: float | None = None
    sentence_pairs: int = 0
    # objective diffusion: nats per token of text, an upper bound on the negative log-likelihood (Sahoo et al. 2024)
    diffusion_bound: float | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def record(self) -> dict[str, float | int | None]:
        return dataclasses.asdict(self) | {"perplexity": self.perplexity}

    def __str__(self) -> str:
        perplexity = f"{self.perplexity:,.1f}" if self.perplexity < 1e9 else f"{self.perplexity:.3g}"
        text = f"loss {self.loss:.3f}  perplexity {perplexity}  masked accuracy {self.accuracy:.1%}"
        if self.next_sentence_accuracy is not None:
            text += f"  next-sentence accuracy {self.next_sentence_accuracy:.1%}"
        if self.diffusion_bound is not None:
            text += f"  diffusion bound {self.diffusion_bound:.3f}"
        return text


@torch.no_grad()
def evaluate(
    model: BertForPreTraining,
    batches: Iterable[PackedBatch],
    autocast: AbstractContextManager | None = None,
    device: torch.device | str = "cpu",
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Evaluation:
    """Score masked batches; the model is left in the mode it was in.

    Args:
        model: to be scored.
        batches: masked; of several ranks each has its part. Those with label weights are for the diffusion bound only.
        autocast: the arithmetic.
        device: of the model.
        total: adds up the seven sums, float64, over the ranks.
    """
    was_training = model.training
    model.eval()
    loss, right, count, pairs_right, pairs = 0.0, 0, 0, 0, 0
    bound, weight = 0.0, 0.0
    for batch in batches:
        batch = batch.to(device)
        assert batch.labels is not None
        # without labels the model takes no loss and hands out the logits of the masked rows
        with autocast or nullcontext():
            out = model(dataclasses.replace(batch, labels=None, next_sentence_label=None))
        logits = out.prediction_logits.float()  # (M, V)
        if batch.label_weights is not None:
            each = F.cross_entropy(logits, batch.labels, reduction="none")
            bound += (each * batch.label_weights).sum().item()
            weight += batch.label_weights.sum().item()
            continue
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        right += int((logits.argmax(-1) == batch.labels).sum())
        count += batch.labels.shape[0]
        if batch.next_sentence_label is not None:
            asked = batch.next_sentence_label != -100
            said = out.seq_relationship_logits.argmax(-1)
            pairs_right += int((said == batch.next_sentence_label)[asked].sum())
            pairs += int(asked.sum())
    model.train(was_training)
    sums = total(torch.tensor([loss, bound, weight, right, count, pairs_right, pairs], dtype=torch.float64)).tolist()
    (loss, bound, weight), (right, count, pairs_right, pairs) = sums[:3], map(int, sums[3:])
    return Evaluation(
        loss=loss / max(count, 1),
        accuracy=right / max(count, 1),
        masked_tokens=count,
        next_sentence_accuracy=pairs_right / pairs if pairs else None,
        sentence_pairs=pairs,
        diffusion_bound=bound / weight if weight else None,
    )


@dataclass(frozen=True)
class FilledMask:
    """A sentence with one masked word, the word, and the model's predictions."""

    text: str  # with [MASK]
    word: str
    guesses: list[tuple[str, float]]  # best first, with probabilities

    def __str__(self) -> str:
        guesses = ", ".join(f"{token} {score:.0%}" for token, score in self.guesses)
        mark = "✓" if self.guesses and self.guesses[0][0] == self.word else "·"
        return f"{mark} {readable(self.text)}\n    was: {self.word}   guesses: {guesses}"


def readable(text: str) -> str:
    """Decoded text with its punctuation set as a person would: "deixemo - nos , pois ; ( sim )"."""
    text = re.sub(r"\s+([,.;:!?…»)\]}])(?!\w)", r"\1", text)
    text = re.sub(r"([«(\[{])\s+(?!MASK)", r"\1", text)
    return re.sub(r"(\w|\]) ([-'’]) (\w|\[)", r"\1\2\3", text)


def fill_examples(bert: Bert, sentences: Sequence[Sequence[int]], count: int = 6, top_k: int = 3) -> list[FilledMask]:
    """Mask a whole word in each of ``count`` sentences, of 8 to 32 tokens if there are any, and predict it.

    Args:
        bert: the model.
        sentences: token ids without special tokens.
        count: sentences to show.
        top_k: predictions to show.
    """
    tokenizer = bert.tokenizer
    random = np.random.default_rng(0)
    masked: list[tuple[str, str]] = []
    # of medium length; a text with too few of those shows short ones
    order = sorted(random.permutation(len(sentences)).tolist(), key=lambda index: len(sentences[index]) < 8)
    for index in order:
        ids = list(sentences[index])
        if not 3 <= len(ids) <= 32:
            continue
        words, position = [], 0  # (position, token) of the words of one token
        for word in tokenizer.group_words(ids):
            token = tokenizer.id_to_token(word[0]) or ""
            if len(word) == 1 and len(token) >= 2 and token.isalpha():
                words.append((position, token))
            position += len(word)
        if not words:
            continue
        position, token = words[int(random.integers(len(words)))]
        ids[position] = tokenizer.mask_id
        masked.append((tokenizer.decode(ids, skip_special_tokens=False), token))
        if len(masked) == count:
            break
    if not masked:
        return []
    answers = bert.fill_mask([text for text, _ in masked], top_k=top_k)
    return [
        FilledMask(text, word, [(guess["token_str"], guess["score"]) for guess in guesses])
        for (text, word), guesses in zip(masked, answers, strict=True)
        if isinstance(guesses[0], dict)
    ]
