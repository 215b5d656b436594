"""What the kernels' benchmark times on a GPU: the device's work, not the host's and not a compiler's."""

import contextlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """benchmarks/test_kernels.py, which pytest would know by the name of this folder's files."""
    pytest.importorskip("pytest_benchmark")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("kernel_benchmarks", BENCHMARKS / "test_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("harness", "kernel_contestants"):
        sys.modules.pop(name, None)


def test_flex_attention_is_compiled_once(benchmark_module, monkeypatch):
    contestants = sys.modules["kernel_contestants"]
    compiled = []

    def stand_in(function):
        compiled.append(function)
        return F.scaled_dot_product_attention

    monkeypatch.setattr(torch, "compile", stand_in)
    versions, leaves, *_ = contestants.attention(64, 16, 32)
    for _ in range(3):
        versions["flex_attention"](*leaves)
    assert len(compiled) == 1


def test_a_replay_is_timed_without_the_hosts_work(benchmark_module, monkeypatch):
    replays = []
    graph = types.SimpleNamespace(replay=lambda: replays.append(1))
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream, "current_stream": lambda: stream, "CUDAGraph": lambda: graph,
        "stream": lambda _: contextlib.nullcontext(), "graph": lambda _: contextlib.nullcontext(),
        "synchronize": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    calls = []
    leaf = torch.ones(2, requires_grad=True)
    timed = benchmark_module.captured(lambda x: calls.append(1) or x * 2, [leaf], torch.ones(2))
    before = len(calls)
    timed()
    timed()
    assert before >= 2 and len(calls) == before and len(replays) == 2
