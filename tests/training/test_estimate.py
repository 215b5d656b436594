"""Memory is predicted from shapes, and what cannot be had is refused with what could."""

import subprocess
import sys

import pytest
import torch

from fastbert.config import BertConfig
from fastbert.system.errors import InputError
from fastbert.training import estimate
from support import train

GIB = estimate.GIB


def memory_of(preset: str, **changes) -> estimate.Memory:
    config = BertConfig.preset(preset, vocab_size=30_522)
    settings = {"tokens": 4096, "masked": 1200, "max_length": 128, "bf16": False, "optimizer": "adamw", "device": "cpu"}
    return estimate.predict_memory(config, 110_000_000, 85_000_000, **(settings | changes))


def test_the_parts_go_with_what_they_are_made_of():
    base = memory_of("base")
    assert base.parameters == 440_000_000 and base.optimizer == 880_000_000
    assert memory_of("base", optimizer="muon").optimizer == 4 * (2 * 110_000_000 - 85_000_000)
    assert memory_of("base", shards=4).parameters == base.parameters // 4
    assert memory_of("base", tokens=8192, masked=2400).activations == 2 * base.activations
    assert memory_of("base", bf16=True).activations < 0.75 * base.activations


def test_refusals_name_a_remedy_that_fits():
    memory = memory_of("base", tokens=65_536, masked=20_000)
    estimate.refuse_too_large(memory, 64 * GIB, preset="base", tokens=65_536)
    with pytest.raises(InputError, match=r"--preset base.*GiB.*--micro-batch-tokens \d+") as refused:
        estimate.refuse_too_large(memory, 8 * GIB, preset="base", tokens=65_536)
    fits = int(str(refused.value).split("--micro-batch-tokens ")[1].split()[0])
    smaller = memory_of("base", tokens=fits, masked=fits * 20_000 // 65_536)
    estimate.refuse_too_large(smaller, 8 * GIB, preset="base", tokens=fits)
    with pytest.raises(InputError, match="smaller --preset"):
        estimate.refuse_too_large(memory, GIB, preset="base", tokens=65_536)
    with pytest.raises(InputError, match="for the 4 ranks"):
        estimate.refuse_too_large(memory, 64 * GIB, preset="base", tokens=65_536, ranks_here=4)


def test_minutes_that_are_over_before_they_begin():
    estimate.refuse_impossible(1.0, prepared_s=20.0, step_s=5.0, finish_s=2.0)
    with pytest.raises(InputError, match=r"--minutes 0.1: .*20 s.* --minutes 0\.7 or more"):
        estimate.refuse_impossible(0.1, prepared_s=20.0, step_s=5.0, finish_s=2.0)


def test_something_is_known_of_this_machine():
    assert 1 << 20 < estimate.available_bytes(torch.device("cpu")) < 1 << 50


@pytest.mark.parametrize("preset", ["mini", "small"])
def test_the_prediction_is_near_the_truth(preset):
    """Peak resident memory of a process that does three steps, against the prediction for it."""
    code = f"""
import torch
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.batch import PackedBatch
torch.set_num_threads(1)
model = BertForPreTraining(BertConfig.preset({preset!r}, vocab_size=8192))
optimizers = Optimizers(model, optimizer="adamw")
T, L = 4096, 128
batch = PackedBatch(torch.randint(5, 8000, (T,)), torch.arange(T) % L, torch.zeros(T, dtype=torch.long),
    torch.arange(0, T + 1, L, dtype=torch.int32), L, torch.arange(0, T, 4), torch.randint(5, 8000, (T // 4,)))
for _ in range(2):
    model(batch).loss.backward()
    optimizers.step(1.0)
# not getrusage's peak: across exec() that includes the process which started this one
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sum(p.numel() for p in model.parameters()), int(peak) << 10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    count, peak = map(int, done.stdout.split())
    predicted = estimate.predict_memory(
        BertConfig.preset(preset, vocab_size=8192), count, 0,
        tokens=4096, masked=1024, max_length=128, bf16=False, optimizer="adamw", device="cpu",
    ).peak  # fmt: skip
    print(f"{preset}: predicted {predicted / GIB:.2f} GiB, taken {peak / GIB:.2f} GiB")
    assert 0.6 * peak < predicted < 1.7 * peak


def test_compiling_kernels_is_not_a_step(monkeypatch):
    """A first pass with a cold Triton cache took 12.6 s, and short budgets were refused for it."""
    clock, takes = [0.0], iter((12.6, 0.05, 0.04))
    monkeypatch.setattr(estimate.time, "monotonic", lambda: clock[0])

    def one_pass():
        clock[0] += next(takes)

    assert estimate.measure_step(one_pass, compiles=True) == pytest.approx(0.04)


def test_a_run_that_other_work_slows_down_says_so_once(tmp_path, monkeypatch):
    assert estimate.slowdown(0.0, 10.0) is None and estimate.slowdown(1000.0, 900.0) is None
    assert "40%" in estimate.slowdown(1000.0, 400.0)
    # a pass that was measured as a hundred times quicker than the machine is
    measured = estimate.measure_step
    monkeypatch.setattr("fastbert.training.trainer.measure_step", lambda one_pass, **_: measured(one_pass) / 100)
    options = "--data bundled:pt --preset tiny --steps 12 --evaluations 3 --batch-tokens 256".split()
    done = train(*options, "--batch-tokens", "256", "--vocab-size", "300", "--threads", "1", cwd=tmp_path)
    assert done.stdout.count("slow: ") == 1, done.stdout + done.stderr
