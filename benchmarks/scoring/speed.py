"""Pseudo-log-likelihoods: fastbert against transformers, the same weights, texts and numbers.

    python benchmarks/scoring/speed.py MODEL texts.txt [--sentences 64] [--threads 1]

MODEL is a BERT directory with a masked-LM head. Peers, both with method "pll":
  usual   one sentence at a time, one row for each hidden token, `labels` with -100: the recipe everybody copies
          (log_softmax over the vocabulary at every position)
  padded  rows of several sentences in padded batches of 64, the logits read at the hidden places only
Checked first: every sentence's score to 1e-3. Then timed in turns; CPU time, because the machine may be busy.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("texts", type=Path)
parser.add_argument("--sentences", type=int, default=64)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=3)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import torch  # noqa: E402
import transformers  # noqa: E402

import fastbert  # noqa: E402

torch.set_num_threads(options.threads)
bert = fastbert.load(options.model)
peer = transformers.AutoModelForMaskedLM.from_pretrained(options.model).eval()
lines = [line.strip() for line in options.texts.read_text(encoding="utf-8").splitlines()]
texts = [line for line in lines if 4 <= len(line.split()) <= 40][: options.sentences]
encoded = [torch.tensor(bert.tokenizer.encode(text).ids) for text in texts]
mask_id, pad_id = bert.tokenizer.mask_id, bert.tokenizer.pad_id


@torch.inference_mode()
def usual() -> list[float]:
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
def padded() -> list[float]:
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


def ours() -> list[float]:
    return bert.score(texts, "pll")


wanted = usual()
difference = {way.__name__: max(abs(x - y) for x, y in zip(wanted, way(), strict=True)) for way in (padded, ours)}
print(json.dumps({"sentences": len(texts), "tokens": sum(map(len, encoded)), "max difference": difference}))
assert max(difference.values()) <= 1e-3, "the numbers differ: nothing is timed"
times: dict = {way: [] for way in (usual, padded, ours)}
for _ in range(options.rounds):
    for way in times:
        began = time.process_time()
        way()
        times[way].append(time.process_time() - began)
medians = {way.__name__: statistics.median(values) for way, values in times.items()}
shown = {name: round(value, 2) for name, value in medians.items()}
print(json.dumps({"CPU seconds, medians": shown, "threads": options.threads}))
for name in ("usual", "padded"):
    print(f"{medians[name] / medians['ours']:.2f} times as fast as {name}")
