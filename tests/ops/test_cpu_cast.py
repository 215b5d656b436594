"""Instruction sets, threads and conversions: the ground of the C++ compute kernels."""

import math

import pytest
import torch

from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

from fastbert.ops.cpu.cast import cast

CORE = native.compute()
SIZES = [0, 1, 15, 16, 17, 63, 127, 129, 1000, 40000]


def awkward(size: int) -> torch.Tensor:
    """Every kind of float: random bits, then NaN, infinities, zeros, denormals, ties."""
    bits = torch.randint(-(2**31), 2**31, (size,), generator=torch.Generator().manual_seed(size), dtype=torch.int32)
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, 1.00390625, 1.01171875, 3.4e38])
    return torch.cat((special, bits.view(torch.float32)))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_conversions_are_torchs(isa, size):
    x = awkward(size)
    expected = x.to(torch.bfloat16)
    out = cast(x)
    same = (out.view(torch.int16) == expected.view(torch.int16)) | (out.isnan() & expected.isnan())
    assert same.all()
    assert torch.equal(cast(expected).nan_to_num(0.5), expected.float().nan_to_num(0.5))


def test_conversion_has_a_gradient_and_takes_views():
    x = torch.randn(6, 10).t().requires_grad_()
    cast(x).float().sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    torch.library.opcheck(torch.ops.fastbert.cpu_cast.default, (torch.randn(3, 5),))


def test_exp_is_within_two_units_in_the_last_place(isa):
    x = torch.cat((torch.linspace(-87.3, 0.0, 100_001), torch.linspace(0.0, 80.0, 10_001)))
    out = torch.full_like(x, math.nan)
    CORE.cpu_elementwise(2, x.data_ptr(), out.data_ptr(), x.numel(), 1)
    exact = x.double().exp()
    assert ((out - exact).abs() / exact).max() < 2 * 2**-23
    low = torch.tensor([-math.inf, -1e30, -104.0, -88.0])
    out = torch.full_like(low, math.nan)
    CORE.cpu_elementwise(2, low.data_ptr(), out.data_ptr(), low.numel(), 1)
    assert (out == 0).all()


def test_threads_do_not_change_the_bits():
    x = awkward(100_000)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(cast(x).view(torch.int16))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert CORE.cpu_team() in ("openmp", "pool")


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="isa='sse9': expected auto or what this machine runs: scalar"):
        CORE.cpu_set_isa("sse9")
