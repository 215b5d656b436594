"""Words added to a vocabulary against the same words in pieces, after a short continued training.

    python benchmarks/recipe/added_words.py RUN --new wealth.txt     # RUN: trained on bundled:en

The new text is that of continued.py. The words are the most frequent ones of its training part that the run's
vocabulary divides. A word of the held-out part is masked with all its pieces and counts as right when all are; its loss
is the sum over its pieces.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from continued import Bench

from fastbert.data import write_store
from fastbert.data.corpus.documents import Corpus
from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer
from fastbert.text.vocabulary_extension import extended
from fastbert.weights.state_dict import VOCABULARY_ROWS
from fastbert.weights.vocabulary_transfer import VocabularyTransfer

HELDOUT = 0.3  # of the new text, for a few hundred of the words


def lines_of(bench: Bench, part: str) -> Iterator[str]:
    """The lines of the new text's training or held-out part."""
    store = bench.stores["new"]
    for first, last in getattr(bench.spans["new"], part):
        bounds = store.sentence_offsets[int(first) : int(last) + 1].tolist()
        for start, stop in itertools.pairwise(bounds):
            yield bench.tokenizer.decode(store.gather([start], [stop - start]).tolist(), clean_up=False)


def divided_words(bench: Bench, number: int) -> list[str]:
    """The most frequent words of the training part that have several pieces."""
    found = Counter(word for line in lines_of(bench, "train") for word in line.split() if word.isalpha())
    several = (word for word, _ in found.most_common() if len(bench.tokenizer.encode(word).ids) > 3)
    return list(itertools.islice(several, number))


@torch.no_grad()
def accuracy(
    model: BertForPreTraining, tokenizer: Tokenizer, lines: list[str], words: set[str]
) -> tuple[int, int, float]:
    """The words of the lines that are predicted with all their pieces, all of them, and their mean loss in nats."""
    model.eval()
    right = count = 0
    loss = 0.0
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
            logits = model(ids).prediction_logits[0, places]
            right += int(bool((logits.argmax(-1) == wanted).all()))
            loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            count += 1
    return right, count, loss / max(count, 1)


def with_words(pieces: Bench, words: list[str], arguments: tuple, work: Path) -> Bench:
    """The same texts and weights with the words in the vocabulary."""
    whole = Bench(*arguments)
    whole.tokenizer = extended(pieces.tokenizer, words)
    text = [str(arguments[3] or work / "new.txt")]
    whole.stores["new"] = write_store(work / f"{len(words)}_words_tokens", Corpus(text), whole.tokenizer)
    assert len(whole.stores["new"].sentence_offsets) == len(pieces.stores["new"].sentence_offsets)
    source = BertForPreTraining.from_pretrained(pieces.path)
    transfer = VocabularyTransfer.between(pieces.tokenizer, whole.tokenizer)
    config = source.config.replace(vocab_size=len(whole.tokenizer))
    grown = BertForPreTraining(config)
    grown.load_state_dict(transfer.state_dict(source.state_dict(), VOCABULARY_ROWS, config.padded_vocab_size))
    whole.path = work / f"{len(words)}_words_model"
    grown.save_pretrained(whole.path)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, default=Path("continued_work"))
    parser.add_argument("--new", type=Path, default=None, help="new text, instead of the repository's pages")
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--setting", type=json.loads, default=None, help="as in continued.jsonl; or the defaults")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    arguments = ("mini", options.model, options.work, options.new, HELDOUT)
    pieces = Bench(*arguments)
    words = divided_words(pieces, options.words)
    lines = list(lines_of(pieces, "heldout"))
    benches = {"pieces": pieces, "added": with_words(pieces, words, arguments, options.work)}
    print(f"{len(words)} words: {', '.join(' '.join(pieces.tokenizer.encode(w).tokens[1:-1]) for w in words)}")
    for seed, (name, bench) in itertools.product(options.seeds, benches.items()):
        model = bench.trained(options.setting, options.steps, seed)
        right, count, loss = accuracy(model, bench.tokenizer, lines, set(words))
        print(f"seed {seed}  {name}: {right} of {count}, {right / max(count, 1):.1%}, loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
