"""The tuner on the CPU: the interpreter runs the kernels, and a made-up stopwatch prefers one configuration."""

import json

import pytest
import torch

from fastbert.kernels import configs
from fastbert.kernels.launch import Config
from fastbert.tune import TuneOptions, candidates, fastest, workloads

OPTIONS = TuneOptions(hidden_size=64, length=16, tokens=32, dtype="float32")


def test_the_stopwatchs_favourite_is_written_and_read_back(tmp_path, monkeypatch):
    torch.manual_seed(0)
    work = workloads(OPTIONS, "cpu")["bias_gelu"]
    with configs.observed() as asked:
        work()
    assert {op for op, _ in asked.values()} == {"gelu_forward", "gelu_backward"}
    key, (op, static) = next((k, v) for k, v in asked.items() if v[0] == "gelu_forward")
    favourite = Config({"BLOCK_T": 32, "BLOCK_F": 32}, 8, 1)
    assert favourite in list(candidates(op, static))
    monkeypatch.setenv("FASTBERT_TUNED", str(tmp_path / "tuned" / "kernels.json"))
    best = fastest(op, static, work, lambda _: 1.0 if configs.pick(op, "x", 4, 0, static) == favourite else 2.0)
    assert best == favourite
    configs.write_overlay(configs.overlay_path(), {key: best})
    assert json.loads(configs.overlay_path().read_text())[key]["blocks"] == favourite.blocks
    assert configs.pick(op, *_parts(key), static) == favourite
    assert configs.pick(op, "sm_80", 2, 7, static) == static  # another key keeps the table's
    before = work()
    monkeypatch.setenv("FASTBERT_TUNED", str(tmp_path / "none.json"))
    for tuned, plain in zip(before, work(), strict=True):
        torch.testing.assert_close(tuned, plain)


def _parts(key):
    _, arch, itemsize, size = key.split("/")
    return arch, int(itemsize), int(size)


def test_a_candidate_that_changes_the_result_never_wins():
    state = {"calls": 0}

    def work():
        state["calls"] += 1
        return [torch.full((3,), float(state["calls"] > 1))]

    static = Config({"BLOCK_T": 16, "BLOCK_F": 64})
    assert fastest("gelu_forward", static, work, lambda _: 1.0 / (1 + state["calls"])) == static


@pytest.mark.parametrize(("op", "blocks", "free"), [
    ("add_layer_norm_forward", {"BLOCK": 1024}, set()),
    ("attention_backward_one_block_bias", {"BLOCK_M": 32, "BLOCK_N": 128}, {"BLOCK_M"}),
    ("attention_forward", {"BLOCK_M": 16, "BLOCK_N": 64}, {"BLOCK_M", "BLOCK_N"}),
])  # fmt: skip
def test_blocks_that_the_problem_fixes_stay(op, blocks, free):
    found = list(candidates(op, Config(blocks)))
    assert found[0] == Config(blocks) and len(found) == len(set(map(repr, found)))
    for name, size in blocks.items():
        assert ({c.blocks[name] for c in found} != {size}) == (name in free)
    assert all(c.blocks.get("BLOCK_M", 16) >= 16 for c in found)  # what tl.dot takes at least
