"""Measures of a pretrained model: masked-LM loss, perplexity and accuracy, next-sentence accuracy, examples.

Legend: B sequences, V vocabulary, M masked positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastbert.bert import Bert
from fastbert.text.detokenize import detokenize


@dataclass(frozen=True)
class FilledMask:
    """A sentence with one word hidden, the word, and what the model put there."""

    text: str  # with [MASK]
    word: str
    guesses: list[tuple[str, float]]  # best first, with probabilities

    def __str__(self) -> str:
        guesses = ", ".join(f"{token} {score:.0%}" for token, score in self.guesses)
        mark = "✓" if self.guesses and self.guesses[0][0] == self.word else "·"
        return f"{mark} {detokenize(self.text)}\n    was: {self.word}   guesses: {guesses}"


def fill_examples(bert: Bert, sentences: Sequence[Sequence[int]], count: int = 6, top_k: int = 3) -> list[FilledMask]:
    """Hide a whole word in each of ``count`` sentences, of 8 to 32 tokens where there are any, and let the model guess.

    Args:
        bert: the model.
        sentences: token ids without special tokens.
        count: sentences to show.
        top_k: guesses to show.
    """
    tokenizer = bert.tokenizer
    continues = np.asarray(tokenizer.is_continuation).astype(bool)
    random = np.random.default_rng(0)
    picked: list[tuple[str, str]] = []
    # of medium length; a text that has too few of those shows short ones
    order = sorted(random.permutation(len(sentences)).tolist(), key=lambda index: len(sentences[index]) < 8)
    for index in order:
        ids = list(sentences[index])
        if not 3 <= len(ids) <= 32:
            continue
        words = [tokenizer.id_to_token(token) or "" for token in ids]
        whole = [
            i
            for i, token in enumerate(ids)
            if not continues[token]
            and not (i + 1 < len(ids) and continues[ids[i + 1]])
            and len(words[i]) >= 2
            and words[i].isalpha()
        ]
        if not whole:
            continue
        place = whole[int(random.integers(len(whole)))]
        word = words[place]
        ids[place] = tokenizer.mask_id
        picked.append((tokenizer.decode(ids, skip_special_tokens=False), word))
        if len(picked) == count:
            break
    if not picked:
        return []
    answers = bert.fill_mask([text for text, _ in picked], top_k=top_k)
    return [
        FilledMask(text, word, [(guess["token_str"], guess["score"]) for guess in guesses])
        for (text, word), guesses in zip(picked, answers, strict=True)
        if isinstance(guesses[0], dict)
    ]
