"""What the tests of contrastive training share: a tiny model, and letters that belong to their capitals."""

import json

import numpy as np
import torch

from fastbert import contrastive
from fastbert.bert import Bert
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions
from support import SPECIAL

LETTERS = "abcdefghijklmnop"
VOCAB = [*SPECIAL, *LETTERS, *LETTERS.upper()]
# a text and the same text in capitals belong together
PAIRS = [(" ".join(x), " ".join(x).upper()) for x in ("ab", "cde", "fgh", "ij", "kl", "mnop", "ag", "bh", "ci", "dj")]


def make_folder(tmp_path):
    """A model, pairs.jsonl and texts.txt."""
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", vocab_size=len(VOCAB), max_position_embeddings=16))
    Bert(model, Tokenizer(VOCAB, TokenizerOptions(lowercase=False))).save(tmp_path / "model")
    lines = [json.dumps({"text_a": a, "text_b": b}) for a, b in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "texts.txt").write_text("\n\n".join(a for a, _ in PAIRS) + "\n")
    return tmp_path


def tune(folder, *arguments):
    paths = [str(folder / "model"), "--output", str(folder / "out"), "--threads", "1"]
    return run(contrastive.main, contrastive.ContrastiveOptions, [*paths, *arguments])


def found(bert):
    """Share of the texts whose nearest capitals are their own."""
    first, second = (bert.embed([pair[i] for pair in PAIRS]) for i in (0, 1))
    return float(np.mean((first @ second.T).argmax(1) == np.arange(len(PAIRS))))
