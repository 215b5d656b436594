"""Are joint fillings likelier than independent guesses?

    python benchmarks/scoring/joint_filling.py runs/pt

In 200 unseen sentences two or three words in a row, or apart, are hidden. Both answers are scored by the same joint
probability (`fastbert.filling`), and, as a check that does not favour the search, by the chain from left to right and
by each token's probability given all others.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from heldout import sentences

import fastbert
from fastbert.batch import pack_rows
from fastbert.filling import independent, joint_log_scores


def hide(bert, texts, apart: bool, count: int) -> list[list[int]]:
    """Two masks in one half of the rows, three in the other; [CLS] and [SEP] stay."""
    random, rows = np.random.default_rng(2), []
    for text in texts:
        ids = list(bert.tokenizer.encode(text).ids)
        number = 2 + len(rows) % 2
        inner = np.arange(1, len(ids) - 1)
        if len(inner) < 8:
            continue
        if apart:
            places = random.choice(inner, number, replace=False)
        else:
            first = random.integers(1, len(ids) - 1 - number)
            places = range(first, first + number)
        for place in places:
            ids[place] = bert.tokenizer.mask_id
        rows.append(ids)
        if len(rows) == count:
            break
    return rows


def log_probs(bert, rows, places, tokens) -> np.ndarray:
    """Log-probability of ``tokens`` at ``places`` of the rows."""
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    with torch.inference_mode():
        logits = bert.model.predict(pack_rows(rows, starts + np.array(places))).double().log_softmax(-1)
    return logits[torch.arange(len(rows)), torch.tensor(tokens)].numpy()


def left_to_right(bert, rows, fillings) -> np.ndarray:
    total, rows = np.zeros(len(rows)), [list(row) for row in rows]
    for number in range(3):
        live = [i for i, filling in enumerate(fillings) if number < len(filling)]
        places = [rows[i].index(bert.tokenizer.mask_id) for i in live]
        tokens = [fillings[i][number] for i in live]
        total[live] += log_probs(bert, [rows[i] for i in live], places, tokens)
        for i, place, token in zip(live, places, tokens, strict=True):
            rows[i][place] = token
    return total


def given_all_others(bert, rows, fillings) -> np.ndarray:
    total = np.zeros(len(rows))
    masks = [[i for i, token in enumerate(row) if token == bert.tokenizer.mask_id] for row in rows]
    for number in range(3):
        live = [i for i, filling in enumerate(fillings) if number < len(filling)]
        asked = []
        for i in live:
            row = list(rows[i])
            for place, token in zip(masks[i], fillings[i], strict=True):
                row[place] = token
            row[masks[i][number]] = bert.tokenizer.mask_id
            asked.append(row)
        total[live] += log_probs(bert, asked, [masks[i][number] for i in live], [fillings[i][number] for i in live])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--beam", type=int, default=16)
    options = parser.parse_args()
    bert = fastbert.load(options.run)
    texts = sentences(options.run)
    for apart in (False, True):
        rows = hide(bert, texts, apart, options.sentences)
        special = set(bert.tokenizer.special_ids)
        guesses = independent(bert.model, bert.tokenizer, rows, 8)
        alone = [[next(g["token"] for g in each if g["token"] not in special) for each in masks] for masks in guesses]
        for method in ("best-first", "beam"):
            found = bert._fill_together(rows, 1, method, options.beam, None, 1)
            together = [answers[0]["tokens"] for answers in found]
            measures = {
                "joint": lambda chosen, rows=rows: np.array(joint_log_scores(bert.model, bert.tokenizer, rows, chosen)),
                "left to right": lambda chosen, rows=rows: left_to_right(bert, rows, chosen),
                "given all others": lambda chosen, rows=rows: given_all_others(bert, rows, chosen),
            }
            different = np.array([a != b for a, b in zip(alone, together, strict=True)])
            result = {"masks": "apart" if apart else "in a row", "method": method, "sentences": len(rows)}
            result["different fillings"] = int(different.sum())
            for name, measure in measures.items():
                gain = measure(together) - measure(alone)
                result[name] = {
                    "higher": int((gain[different] > 0).sum()),
                    "equal": int((~different).sum()),
                    "lower": int((gain[different] <= 0).sum()),
                    "mean gain in nats": round(float(gain.mean()), 3),
                }
            print(json.dumps(result))


if __name__ == "__main__":
    main()
