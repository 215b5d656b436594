"""Does `score` prefer a real sentence to its words in another order?

    python -m fastbert.train --output runs/pt          # the default: five minutes, the bundled Portuguese
    python benchmarks/scoring/shuffled.py runs/pt

Sentences are from the documents that the run kept unseen, at least five words long.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from heldout import sentences

import fastbert


def shuffled(text: str, random: np.random.Generator) -> str:
    words = text.split()
    while True:
        other = [words[i] for i in random.permutation(len(words))]
        if other != words or len(set(words)) == 1:
            return " ".join(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--method", choices=("l2r", "pll"), default="l2r")
    options = parser.parse_args()
    real = sentences(options.run)[: options.pairs]
    random = np.random.default_rng(1)
    other = [shuffled(text, random) for text in real]
    bert = fastbert.load(options.run)
    began_s = time.process_time()
    scores = np.array(bert.score(real + other, options.method)).reshape(2, -1)
    right = scores[0] > scores[1]
    for text in np.array(real)[~right][:5]:
        print("not preferred:", text)
    result = {"pairs": len(real), "preferred": float(right.mean()), "method": options.method}
    print(json.dumps(result | {"cpu_s": round(time.process_time() - began_s, 1)}))


if __name__ == "__main__":
    main()
