"""Are joint fillings likelier than independent guesses?

    python benchmarks/scoring/joint_filling.py runs/pt

In 200 unseen sentences two tokens (in every second one three) are hidden: "in a row"; "apart", anywhere; "whole words",
neighbouring words that make so many tokens; "one word" of so many pieces. All answers are scored by the same joint
probability (`fastbert.inference.fill_mask`), and, as a check that does not favour the search, by the chain from left to
right and by each token's probability given all others. The exact search is the certificate: where it proves the
independent guesses to be the likeliest filling, no method can be higher.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from heldout import sentences

import fastbert
from fastbert.batch import pack_rows
from fastbert.inference.fill_mask import independent, joint_log_scores

KINDS = ("in a row", "apart", "whole words", "one word")


def places_to_hide(encoding, kind: str, number: int, random) -> list[int]:
    """``number`` tokens of a text to be hidden; none where the text has no such."""
    inner = np.arange(1, len(encoding.ids) - 1)
    if len(inner) < 8:
        return []
    if kind == "apart":
        return sorted(random.choice(inner, number, replace=False).tolist())
    starts = list(range(1, len(encoding.ids) - number))
    if kind == "in a row":
        return list(range(first := int(random.choice(starts)), first + number))
    words = encoding.word_ids  # the special tokens' are None
    whole = [s for s in starts if words[s - 1] != words[s] and words[s + number - 1] != words[s + number]]
    whole = [s for s in whole if (words[s] == words[s + number - 1]) == (kind == "one word")]
    return list(range(first := int(random.choice(whole)), first + number)) if whole else []


def hide(bert, texts, kind: str, count: int) -> list[list[int]]:
    """Two masks in one half of the rows, three in the other; [CLS] and [SEP] stay."""
    random, rows = np.random.default_rng(2), []
    for text in texts:
        encoding = bert.tokenizer.encode(text)
        ids = list(encoding.ids)
        for place in (places := places_to_hide(encoding, kind, 2 + len(rows) % 2, random)):
            ids[place] = bert.tokenizer.mask_id
        rows += [ids] if places else []
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
    parser.add_argument("--passes", type=int, default=2000, help="of the exact search, for a text")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    bert = fastbert.load(options.run)
    texts = sentences(options.run)
    for kind in options.kinds:
        rows = hide(bert, texts, kind, options.sentences)
        special = set(bert.tokenizer.special_ids)
        guesses = independent(bert.model, bert.tokenizer, rows, 8)
        alone = [[next(g["token"] for g in each if g["token"] not in special) for each in masks] for masks in guesses]
        exact = bert._fill_exactly(rows, 1, options.beam, None, 1, options.passes)
        best = np.array(joint_log_scores(bert.model, bert.tokenizer, rows, [found[0]["tokens"] for found in exact]))
        proven = np.array([found[0]["proven"] for found in exact])
        for method in ("best-first", "beam", "exact"):
            found = exact if method == "exact" else bert._fill_together(rows, 1, method, options.beam, None, 1)
            together = [answers[0]["tokens"] for answers in found]
            measures = {
                "joint": lambda chosen, rows=rows: np.array(joint_log_scores(bert.model, bert.tokenizer, rows, chosen)),
                "left to right": lambda chosen, rows=rows: left_to_right(bert, rows, chosen),
                "given all others": lambda chosen, rows=rows: given_all_others(bert, rows, chosen),
            }
            different = np.array([a != b for a, b in zip(alone, together, strict=True)])
            result = {"masks": kind, "method": method, "sentences": len(rows), "proven": int(proven.sum())}
            result["the likeliest"] = int((proven & (measures["joint"](together) > best - 1e-4)).sum())
            result["guesses alone are the likeliest"] = int((proven & (measures["joint"](alone) > best - 1e-4)).sum())
            for name, measure in measures.items():
                gain = measure(together) - measure(alone)
                two = np.arange(len(rows)) % 2 == 0
                result[name] = {
                    "higher": int((gain[different] > 0).sum()),
                    "equal": int((~different).sum()),
                    "lower": int((gain[different] <= 0).sum()),
                    "higher, two masks": int((gain[different & two] > 0).sum()),
                    "mean gain in nats": round(float(gain.mean()), 3),
                }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
