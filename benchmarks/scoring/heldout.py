"""Sentences of the documents that a run of `python -m fastbert.train` kept unseen."""

import json
from pathlib import Path

import numpy as np

from fastbert.data import TokenStore, split_documents
from fastbert.text import Tokenizer
from fastbert.text.detokenize import detokenize


def sentences(run: Path, fewest_words: int = 5, most_tokens: int = 60) -> list[str]:
    """In an order that is shuffled once and for all."""
    options = json.loads((run / "run.json").read_text(encoding="utf-8"))["options"]
    store, tokenizer = TokenStore.open(run / "tokens"), Tokenizer.load(run)
    split = split_documents(store, fraction=options["heldout_fraction"])
    if not len(split.heldout):
        raise SystemExit(f"{run}: no document was kept unseen ({split.reason})")
    found = []
    for first, last in split.heldout:
        offsets = store.sentence_offsets[int(first) : int(last) + 1]
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            if stop - start <= most_tokens:
                text = detokenize(tokenizer.decode(store.gather([start], [stop - start])))
                if len(text.split()) >= fewest_words and "[UNK]" not in text:
                    found.append(text)
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]
