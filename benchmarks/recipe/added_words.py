"""Words added to a vocabulary against the same words in pieces, after a short continued training.

    python benchmarks/recipe/added_words.py RUN     # RUN: trained on bundled:en

The new text is that of continued.py, this repository's pages. The words are the most frequent ones of its training part
that the run's vocabulary divides. A word of the held-out part is masked with all its pieces and counts as right when
all are.
"""

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

import torch
from continued import Bench

from fastbert.data import write_store
from fastbert.data.corpus.documents import Corpus
from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer
from fastbert.text.vocabulary_extension import extended
from fastbert.weights.huggingface import VOCABULARY_ROWS
from fastbert.weights.vocabulary_transfer import VocabularyTransfer


def divided_words(bench: Bench, number: int) -> list[str]:
    """The most frequent words of the training part that have several pieces."""
    found: Counter[str] = Counter()
    store, tokenizer = bench.stores["new"], bench.tokenizer
    for first, last in bench.spans["new"].train:
        bounds = store.sentence_offsets[int(first) : int(last) + 1].tolist()
        for start, stop in itertools.pairwise(bounds):
            for word in tokenizer.decode(store.gather([start], [stop - start]).tolist(), clean_up=False).split():
                found[word] += 1
    several = (w for w, _ in found.most_common() if w.isalpha() and len(tokenizer.encode(w).ids) > 3)
    return [word for _, word in zip(range(number), several, strict=False)]


@torch.no_grad()
def accuracy(model: BertForPreTraining, tokenizer: Tokenizer, lines: list[str], words: set[str]) -> tuple[float, int]:
    """Share of the words of the lines that are predicted with all their pieces, and their number."""
    model.eval()
    right = count = 0
    for line in lines:
        encoding = tokenizer.encode(line, max_length=128)
        for word_id in sorted({i for i in encoding.word_ids if i is not None}):
            places = [place for place, i in enumerate(encoding.word_ids) if i == word_id]
            first, last = places[0], places[-1]
            if line[encoding.offsets[first][0] : encoding.offsets[last][1]] not in words:
                continue
            ids = torch.tensor([encoding.ids])
            wanted = ids[0, places].clone()
            ids[0, places] = tokenizer.mask_id
            right += int(bool((model(ids).prediction_logits[0, places].argmax(-1) == wanted).all()))
            count += 1
    return right / max(count, 1), count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, default=Path("continued_work"))
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--setting", type=json.loads, default={"optimizer": "muon"}, help="as in continued.jsonl")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pieces = Bench("mini", options.model, options.work)
    words = divided_words(pieces, options.words)
    print(f"{len(words)} words: {' '.join(words)}", flush=True)
    store = pieces.stores["new"]
    lines = []
    for first, last in pieces.spans["new"].heldout:
        bounds = store.sentence_offsets[int(first) : int(last) + 1].tolist()
        lines += [
            pieces.tokenizer.decode(store.gather([a], [b - a]).tolist(), clean_up=False)
            for a, b in itertools.pairwise(bounds)
        ]
    whole = Bench("mini", options.model, options.work)
    whole.tokenizer = extended(pieces.tokenizer, words)
    whole.stores["new"] = write_store(
        options.work / "words_tokens", Corpus([str(options.work / "new.txt")]), whole.tokenizer
    )
    assert len(whole.stores["new"].sentence_offsets) == len(store.sentence_offsets)
    source = BertForPreTraining.from_pretrained(options.model)
    transfer = VocabularyTransfer.between(pieces.tokenizer, whole.tokenizer)
    config = source.config.replace(vocab_size=len(whole.tokenizer))
    grown = BertForPreTraining(config)
    grown.load_state_dict(transfer.state_dict(source.state_dict(), VOCABULARY_ROWS, config.padded_vocab_size))
    grown.save_pretrained(options.work / "grown")
    whole.path = options.work / "grown"
    for seed in options.seeds:
        for name, bench in (("pieces", pieces), ("added", whole)):
            model = bench.trained(options.setting, options.steps, seed)
            share, count = accuracy(model, bench.tokenizer, lines, set(words))
            print(f"seed {seed}  {name}: {share:.1%} of {count}", flush=True)


if __name__ == "__main__":
    main()
