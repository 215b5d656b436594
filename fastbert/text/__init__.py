"""From text to ids: the tokenizer, the vocabulary trainer, and their Python twins."""

from fastbert.text.encoding import EncodedBatch, Encoding
from fastbert.text.tokenizer import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions

__all__ = ["EncodedBatch", "Encoding", "Tokenizer", "TokenizerOptions"]
