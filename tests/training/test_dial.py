"""The size of a new model is the one foreseen to learn most in the minutes, by its measured speed."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import fastbert
from fastbert.config import PRESETS, BertConfig
from fastbert.distributed.world import World
from fastbert.system.errors import InputError
from fastbert.training import dial
from fastbert.training.new_model import Architecture
from fastbert.training.options import TrainOptions
from support import train

BATCH = SimpleNamespace(num_tokens=2048)


def plan(preset: str | None, minutes: float = 5.0, size_open: bool = True, arch: str = "modern"):
    return SimpleNamespace(
        preset=preset or "mini", size_open=size_open and preset is None, minutes=minutes, arch=arch, objective="mlm",
        threads=None, pass_tokens=2048, mask_rate=SimpleNamespace(rate=lambda progress: 0.3),
    )  # fmt: skip


@pytest.fixture
def machine(monkeypatch):
    """``machine(seconds)``: where a step of mini takes so long, tiny a fifth of it."""
    measured: list[str] = []
    monkeypatch.setattr(fastbert, "IMPORTED_AT_S", time.monotonic())  # from where minutes count

    def of(mini_s: float) -> list[str]:
        seconds = {"tiny": 0.2 * mini_s, "mini": mini_s}
        batches = SimpleNamespace(evaluation_batches=lambda rate, max_tokens: iter([BATCH]), close=lambda: None)
        monkeypatch.setattr(dial, "training_loader", lambda *of: batches)
        monkeypatch.setattr(dial, "check_memory", lambda *of: None)
        monkeypatch.setattr(dial, "step_seconds", lambda p, batch: measured.append(p.preset) or seconds[p.preset])
        return measured

    return of


def settled(**of) -> tuple[str, list[str]]:
    said: list[str] = []
    one = dial.with_best_size(lambda preset: plan(preset, **of), None, None, World(), said.append)
    return one.preset, said


def test_a_slow_machine_gets_a_small_model_and_a_fast_one_a_large_model(machine):
    measured = machine(0.2)
    preset, (said,) = settled()
    assert preset == "tiny" and measured == ["tiny", "mini"]
    assert said.startswith("size: tiny") and "mini" in said and "--preset" in said
    assert "a loss of about" in said and "loss" not in settled(arch="classic")[1][0]  # of modern are the curves
    machine(0.002)
    assert settled()[0] == "mini"


def test_more_minutes_never_choose_a_smaller_model(machine):
    machine(0.1)
    sizes = [list(PRESETS).index(settled(minutes=minutes)[0]) for minutes in (1, 5, 20, 60, 240, 1440, 10_000)]
    assert sizes == sorted(sizes) and sizes[0] == 0 and sizes[-1] > 0


def test_nothing_is_measured_where_the_size_is_settled(machine):
    measured = machine(0.2)
    assert settled(size_open=False) == ("mini", []) and not measured


def test_what_does_not_fit_into_memory_is_not_chosen(machine, monkeypatch):
    machine(0.002)

    def check_memory(one, world):
        if one.preset != "tiny":
            raise InputError("too large")

    monkeypatch.setattr(dial, "check_memory", check_memory)
    assert settled()[0] == "tiny"


def test_a_resumed_run_keeps_its_size():
    small = BertConfig.preset("small", vocab_size=60)
    assert Architecture.of(TrainOptions(), small).preset == "small"
    assert Architecture.of(TrainOptions(preset="mini")).preset == "mini"
    assert Architecture.of(TrainOptions(), replace(small, num_hidden_layers=3)).preset == "3×512"


def test_curves_fall_and_the_larger_one_wins_in_the_end():
    assert dial.CURVES["mini"].loss(1e12) < dial.CURVES["tiny"].loss(1e12)
    assert all(curve.loss(1e6) > curve.loss(1e7) > curve.loss(1e9) for curve in dial.CURVES.values())


def test_the_whole_command_measures_and_a_resumed_run_keeps_what_was_chosen(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"o gato número {n} dorme na casa da rua {n * 7 % 1000}.\n\n" for n in range(5000)))
    options = ("--minutes", 600, "--stop-after", 2, "--batch-tokens", 256, "--evaluations", 0, "--threads", 1)
    done = train("--data", text, *options, "--vocab-size", 2000, cwd=tmp_path)
    (chosen,) = re.findall(r"^size: (\w+); in the .* left", done.stdout, re.MULTILINE)
    assert f"model: modern {chosen}, " in done.stdout
    again = train("--resume", "--stop-after", 3, cwd=tmp_path)
    assert f"model: modern {chosen}, " in again.stdout and "size: " not in again.stdout
