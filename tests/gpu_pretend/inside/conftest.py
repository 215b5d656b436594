"""What the tests on the pretended GPU share; they run in a process that ``python -m pretended -m pytest`` started."""

import sys
from pathlib import Path

import pytest

import support

TINY = (
    "--preset", "tiny", "--vocab-size", 300, "--batch-tokens", 256, "--max-length", 32, "--threads", 1,
    "--evaluations", 1, "--eval-tokens", 64, "--seed", 3,
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def on_a_pretended_gpu():
    assert "pretended" in sys.modules, "start these tests by tests/gpu_pretend/test_on_a_pretended_gpu.py"


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    support.write_corpus(folder / "text.txt")
    return folder


@pytest.fixture(scope="session")
def train(work):
    """``train(name, *options)``: a run on the GPU, or with ``device="cpu"`` the reference on the CPU; its directory."""

    def train(name, *options, device="cuda", **environment):
        if device == "cpu":
            environment["FASTBERT_IMPL"] = "reference"
        data = () if "--resume" in options else ("--data", work / "text.txt", *TINY, "--device", device)
        done = support.train(*data, "--output", work / name, *options, cwd=work, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return work / name

    return train


@pytest.fixture(scope="session")
def models(work) -> dict[str, Path]:
    """Architecture → directory of a tiny model with noisy weights."""
    vocab = [*support.SPECIAL, *sorted({*support.WORDS, *".abcdefghijklmnopqrstuvwxyz", "quem", "x"})]
    folders = {}
    for arch, options in (("modern", {"window": 6}), ("roformer", {}), ("classic", {})):
        folders[arch] = work / f"model-{arch}"
        support.make_bert(vocab, arch, **options).save(folders[arch])
    return folders
