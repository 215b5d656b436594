"""A million short texts, killed on the way and continued: the same rows, in memory that does not grow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastbert
from support import make_bert

WORDS = ["um", "dois", "três", "gato", "casa"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
COUNT = 1_000_000


def text(i: int) -> str:
    return " ".join(WORDS[(i // 5**k) % 5] for k in range(1 + i % 7))


def anonymous_bytes(process: subprocess.Popen) -> int:
    """Memory of its own, without the files it maps."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_million_texts(tmp_path):
    make_bert(VOCAB).save(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("".join(f"{text(i)}\n" for i in range(COUNT)), encoding="utf-8")
    command = [sys.executable, "-m", "fastbert.embed", "model", "texts.txt", "--output", "out.npy", "--threads", "1"]

    def started() -> subprocess.Popen:
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)

    began = time.monotonic()
    first = started()
    time.sleep(20)
    assert first.poll() is None, "done before it was killed"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "out.npy").exists(), "nothing is whole yet"

    second, sizes = started(), []
    while second.poll() is None:
        sizes.append(anonymous_bytes(second))
        time.sleep(0.25)
    assert second.returncode == 0
    quarter = max(1, len(sizes) // 4)
    print(f"{COUNT:,} texts, {time.monotonic() - began:.0f} s, {max(sizes[:quarter]) >> 20} MB in the first quarter, "
          f"{max(sizes) >> 20} MB at most")  # fmt: skip
    assert max(sizes) <= max(sizes[:quarter]) + (16 << 20)
    vectors = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert len(vectors) == COUNT
    some = [0, 1, 4095, 4096, COUNT // 2, COUNT - 1, *np.random.default_rng(0).integers(0, COUNT, 200).tolist()]
    expected = fastbert.load(tmp_path / "model").embed([text(i) for i in some])
    cosines = (vectors[some] * expected).sum(1)
    assert cosines.min() >= 0.9999
    assert sorted(os.listdir(tmp_path)) == ["model", "out.npy", "texts.txt"]
