"""The main job in a minute, from an installed wheel: text → vocabulary → training → predictions, and the two cores.

Run with ``pytest --pyargs fastbert.smoke_tests`` in the environment fastbert is installed in.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastbert
from fastbert import layers
from fastbert.data import Corpus
from fastbert.system import native

DIALOGUE = (
    "Bom dia, como você está?",
    "Estou bem, obrigado, e você?",
    "Também estou bem; vamos tomar um café?",
    "Vamos, conheço um lugar perto da praça.",
)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=600, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a few steps on four lines."""
    root = tmp_path_factory.mktemp("smoke")
    (root / "dialogue.txt").write_text("\n".join(DIALOGUE) + "\n", encoding="utf-8")
    options = ("--preset", "tiny", "--steps", "20", "--threads", "1")
    run("fastbert.train", "--data", "dialogue.txt", "--output", "trained", *options, cwd=root)
    return root / "trained"


def test_the_native_core_is_there():
    assert native.core("cpp") is not None, "the wheel holds no C++ core"


def test_both_tokenizers_agree(trained):
    texts = [*DIALOGUE, "Ação! “Coração” não-sei… 世界 a\u0301", "", "x" * 300]
    quick, readable = (
        fastbert.Tokenizer.load(trained, impl=impl).encode_batch(texts, add_special_tokens=True)
        for impl in ("cpp", "reference")
    )
    assert np.array_equal(quick.input_ids, readable.input_ids) and np.array_equal(quick.offsets, readable.offsets)


def test_training_wrote_a_whole_run(trained):
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "metrics.jsonl", "run.json"):
        assert (trained / name).is_file(), name
    assert json.loads((trained / "config.json").read_text(encoding="utf-8"))["vocab_size"] > 5


def test_predictions(trained):
    done = run("fastbert.predict", str(trained), "Bom [MASK], como você está?", "--top-k", "3", cwd=trained.parent)
    assert "Bom [MASK]" in done.stdout and "%" in done.stdout
    answers = fastbert.load(trained).fill_mask("Vamos, conheço um [MASK].", top_k=2)
    assert len(answers) == 2 and 0.0 <= answers[1]["score"] <= answers[0]["score"] <= 1.0


def test_resume(trained):
    done = run("fastbert.train", "--resume", "--output", str(trained), "--steps", "22", cwd=trained.parent)
    assert "22" in done.stdout


def test_bundled_text_came_along():
    assert next(iter(Corpus(["bundled:pt"]).documents())).lines


def test_layers_in_another_model():
    attention = layers.MultiHeadAttention(32, 2)
    hidden = torch.randn(2, 5, 32, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    attention(hidden, attention_mask=mask).sum().backward()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()
