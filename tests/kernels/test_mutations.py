"""Planted errors: each must turn a gate red, or the gate guards nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels" / "gpu"

# what is planted: file, the right text, the wrong text, and the test that must fail
MUTATIONS = {
    "a mask edge one too far": (
        "attention/device.py", "live = j < length", "live = j <= length",
        "interpreted/test_attention.py::test_parity[one block-torch.float32]",
    ),
    "a window one too wide": (
        "attention/device.py", "(i - j <= window)", "(i - j <= window + 1)",
        "interpreted/test_attention.py::test_parity[window, one block-torch.float32]",
    ),
    "a missing upcast to float32": (
        "norm.py", "s = tl.load(X + t * stride_xt + d, mask=real, other=0.0).to(tl.float32)",
        "s = tl.load(X + t * stride_xt + d, mask=real, other=0.0)",
        "interpreted/test_rows.py::test_add_layer_norm[plain-(2, 1000)-torch.bfloat16]",
    ),
    "a swapped stride": (
        "attention/forward.py", "K + j[:, None] * stride_kt", "K + j[:, None] * stride_vt",
        "interpreted/test_attention.py::test_each_of_q_k_v_has_its_own_strides",
    ),
    "a dropout mask that the backward draws elsewhere": (
        "attention/backward.py", "tl.trans(tile_dropout(seed, bh, i, j0,", "tl.trans(tile_dropout(seed, bh, i, j0 + 4,",
        "interpreted/test_attention.py::test_dropout_gradient_is_the_slope_of_its_own_forward",
    ),
    "a store past the end": (
        "gelu.py", "y.to(Y.dtype.element_ty), mask=mask)", "y.to(Y.dtype.element_ty), mask=t[:, None] <= T)",
        "interpreted/test_rows.py::test_gelu[bias_gelu-True-none-(70, 66)-torch.float32]",
    ),
    "a tile that spills": (
        "attention/config_table.py", "_L, _M, _S = (128, 128, 8, 2)", "_L, _M, _S = (128, 128, 4, 2)",
        "test_audit.py::test_attention_keeps_its_budget[sm_90]",
    ),
    "a grid too small": (
        "attention/forward.py", 'num_tiles * geometry["num_sequences"] * q.shape[1]',
        'num_tiles * geometry["num_sequences"]',
        "test_launches.py::test_every_tile_of_every_sequence_has_a_program[512]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_error_has_its_place(name):
    file, right, _, test = MUTATIONS[name]
    assert right in (KERNELS / file).read_text(), f"{file} no longer says {right!r}"
    assert (HERE / test.partition("::")[0]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_error_is_caught(name, tmp_path):
    file, right, wrong, test = MUTATIONS[name]
    mutant = tmp_path / "kernels"
    shutil.copytree(KERNELS, mutant, ignore=shutil.ignore_patterns("__pycache__"))
    text = (mutant / file).read_text()
    (mutant / file).write_text(text.replace(right, wrong))
    environment = {**os.environ, "FASTBERT_KERNELS_MUTANT": str(mutant)}
    if test.startswith("interpreted"):
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", str(HERE / test)]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 1, f"nothing noticed:\n{done.stdout[-3000:]}"  # 1: tests ran and failed
    assert "AssertionError" in done.stdout, done.stdout[-3000:]
