"""Embeddings over HTTP: texts of mixed lengths from several clients, by fastbert.serve and by other servers.

    python benchmarks/serving/throughput.py MODEL [--texts 2000] [--clients 16] [--rounds 4]
        [--servers fastbert plain-threads plain-loop infinity-torch infinity-optimum] [--precision fp32]
        [--infinity PATH]

MODEL is a sentence-transformers directory, such as MiniLM's, for infinity-optimum with an ONNX file in ``onnx/``. Each
text is a request of its own; a client sends its next one when it has its answer. The servers stand side by side, each a
process on all cores, and answer in turns: a round gives a share of the texts to one after the other, to many clients
and then to one. The client reads bytes and parses them after the clock has stopped. ``plain`` needs fastapi and
sentence-transformers, ``infinity`` its command, also of another environment. What is not installed is left out and
named.

Checked before anything is reported: every vector against fastbert's own in float32, by cosine.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from texts import bundled  # noqa: E402

LEAST_COSINE = 0.9999
SERVERS = ("fastbert", "plain-threads", "plain-loop", "infinity-torch", "infinity-optimum")
WORDS = 120  # most of a text: no server truncates it, at 256 tokens or at 512
ALONE = 8  # a single client sends one in so many of the texts


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Running text of 3 to 120 words, most of them short, as requests are."""
    words = bundled("en").split()
    rng = random.Random(seed)
    lengths = [min(WORDS, max(3, round(rng.lognormvariate(3.2, 0.9)))) for _ in range(count)]
    starts = [rng.randrange(len(words) - WORDS) for _ in lengths]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def command_of(server: str, model: str, port: int, precision: str, infinity: str = "") -> list[str]:
    if server == "fastbert":
        return [sys.executable, "-m", "fastbert.serve", model, "--port", str(port), "--precision", precision]
    kind, _, engine = server.partition("-")
    if kind == "plain":
        return [sys.executable, str(HERE / "plain_server.py"), model, str(port), engine]
    return [infinity, "v2", "--model-id", model, "--served-model-name", Path(model).name, "--port", str(port),
            "--engine", engine, "--device", "cpu", "--dtype", "float32", "--url-prefix", "/v1",
            "--pooling-method", "mean", "--no-bettertransformer", "--no-compile", "--log-level", "error"]  # fmt: skip


def missing(server: str, infinity: str | None) -> str | None:
    """What a server lacks here."""
    if server.startswith("infinity"):
        return None if infinity else "the command infinity_emb"
    needs = ("starlette", "uvicorn") if server == "fastbert" else ("fastapi", "sentence_transformers")
    return next((package for package in needs if importlib.util.find_spec(package) is None), None)


def version_of(server: str, infinity: str | None) -> str:
    """Of the package, in the environment of its command."""
    kind = server.partition("-")[0]
    package = {"fastbert": "fastbert", "plain": "sentence-transformers", "infinity": "infinity-emb"}[kind]
    python = Path(infinity).with_name("python") if infinity and server.startswith("infinity") else sys.executable
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def running_process(
    server: str, model: str, precision: str, infinity: str = ""
) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server in its own process, ready to answer; yields the process and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"DO_NOT_TRACK": "1"}
    process = subprocess.Popen(
        command_of(server, model, port, precision, infinity), stdout=subprocess.DEVNULL, env=environment
    )
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


def check(server: str, cosine: float) -> None:
    if cosine < LEAST_COSINE:
        sys.exit(f"{server}: a cosine of {cosine:.6f} to the library's vector")


@dataclass
class Figures:
    """Of one server with so many clients."""

    speeds: list[float] = field(default_factory=list)  # texts a second, of each round
    seconds: list[float] = field(default_factory=list)  # of each request
    cosine: float = 1.0  # the least

    def percentile_ms(self, share: float) -> float:
        return float(np.percentile(self.seconds, share)) * 1000


Found = dict[tuple[str, int], Figures]  # by server and number of clients


def race(
    ports: dict[str, int], options: argparse.Namespace, texts: list[str], expected: np.ndarray, found: Found
) -> None:
    """Fill ``found``; the order of the servers turns from round to round."""
    for server, port in ports.items():  # warm
        check(server, least_cosine(measure(port, options.model, texts[:64], options.clients)[2], expected[:64]))
    for number in range(options.rounds):
        share, names = np.arange(number, len(texts), options.rounds), list(ports)
        for server in names[number % len(names) :] + names[: number % len(names)]:
            for clients in (options.clients, 1):
                rows = share if clients > 1 else share[::ALONE]
                asked = [texts[row] for row in rows]
                whole, each, answers = measure(ports[server], options.model, asked, clients)
                figures = found.setdefault((server, clients), Figures())
                figures.speeds.append(len(rows) / whole)
                figures.seconds += each
                figures.cosine = min(figures.cosine, least_cosine(answers, expected[rows]))
                check(server, figures.cosine)


def report(found: Found, options: argparse.Namespace) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {options.texts} texts")
    print("| server | clients | texts/s | fastbert / this, by round | p50, ms | p99, ms | least cosine |")
    print("|---|---|---|---|---|---|---|")
    for (server, clients), figures in found.items():
        version = version_of(server, options.infinity)
        own = found.get(("fastbert", clients), figures).speeds
        ratios = [ours / theirs for ours, theirs in zip(own, figures.speeds, strict=False)]
        print(
            f"| {server} {version} | {clients} | {statistics.median(figures.speeds):,.1f} | "
            f"{np.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f}) | {figures.percentile_ms(50):.1f} | "
            f"{figures.percentile_ms(99):.1f} | {figures.cosine:.6f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"), help="of fastbert")
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--infinity", default=shutil.which("infinity_emb"), help="its command")
    options = parser.parse_args()
    import fastbert

    texts = make_texts(options.texts)
    expected = fastbert.load(options.model, precision="fp32").embed(texts)
    with contextlib.ExitStack() as stack:
        ports = {}
        for server in options.servers:
            if lacks := missing(server, options.infinity):
                print(f"{server}: left out, {lacks} is not installed")
                continue
            running = running_process(server, options.model, options.precision, options.infinity or "")
            ports[server] = stack.enter_context(running)[1]
        found: Found = {}
        try:
            race(ports, options, texts, expected, found)
        finally:  # Ctrl-C shows the rounds so far
            report(found, options)


if __name__ == "__main__":
    main()
