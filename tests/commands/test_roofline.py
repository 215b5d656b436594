"""The roofline against hand-made counts: a wrong factor would make every later comparison wrong."""

import json
import subprocess
import sys

import pytest

from fastbert.config import BertConfig
from fastbert.roofline import GPUS, Op, count_parameters, step


def base(**fields):
    return BertConfig.preset("base", vocab_size=30522, **fields)


def by_name(ops):
    return {op.name: op for op in ops}


def test_flops_are_six_per_weight_and_token_plus_attention():
    """6 FLOPs a weight and token (Kaplan et al. 2020), the head on the masked rows, attention 4·L·D a product pair."""
    tokens, length, masked = 8192, 128, 1000
    ops = step(base(arch="classic"), tokens, length, masked, 0)
    body = 12 * (4 * 768**2 + 2 * 768 * 3072)
    head = 768**2 + 768 * 30528
    attention = 12 * tokens * 7 * 2 * length * 768
    assert sum(op.flops for op in ops if op.name != "Muon") == 6 * tokens * body + 6 * masked * head + attention


def test_long_sequences_pay_two_products_more_and_windows_cut_attention():
    classic = by_name(step(base(arch="classic"), 4096, 512, 100, 0))["attention"]
    short = by_name(step(base(arch="classic"), 4096, 128, 100, 0))["attention"]
    assert classic.flops / short.flops == pytest.approx(4 * 9 / 7)
    assert classic.bytes == short.bytes
    config = base(arch="modern", window=64)
    windowed = by_name(step(config, 4096, 512, 100, 0))["attention"]
    assert windowed.flops < classic.flops


def test_bert_base_has_its_110_million_parameters():
    assert count_parameters(base(arch="classic")) == pytest.approx(110e6, rel=0.01)


def test_muon_is_counted_by_matrix_and_adamw_does_the_rest():
    """Five iterations of x xᵀ, its square, and their product with x: 2·R²·C + 2·R³ + 2·R²·C each."""
    config = base(arch="modern")
    ops = by_name(step(config, 4096, 128, 100, count_parameters(config)))
    d, f = 768, config.intermediate_size
    of_one = {(d, d): 5 * (4 * d**3 + 2 * d**3), (d, f): 5 * (4 * d * d * f + 2 * d**3)}
    assert ops["Muon"].flops == 12 * (4 * of_one[d, d] + 3 * of_one[d, f])
    matrices = 12 * (4 * d * d + 3 * d * f)
    assert ops["AdamW"].bytes == 28 * (count_parameters(config) - matrices)
    assert ops["casts of matrices and gradients"].bytes == 12 * matrices


def test_floor_is_the_slower_of_the_two_limits():
    gpu = GPUS["h100"]
    assert Op("", gpu.tflops * 1e12, 0).floor_s(gpu) == 1 and Op("", gpu.tflops * 1e12, 0).bound(gpu) == "tensor"
    assert Op("", 0, gpu.gb_per_s * 1e9).floor_s(gpu) == 1 and Op("", 0, gpu.gb_per_s * 1e9).bound(gpu) == "memory"


def test_the_command_says_that_it_predicts():
    command = [sys.executable, "-m", "fastbert.roofline", "--preset", "tiny", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["prediction"] is True
    assert told["tokens_per_s"] == pytest.approx(32768 / (sum(op["floor_ms"] for op in told["ops"]) / 1e3))
