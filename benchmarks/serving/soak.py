"""A server under load for a long time: right answers, no error but those that were asked for, flat memory, a clean end.

    python benchmarks/serving/soak.py MODEL [--minutes 20] [--clients 64]

Each client sends texts of random lengths, one after the other; one request in twenty is malformed, and one in twenty
is abandoned before its answer. Every answer is compared with the library's vector. Memory is the resident set, read
each second; its median is printed for each tenth of the time. The first tenth is warm-up, in which oneDNN compiles its
code and the allocator gets its pools; the second and the last are compared. At the end it is stopped with a request of
every client under way. Exit code 1 if anything fails.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from throughput import LEAST_COSINE, make_texts, running_process

MALFORMED = (
    b"{",
    b"[]",
    b'{"input": 3}',
    b'{"texts": ["a"]}',
    b'{"input": []}',
    b"\xff",
    b'{"input": "a", "model": "../x"}',
)
MEMORY_GROWTH = 0.05
STOP_S = 5.0
TENTHS = 10


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def request_of(port: int, body: bytes) -> bytes:
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def client(
    port: int, texts: list[str], vectors: np.ndarray, until: float, seed: int, found: dict[str, int]
) -> None:
    """Ask until the time is over; counts what happened in ``found``."""
    rng = random.Random(seed)
    reader = writer = None
    while time.monotonic() < until:
        if writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        kind = rng.random()
        number = rng.randrange(len(texts))
        body = rng.choice(MALFORMED) if kind < 0.05 else json.dumps({"input": texts[number]}).encode()
        writer.write(request_of(port, body))
        if 0.05 <= kind < 0.1:
            await asyncio.sleep(rng.random() * 0.05)
            writer.close()
            writer = None
            found["abandoned"] += 1
            continue
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if b": " in line)
        answer = json.loads(await reader.readexactly(int(lines[b"content-length"])))
        status = int(head.split(b" ", 2)[1])
        if kind < 0.05:
            found["refused" if 400 <= status < 500 else "wrong"] += 1
        elif status == 503:
            found["full"] += 1
            await asyncio.sleep(0.1)
        else:
            vector = np.array(answer["data"][0]["embedding"]) if status == 200 else np.zeros(vectors.shape[1])
            cosine = vector @ vectors[number] / max(np.linalg.norm(vector), 1e-9)
            found["right" if status == 200 and cosine >= LEAST_COSINE else "wrong"] += 1
    if writer is not None:
        writer.close()


async def load(
    port: int, pid: int, texts: list[str], vectors: np.ndarray, seconds: float, clients: int
) -> tuple[dict[str, int], list[int]]:
    """All clients; (what happened, the median of the server's memory in each tenth of the time, in bytes)."""
    found = dict.fromkeys(("right", "refused", "abandoned", "full", "wrong"), 0)
    until = time.monotonic() + seconds
    tasks = [asyncio.ensure_future(client(port, texts, vectors, until, seed, found)) for seed in range(clients)]
    sizes = []
    while time.monotonic() < until:
        sizes.append(resident_bytes(pid))
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)
    return found, [int(np.median(part)) for part in np.array_split(sizes, TENTHS)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    import fastbert

    texts = make_texts(500)
    vectors = fastbert.load(options.model, precision="fp32").embed(texts)
    with running_process("fastbert", options.model, "fp32") as (process, port):
        found, memory = asyncio.run(load(port, process.pid, texts, vectors, options.minutes * 60, options.clients))
        parting = []
        for text in texts[: options.clients]:  # it stops while it has work
            parting.append(socket.create_connection(("127.0.0.1", port)))
            parting[-1].sendall(request_of(port, json.dumps({"input": text}).encode()))
        began = time.monotonic()
        process.terminate()
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            code = None
        stop_s = time.monotonic() - began
    growth = memory[-1] / memory[1] - 1
    print(f"{found}; stopped with {code} in {stop_s:.1f} s")
    print("memory, MiB:", *(f"{size / 2**20:.0f}" for size in memory), f"({growth:+.1%} after the first tenth)")
    fine = not found["wrong"] and found["right"] and abs(growth) <= MEMORY_GROWTH and code == 0 and stop_s <= STOP_S
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
