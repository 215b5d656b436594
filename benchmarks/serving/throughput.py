"""Embeddings over HTTP: texts of mixed lengths from several clients, by fastbert.serve and by other servers.

    python benchmarks/serving/throughput.py MODEL [--texts 2000] [--clients 16] [--repeats 3]
        [--servers fastbert plain infinity] [--precision fp32]

MODEL is a sentence-transformers directory, such as MiniLM's. Each text is a request of its own; a client sends its next
one when it has its answer. All servers get the same texts in the same order, in turns, each in a process of its own on
all cores; the client reads bytes and parses them after the clock has stopped. ``plain`` needs fastapi and
sentence-transformers, ``infinity`` needs infinity-emb: what is not installed is left out and named.

Checked before anything is reported: every vector against fastbert's own in float32, by cosine.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from texts import bundled  # noqa: E402

LEAST_COSINE = 0.9999
NEEDS = {"fastbert": ("starlette", "uvicorn"), "plain": ("fastapi", "sentence_transformers"),
         "infinity": ("infinity_emb",)}  # fmt: skip
PACKAGES = {"fastbert": "fastbert", "plain": "sentence-transformers", "infinity": "infinity-emb"}


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Running text of 3 to 200 words, most of them short, as requests are."""
    words = bundled("en").split()
    rng = random.Random(seed)
    lengths = [min(200, max(3, round(rng.lognormvariate(3.2, 0.9)))) for _ in range(count)]
    starts = [rng.randrange(len(words) - 200) for _ in lengths]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def command_of(server: str, model: str, port: int, precision: str) -> list[str]:
    ours = [sys.executable, "-m", "fastbert.serve", model, "--port", str(port), "--precision", precision]
    return {
        "fastbert": ours,
        "plain": [sys.executable, str(HERE / "plain_server.py"), model, str(port)],
        "infinity": ["infinity_emb", "v2", "--model-id", model, "--port", str(port), "--engine", "torch",
                     "--device", "cpu", "--url-prefix", "/v1", "--no-bettertransformer"],
    }[server]  # fmt: skip


@contextlib.contextmanager
def running_process(server: str, model: str, precision: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server in its own process, ready to answer; yields the process and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(command_of(server, model, port, precision), stdout=subprocess.DEVNULL, env=os.environ)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/v1/embeddings",
                    json.dumps({"input": ["ready?"], "model": Path(model).name}).encode(),
                    {"Content-Type": "application/json"},
                )
                urllib.request.urlopen(request, timeout=60).read()
                break
            if process.poll() is not None:
                sys.exit(f"{server}: ended with {process.returncode}")
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(20)


async def client(port: int, requests: list[tuple[int, bytes]], answers: dict[int, bytes], seconds: list[float]) -> None:
    """Take requests until none is left, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    while requests:
        number, request = requests.pop()
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
        answers[number] = await reader.readexactly(int(lines[b"content-length"]))
        seconds.append(time.perf_counter() - began)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            sys.exit(f"{head.decode()}{answers[number].decode()[:300]}")
    writer.close()


def measure(port: int, model: str, texts: list[str], clients: int) -> tuple[float, list[float], dict[int, bytes]]:
    """(seconds in all, seconds of each request, answers)."""
    bodies = [json.dumps({"input": [text], "model": Path(model).name}).encode() for text in texts]
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    requests = [(i, f"{head}Content-Length: {len(b)}\r\n\r\n".encode() + b) for i, b in enumerate(bodies)][::-1]
    answers: dict[int, bytes] = {}
    seconds: list[float] = []

    async def everyone() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client(port, requests, answers, seconds) for _ in range(clients)))
        return time.perf_counter() - began

    return asyncio.run(everyone()), seconds, answers


def least_cosine(answers: dict[int, bytes], expected: np.ndarray) -> float:
    found = np.array([json.loads(answers[i])["data"][0]["embedding"] for i in range(len(expected))], np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(1) / lengths).min())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"), help="of fastbert")
    parser.add_argument("--servers", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    options = parser.parse_args()
    import fastbert

    texts = make_texts(options.texts)
    expected = fastbert.load(options.model, precision="fp32").embed(texts)
    servers = []
    for server in options.servers:
        missing = [package for package in NEEDS[server] if importlib.util.find_spec(package) is None]
        if missing:
            print(f"{server}: left out, {missing[0]} is not installed")
        else:
            servers.append(server)
    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for _ in range(options.repeats):
        for server in servers:
            with running_process(server, options.model, options.precision) as (_, port):
                measure(port, options.model, texts[:64], options.clients)  # warm
                for clients in (options.clients, 1):
                    some = texts if clients > 1 else texts[: max(1, len(texts) // 8)]
                    whole, each, answers = measure(port, options.model, some, clients)
                    cosine = least_cosine(answers, expected[: len(some)])
                    if cosine < LEAST_COSINE:
                        sys.exit(f"{server}: a cosine of {cosine:.6f} to the library's vector")
                    p50, p99 = np.percentile(each, [50, 99]) * 1000
                    rows.setdefault((server, clients), []).append((len(some) / whole, p50, p99))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {len(texts)} texts")
    print("| server | clients | texts/s | p50, ms | p99, ms |\n|---|---|---|---|---|")
    for (server, clients), found in rows.items():
        version = importlib.metadata.version(PACKAGES[server])
        speed, p50, p99 = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {server} {version} | {clients} | {speed:,.0f} | {p50:.1f} | {p99:.1f} |")


if __name__ == "__main__":
    main()
