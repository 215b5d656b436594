"""The pieces of a new tokenizer: a vocabulary trained on text, with its special tokens and a complete alphabet."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastbert.system.errors import InputError
from fastbert.text.inputs import existing_files
from fastbert.text.tokenizer_files import TokenizerOptions
from fastbert.text.vocab_trainer import complete_alphabet, train_vocab
from fastbert.text.word_counts import SPECIAL_TOKENS, check_special_tokens


class NoWordsError(InputError):
    """The text has nothing to train a vocabulary on."""


def trained_tokens(
    files_or_iterable: Any,
    options: TokenizerOptions,
    special_tokens: Sequence[str],
    *,
    vocab_size: int,
    **training: Any,
) -> list[str]:
    """Return the pieces in the order of their ids; for the arguments see :meth:`fastbert.Tokenizer.train`.

    Args:
        files_or_iterable: paths or texts.
        options: of the tokenizer.
        special_tokens: beyond those of BERT; what stands between them is counted.
        vocab_size: number of pieces.
        training: arguments of :func:`fastbert.text.vocab_trainer.train_vocab`.
    """
    files = existing_files(files_or_iterable)
    source: Any = iter(files_or_iterable) if files is None else files
    special = check_special_tokens([*SPECIAL_TOKENS, *special_tokens])
    if special_tokens:
        source = _without(special_tokens, source if files is None else _lines(files))
    longest = options.max_input_chars_per_word
    result = train_vocab(
        source, vocab_size=vocab_size, special_tokens=special, max_word_chars=longest, **asdict(options.normalizer),
        **training,
    )  # fmt: skip
    if not result.num_words:
        raise NoWordsError(
            f"the text has no words of at most {longest} characters. Try: a larger limit (max_input_chars_per_word, in "
            "commands --max-word-chars), or text with letters"
        )
    return result.tokens if training["limit_alphabet"] else complete_alphabet(result, vocab_size, options.normalizer)


def _without(tokens: Sequence[str], texts: Iterable[str]) -> Iterator[str]:
    """The texts with a blank in place of each of the tokens, the longest first, as the tokenizer finds them."""
    pattern = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    return (pattern.sub(" ", text) for text in texts)


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    where = f"{path}: line {number}: byte {error.start} of it"
                    raise InputError(f"{where} is not UTF-8. Try: convert the file to UTF-8") from None
