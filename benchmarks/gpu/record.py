"""What the phases of the visit share: facts in a file, times of the device and the host, shapes, a batch.

``VISIT_SMALL=1`` shrinks every shape, to try the script where there is no time, or no GPU.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from fastbert.batch import PackedBatch, pack_rows
from fastbert.config import BertConfig

BEGAN_S = time.monotonic()
OUT = Path(os.environ.get("OUT", "build/gpu-visit"))
SMALL = os.environ.get("VISIT_SMALL") == "1"
VOCAB = 300 if SMALL else 30522
# data sheet of an H200, until this card's own ceilings are measured
DATA_SHEET = {"bytes_s": 4.8e12, "flops": 989e12}


def fact(kind: str, **values: Any) -> None:
    """Append one fact; it survives whatever happens next."""
    line = json.dumps({"kind": kind, **values}, default=str)
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)


def facts_of(*kinds: str) -> list[dict]:
    file = OUT / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [found for line in lines if (found := json.loads(line)).get("kind") in kinds]


@contextlib.contextmanager
def attempt(kind: str, **values: Any) -> Iterator[None]:
    """What fails is a fact too, and the next thing is tried."""
    try:
        yield
    except Exception as error:
        traceback.print_exc(limit=-4)
        message = str(error).splitlines()
        fact(kind, **values, failed=f"{type(error).__name__}: {message[0][:200] if message else ''}")


def time_left(seconds: float) -> bool:
    """Whether this phase has run for less than ``seconds``."""
    return time.monotonic() - BEGAN_S < seconds


def device_ms(function: Callable[[], Any], repeats: int = 20) -> float:
    """Median milliseconds on the device: replays of a CUDA graph, without the host; else between two events."""
    if not SMALL:
        from triton.testing import do_bench_cudagraph

        with contextlib.suppress(RuntimeError):
            return do_bench_cudagraph(function, rep=repeats, return_mode="median")
        torch.cuda.synchronize()
    times = []
    for _ in range(2 if SMALL else 12):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[1:])


def seconds_of(step: Callable[[], Any], steps: int, warm: int = 4) -> tuple[float, float]:
    """(seconds, seconds of the host alone) of one call."""
    steps, warm = (1, 1) if SMALL else (steps, warm)
    for _ in range(warm):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    queued = time.perf_counter() - began
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps, queued / steps


def ceilings() -> tuple[float, float]:
    """Bytes a second and bf16 FLOPs a second, as measured by the phase "facts"."""
    found = [x for x in facts_of("ceilings") if "bytes_s" in x]
    best = found[-1] if found else DATA_SHEET
    return best["bytes_s"], best["flops"]


def config_of(preset: str, arch: str, **changes: Any) -> BertConfig:
    return BertConfig.preset("tiny" if SMALL else preset, arch, vocab_size=VOCAB, **changes)  # type: ignore[arg-type]


def make_batch(tokens: int, length: int, rate: float = 0.3, ragged: bool = False) -> PackedBatch:
    """Random tokens in sequences of ``length``, or of a quarter of it and more."""
    generator = torch.Generator().manual_seed(0)
    count = max(tokens // length, 1)
    lengths = [length] * count
    if ragged:
        lengths = torch.randint(max(length // 4, 2), length + 1, (count,), generator=generator).tolist()
    rows = [torch.randint(5, VOCAB, (n,), generator=generator).numpy() for n in lengths]
    total = sum(lengths)
    masked = torch.randperm(total, generator=generator)[: max(int(total * rate), 1)].sort().values
    batch = pack_rows(rows, masked.numpy())
    return dataclasses.replace(batch, labels=batch.input_ids[masked].clone())


def useful_flops(config: BertConfig, tokens: int, length: int, masked: int) -> float:
    """6 a weight and token, the head's on masked tokens only, and attention's products."""
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    of_layer = 4 * width * width + (3 if config.mlp == "geglu" else 2) * width * inner
    attention = 12 * layers * tokens * length * width
    return 6 * tokens * layers * of_layer + attention + 6 * masked * (width * width + width * config.padded_vocab_size)
