"""Ahead-of-time compilation for GPUs that are not there; what came out is held against fixed rules and a budget.

``budgets.json`` keeps, per Triton version, the instructions of each tensor-core loop. An unknown version is held to
the fixed rules only; ``python tests/kernels/test_audit.py`` writes the budgets of the installed one.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
sys.path.insert(0, str(Path(__file__).parents[2] / "kernels" / "audit"))
from audit import TARGETS, audit  # noqa: E402
from launches import attention_launches, row_launches, shipped  # noqa: E402

BUDGETS = Path(__file__).with_name("budgets.json")
VERSION = ".".join(triton.__version__.split(".")[:3])
BUDGETED = ("sm_80", "sm_90")


def plain_attention(target):
    """The launches whose loops are budgeted, by name: one block at 128 tokens, three kernels above, a tile a length."""
    launches = {}
    for length in (128, 512, 2048):
        for launch in attention_launches(target, length=length):
            if "delta" not in launch.name:
                name = launch.name.removesuffix("_kernel")
                launches[f"{name}_{length}" if "forward" in name and length < 2048 else name] = launch
    return launches


def budget(target):
    return json.loads(BUDGETS.read_text()).get(VERSION, {}).get(target, {})


# a compilation takes seconds: the ordinary run does the one target and kernel that all others resemble
@pytest.mark.parametrize("target", [pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def test_attention_keeps_its_budget(target):
    for name, launch in plain_attention(target).items():
        report = audit(launch, target)
        assert not report.faults(), f"{name}: {report.faults()}"
        assert report.tensor_instructions, f"{name}: no tensor-core instructions"
        assert report.loops, f"{name}: no tensor-core loop found"
        wide = sum(n for access, n in report.widths.items() if access.split()[1] == "16")
        # the smaller tile that Triton 3.6 gets on sm_80, which spills at the larger one, has fewer accesses
        least = 12 if (target, name) == ("sm_80", "attention_backward_keys") and VERSION < "3.7" else 16
        assert wide >= least, f"{name}: {report.widths}"
        assert not any(access.split()[1] in ("1", "2", "8") for access in report.widths), f"{name}: {report.widths}"
        bound = min(loop.bound for loop in report.loops)
        # one block of keys has 0.98 with two programs an SM, and had 1.00 with one
        least = 0.95 if "forward" in name or ("one_block" in name and report.resident_blocks >= 2) else 0.995
        assert bound >= least, f"{name}: tensor-core bound {bound:.2f}"
        if allowed := budget(target).get(name):
            longest = max(loop.instructions for loop in report.loops)
            assert longest <= allowed * 1.05, f"{name}: {longest} instructions a turn, the budget is {allowed}"
    if target == "sm_90":
        forward = audit(plain_attention(target)["attention_forward"], target)
        assert max(loop.instructions for loop in forward.loops) <= 480


@pytest.mark.parametrize(
    "length", [pytest.param(32, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow), 128]
)
def test_two_programs_of_short_attention_fit_an_sm(length):
    for launch in attention_launches("sm_90", length=length):
        report = audit(launch, "sm_90")
        assert report.resident_blocks >= 2 and not report.faults(), f"{launch.name} {launch.config}: {report}"


@pytest.mark.slow
@pytest.mark.parametrize("target", BUDGETED)
def test_row_kernels_move_16_bytes_and_do_not_spill(target):
    for launch in row_launches(target):
        report = audit(launch, target)
        assert not report.faults(), f"{launch.name}: {report.faults()}"
        if "gelu" not in launch.name:  # there a thread's share of the bias is 4 or 8 bytes
            narrow = {k: v for k, v in report.widths.items() if k in ("load 2", "store 2", "store 8")}
            assert narrow in ({}, {"load 2": 1}), f"{launch.name}: {report.widths}"  # the label's logit is one element
        assert any(k in report.widths for k in ("load 16", "cp.async 16")), f"{launch.name}: {report.widths}"
        assert "store 16" in report.widths, f"{launch.name}: {report.widths}"


@pytest.mark.slow
def test_layer_norm_is_no_heavier_than_liger():
    """Liger's LayerNorm on sm_90 (1024 wide, 4 warps): forward 31 registers and 16 blocks an SM, backward 64 and 8."""
    reports = {launch.name: audit(launch, "sm_90") for launch in row_launches("sm_90")[:2]}
    forward, backward = (reports[f"add_layer_norm_{way}_kernel"] for way in ("forward", "backward"))
    assert forward.registers <= 32 and forward.resident_blocks == 16
    assert backward.registers <= 64 and backward.resident_blocks >= 8


@pytest.mark.slow
@pytest.mark.parametrize("target", BUDGETED)
def test_row_kernels_are_no_worse_than_ligers(target):
    """The table of ``python kernels/audit/liger.py``, both sides compiled here and now."""
    pytest.importorskip("liger_kernel", reason="pip install --no-deps liger-kernel")
    from liger import access_bytes, compare

    for name, ((ours, our_share), (theirs, their_share)) in compare(target).items():
        assert our_share >= their_share, name
        assert access_bytes(ours) >= access_bytes(theirs) and ours.spill_bytes <= theirs.spill_bytes, name
        # 40 to 36 in GeGLU's backward on sm_90 by Triton 3.9.0, where as many blocks are resident all the same
        slack = 4 if (name, target, VERSION) == ("GeGLU backward", "sm_90", "3.9.0") else 0
        assert ours.registers <= theirs.registers + slack, name


@pytest.mark.slow
@pytest.mark.parametrize("target", BUDGETED)
def test_float32_at_head_128_does_not_spill(target):
    for options in ("", "mask"):
        for launch in attention_launches(target, options=options, head_dim=128, dtype=torch.float32):
            report = audit(launch, target)
            assert not report.spill_bytes, f"{launch.name} {options}: {report.spill_bytes} bytes"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_everything_shipped_compiles_without_spills(target):
    faulty = []
    for label, launch in shipped(target):
        report = audit(launch, target)
        if report.faults():
            faulty.append(f"{label}: {', '.join(report.faults())}")
        if "attention" in label and "delta" not in label:
            assert report.tensor_instructions or target == "sm_100", label  # sm_100's have their own memory and names
    assert not faulty, "\n".join(faulty)


if __name__ == "__main__":
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
    budgets[VERSION] = {
        target: {
            name: max(loop.instructions for loop in audit(launch, target).loops)
            for name, launch in plain_attention(target).items()
        }
        for target in BUDGETED
    }
    BUDGETS.write_text(json.dumps(budgets, indent=2) + "\n")
    print(json.dumps(budgets[VERSION], indent=2), file=sys.stderr)
