"""Pseudo-log-likelihoods: fastbert against transformers, the same weights, texts and numbers.

    python benchmarks/scoring/speed.py MODEL texts.txt [--sentences 32] [--threads 1]

MODEL is a BERT directory with a masked-LM head. Three ways, each a process of its own, all with method "pll":
  usual   one sentence at a time, one row for each hidden token, `labels` with -100: the recipe everybody copies
          (log_softmax over the vocabulary at every position)
  padded  rows of several sentences in padded batches of 64, the logits read at the hidden places only
  ours    `bert.score`
Checked first: every sentence's score to 1e-3. Then timed in turns; CPU time, because the machine may be busy. Medians,
and in brackets the extremes of the rounds. Last line: how many fewer multiplications by matrices `score` makes.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import Worker, answer, ratios, spread, take_turns

WAYS = ("usual", "padded", "ours")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("texts", type=Path)
parser.add_argument("--sentences", type=int, default=32)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # one of the three processes
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch  # noqa: E402

import fastbert  # noqa: E402

torch.set_num_threads(options.threads)
bert = fastbert.load(options.model)
lines = [line.strip() for line in options.texts.read_text(encoding="utf-8").splitlines()]
texts = [line for line in lines if 4 <= len(line.split()) <= 40][: options.sentences]
encoded = [torch.tensor(bert.tokenizer.encode(text).ids) for text in texts]
mask_id, pad_id = bert.tokenizer.mask_id, bert.tokenizer.pad_id


@torch.inference_mode()
def usual(peer) -> list[float]:
    scores = []
    for ids in encoded:
        places = torch.arange(1, len(ids) - 1)
        rows, labels = ids.repeat(len(places), 1), torch.full((len(places), len(ids)), -100)
        rows[torch.arange(len(places)), places] = mask_id
        labels[torch.arange(len(places)), places] = ids[places]
        loss = peer(input_ids=rows, attention_mask=torch.ones_like(rows), labels=labels).loss
        scores.append(-loss.item() * len(places))
    return scores


@torch.inference_mode()
def padded(peer) -> list[float]:
    rows = [(number, place) for number, ids in enumerate(encoded) for place in range(1, len(ids) - 1)]
    scores = [0.0] * len(encoded)
    for begin in range(0, len(rows), 64):
        part = rows[begin : begin + 64]
        batch = torch.full((len(part), max(len(encoded[n]) for n, _ in part)), pad_id)
        real = torch.zeros_like(batch)
        for row, (number, place) in enumerate(part):
            batch[row, : len(encoded[number])] = encoded[number]
            real[row, : len(encoded[number])] = 1
            batch[row, place] = mask_id
        logits = peer(input_ids=batch, attention_mask=real).logits
        for row, (number, place) in enumerate(part):
            scores[number] += logits[row, place].log_softmax(-1)[encoded[number][place]].item()
    return scores


def work(way: str) -> None:
    """Score all sentences once for each line of standard input."""
    if way == "ours":
        score = lambda: bert.score(texts, "pll")  # noqa: E731
    else:
        import transformers

        transformers.logging.set_verbosity_error()
        peer = transformers.AutoModelForMaskedLM.from_pretrained(options.model).eval()
        score = lambda: {"usual": usual, "padded": padded}[way](peer)  # noqa: E731
    for _ in sys.stdin:
        began = time.process_time()
        scores = score()
        answer(cpu_s=time.process_time() - began, scores=scores)


def multiplications() -> float:
    """Theirs over ours, of the matrix products alone."""
    config = bert.model.config
    width, inner, count = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = width * width + width * config.vocab_size
    layer = 4 * width * width + (3 if config.mlp == "geglu" else 2) * width * inner
    scored, tokens = sum(len(ids) - 2 for ids in encoded), sum(len(ids) * (len(ids) - 2) for ids in encoded)
    # theirs: every layer and the head for every token of every copy. Ours: the first projection is made once for all
    # copies, the last layer and the head for one row of a copy (the last layer's keys too where they are rotated)
    keys = width * width if config.position == "rope" else 0
    row = scored / tokens
    ours = (count - 1) * layer - 3 * width * width + keys + (head + layer) * row
    return (count * layer + head) / ours


def main() -> None:
    workers = {way: Worker(way, [sys.executable, __file__, *sys.argv[1:], "--way", way]) for way in WAYS}
    first = {way: workers[way].ask()["scores"] for way in WAYS}
    difference = {w: max(abs(x - y) for x, y in zip(first["usual"], first[w], strict=True)) for w in WAYS[1:]}
    scored = sum(len(ids) - 2 for ids in encoded)
    print(json.dumps({"sentences": len(texts), "scored tokens": scored, "max difference of a score": difference}))
    assert max(difference.values()) <= 1e-3, "the numbers differ: nothing is timed"
    times = take_turns(WAYS, options.rounds, lambda way: workers[way].ask()["cpu_s"])
    for worker in workers.values():
        worker.end()
    for way, values in times.items():
        speeds = [scored / value for value in values]
        print(f"{way}: {statistics.median(speeds):,.0f} scored tokens/s [{min(speeds):,.0f}, {max(speeds):,.0f}]")
    for way in WAYS[:2]:
        print(f"{spread(ratios(times[way], times['ours']))} times as fast as {way}")
    print(f"multiplications: {multiplications():.2f} times fewer")


if __name__ == "__main__":
    work(options.way) if options.way else main()
