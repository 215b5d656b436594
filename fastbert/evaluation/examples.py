"""Example predictions: sentences of the evaluation text with one masked word."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastbert.bert import Bert
from fastbert.text.detokenize import detokenize, group_words


@dataclass(frozen=True)
class FilledMask:
    """A sentence with one masked word, the word, and the model's predictions."""

    text: str  # with [MASK]
    word: str
    guesses: list[tuple[str, float]]  # best first, with probabilities

    def __str__(self) -> str:
        guesses = ", ".join(f"{token} {score:.0%}" for token, score in self.guesses)
        mark = "✓" if self.guesses and self.guesses[0][0] == self.word else "·"
        return f"{mark} {detokenize(self.text)}\n    was: {self.word}   guesses: {guesses}"


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
        for word in group_words(ids, tokenizer.is_continuation):
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
