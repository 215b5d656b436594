"""On a processor without AVX-512 everything runs, bfloat16 included: forced here, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from fastbert import info
from fastbert.ops.cpu import matmul
from fastbert.system import environment, native
from fastbert.system.processor import bf16_is_fast, supports_onednn_matmul

# the switches of oneDNN, PyTorch (ours too) and MKL
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
NO_SIMD = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}

MODEL_UNDER_AUTOCAST = """
import sys, torch
from fastbert import BertConfig, BertForPreTraining, ops
from fastbert.system import native
from fastbert.batch import PackedBatch
assert not ops.bf16_is_fast() and native.compute().cpu_isa() == sys.argv[1], native.compute().cpu_isa()
for arch in ("classic", "modern"):
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", arch=arch, vocab_size=60))
    cu_seqlens = torch.tensor([0, 5, 9], dtype=torch.int32)
    batch = PackedBatch(torch.arange(9) + 5, torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3]), torch.zeros(9).long(),
                        cu_seqlens, 5, torch.tensor([1, 6]), torch.tensor([7, 8]), None)
    losses = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(batch).loss
        loss.backward()
        losses.append(loss.item())
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert 0 < abs(losses[0] - losses[1]) < 0.02 * losses[0], losses
"""


def run(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


X86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="AVX2 is x86's")


@pytest.mark.parametrize(
    ("forced", "expected"),
    [pytest.param(AVX2, "avx2", marks=X86, id="AVX2"), pytest.param(NO_SIMD, "scalar", id="no SIMD")],
)
def test_a_model_under_bf16_autocast(forced, expected):
    run(forced, "-c", MODEL_UNDER_AUTOCAST, expected)


def test_training_and_prediction_in_bf16(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Bom dia.\nBoa noite.\n", encoding="utf-8")
    train = f"-m fastbert.train --data {text} --output {tmp_path / 'run'} --steps 2 --precision bf16 --threads 1"
    assert "bf16" in run(AVX2, *train.split())
    load = "import sys, fastbert; b = fastbert.load(sys.argv[1], precision='bf16'); print(b.fill_mask('Bom [MASK].'))"
    assert "token_str" in run(AVX2, "-c", load, str(tmp_path / "run"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_pytorchs_product_serves(dtype, monkeypatch):
    x, weight, bias = torch.randn(3, 16).to(dtype), torch.randn(8, 16).to(dtype), torch.randn(8).to(dtype)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not supports_onednn_matmul(dtype) and not bf16_is_fast()
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    assert torch.equal(matmul.linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


@pytest.mark.skipif(not native.status()[0], reason="the C++ core is not compiled")
def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="sse9"):
        native.compute().cpu_set_isa("sse9")


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n",
         "CPU implementer 0x41, CPU part 0xd40"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_the_processor_is_named_on_x86_and_on_arm(cpuinfo, name, monkeypatch):
    monkeypatch.setattr(environment.Path, "read_text", lambda *args, **options: cpuinfo)
    assert environment.hardware()["cpu"] == name


@pytest.mark.skipif(not native.status()[0], reason="the C++ core is not compiled")
def test_info_names_the_instruction_set():
    assert info.gather()["core"]["kernels"] == native.compute().cpu_isa()
