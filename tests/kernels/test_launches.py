"""Dry run: the launchers under fake CUDA tensors, every launch written down in place of executed, and checked."""

import itertools
import math
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install 'fastbert[gpu]'")
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "kernels" / "audit"))
from audit import signature_of
from launches import SHAPES, attention_launches, row_launches

from fastbert.kernels.launch import cdiv

ARCHS = ("sm_80", "sm_90", "gfx942")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OPTIONS = [" ".join(c) for n in range(5) for c in itertools.combinations(("mask", "window", "bias", "dropout"), n)]


def check(launch):
    """What any launch must satisfy, read from its arguments alone."""
    assert 0 < launch.grid < 2**31
    types, constants, attributes = signature_of(launch)
    names = [p.name for p in launch.kernel.params]
    assert set(types) == set(names)
    divisible = {names[position] for (position,) in attributes}
    for name, value in launch.arguments.items():
        if isinstance(value, torch.Tensor):
            assert value.is_cuda, f"{launch.name}: {name} is not on the GPU"
            assert name in divisible, f"{launch.name}: {name} is not known to be 16-byte aligned"
            assert value.stride(-1) == 1, f"{launch.name}: {name} has last stride {value.stride(-1)}"
        elif name.startswith("stride") and name not in constants and value:
            assert name in divisible, f"{launch.name}: {name}={value} makes accesses narrower than 16 bytes"
        elif isinstance(value, float):
            assert math.isfinite(value)
    for name, value in launch.config.blocks.items():
        assert value & (value - 1) == 0, f"{launch.name}: {name}={value} is not a power of two"
    return types


@pytest.mark.parametrize("arch", ARCHS)
def test_every_option_dtype_and_head_size_launches(arch):
    for dtype, head_dim, options in itertools.product(DTYPES, (16, 32, 64, 128), OPTIONS):
        launches = attention_launches(
            arch, options=options, num_sequences=3, length=512, head_dim=head_dim, dtype=dtype
        )
        for launch in launches:
            check(launch)
            arguments = launch.arguments
            if "SEED" in arguments:
                assert arguments["DROPOUT"] == ("dropout" in options) == (arguments["SEED"] is not None)
                assert arguments["HAS_BIAS"] == ("bias" in options)
                assert arguments["HAS_MASK"] == ("mask" in options) != arguments["PACKED"]
                assert (arguments["window"] == 64) == arguments["HAS_WINDOW"] == ("window" in options)
        assert ("attention_bias_gradient_kernel" in {launch.name for launch in launches}) == ("bias" in options)


@pytest.mark.parametrize("length", [1, 17, 64, 65, 128, 129, 512, 8192])
def test_every_tile_of_every_sequence_has_a_program(length):
    for launch in attention_launches("sm_90", num_sequences=5, length=length, num_heads=4):
        check(launch)
        blocks, pairs = launch.config.blocks, 5 * 4
        expected = {
            "attention_forward_kernel": cdiv(length, blocks["BLOCK_M"]) * pairs,
            "attention_delta_kernel": cdiv(5 * length, blocks["BLOCK_M"]) * 4,
            "attention_backward_keys_kernel": cdiv(length, blocks.get("BLOCK_N", 1)) * pairs,
            "attention_backward_queries_kernel": cdiv(length, blocks["BLOCK_M"]) * pairs,
            "attention_backward_one_block_kernel": pairs,
        }
        assert launch.grid == expected[launch.name]
        if "one_block" in launch.name:
            assert blocks["BLOCK_N"] >= length  # all keys in one block


@pytest.mark.parametrize("total", [128, 32768, 1 << 20])
@pytest.mark.parametrize("name", SHAPES)
def test_models_up_to_a_million_tokens(name, total):
    shape = SHAPES[name]
    for dtype in DTYPES:
        for launch in row_launches("sm_90", shape=shape, total=total, dtype=dtype, options="dropout"):
            check(launch)
        for launch in attention_launches(
            "sm_90", num_sequences=total // 128, length=128, num_heads=shape.num_heads, head_dim=shape.head_dim,
            dtype=dtype,
        ):  # fmt: skip
            check(launch)
    # offsets past 2^31 elements: every kernel multiplies strides by a 64-bit row
    assert (total < 1 << 20) or total * 3 * shape.hidden_size > 2**28


def test_the_number_of_tokens_compiles_nothing_again():
    """Packed batches have another T every time: whatever it is divisible by, the compiled kernels are the same."""
    variants = {}
    for total in [*range(496, 530), 1, 4096, 4097]:
        options = {"num_sequences": 1, "length": total, "num_heads": 4, "head_dim": 64}
        launches = [
            *attention_launches("sm_90", **options),
            *row_launches("sm_90", shape=SHAPES["mini"], total=total, options="dropout"),
        ]
        met = Counter()  # the norms are launched for a layer under autocast too, with other tensors
        for launch in launches:
            met[launch.name] += 1
            constants = [launch.arguments.get(name) for name in ("GATED", "BACKWARD")]
            kind = launch.name, met[launch.name], str(launch.config), str(constants)
            variants.setdefault(kind, set()).add(str(signature_of(launch)))
    assert {kind: len(found) for kind, found in variants.items() if len(found) > 1} == {}


def test_float32_goes_by_the_precision_that_torch_is_set_to():
    """Also once a program has used the new settings, after which PyTorch refuses to read ``allow_tf32``."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for precision, products in (("ieee", "tf32x3"), ("tf32", "tf32")):
            matmul.fp32_precision = precision
            launches = attention_launches("sm_90", dtype=torch.float32)
            assert {one.arguments["PRECISION"] for one in launches if "PRECISION" in one.arguments} == {products}
    finally:
        matmul.fp32_precision = before


def test_the_bias_gradient_of_gelu_fills_the_gpu():
    for launch in row_launches("sm_90", total=65536):
        if launch.name == "gelu_backward_kernel":
            assert launch.grid >= 8 * 132
            assert launch.arguments["rows_per_group"] <= 64


def test_a_packed_projection_is_read_in_place():
    forward = attention_launches("sm_90", num_heads=12, head_dim=64)[0]
    strides = [forward.arguments[f"stride_{x}t"] for x in "qkv"]
    assert strides == [3 * 12 * 64] * 3
    assert [forward.arguments[x].storage_offset() for x in "QKV"] == [0, 768, 1536]
    assert forward.arguments["stride_ot"] == 768  # the output is (T, N·H) contiguous
