"""Whether a vocabulary fits a model."""

from pathlib import Path

from fastbert.system.errors import InputError
from fastbert.text.tokenizer import Tokenizer


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, directory: str | Path) -> None:
    """Check that every piece has a row of the model's embedding; a model may have more rows.

    Raises:
        InputError: with the first piece that has none.
    """
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"{directory}: the vocabulary has {len(tokenizer):,} pieces and the model {vocab_size:,} rows "
            f"(vocab_size): {tokenizer.id_to_token(vocab_size)!r:.40} has no weights. "
            "Try: the vocabulary that the model was trained with, or resize_token_embeddings of transformers"
        )
