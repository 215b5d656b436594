"""The C++ Muon against float64: at most twice the error of the same step in PyTorch's operations."""

import pytest
import torch
from torch import nn

from fastbert import ops
from fastbert.distributed.fsdp import whole_update
from fastbert.ops.cpu import bf16_copies
from fastbert.optim.muon import Muon
from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

# squares, lying, standing; one row, one column, sizes around those of registers, panels and depths of a sum
SHAPES = [(1, 1), (1, 17), (17, 1), (16, 16), (24, 60), (63, 129), (129, 63), (128, 127), (48, 530), (192, 64)]
GUARD = 37


def random(shape, seed, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact_steps(start, gradients, count, lr, momentum, weight_decay):
    """The definition, in float64, part by part."""
    a, b, c = 3.4445, -4.7750, 2.0315
    parts = []
    for index, weights in enumerate(start.double().chunk(count)):
        buffer = torch.zeros_like(weights)
        for gradient in gradients:
            g = gradient.double().chunk(count)[index]
            buffer = buffer + (1 - momentum) * (g - buffer)
            x = g + momentum * (buffer - g)
            x = x.mT if x.shape[0] > x.shape[1] else x
            x = x / x.norm().clamp(min=1e-7)
            for _ in range(5):
                gram = x @ x.mT
                x = a * x + (b * gram + c * gram @ gram) @ x
            rows, columns = weights.shape
            x = x.mT if rows > columns else x
            weights = weights * (1 - lr * weight_decay) - lr * max(1.0, rows / columns) ** 0.5 * x
        parts.append(weights)
    return torch.cat(parts)


def steps(start, gradients, count, dtype, fused, monkeypatch, **options):
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([("w", parameter)], {"w": count}, dtype=dtype, **options)
    with monkeypatch.context() as patch:
        if fused:
            patch.setattr("fastbert.ops.cpu.dispatch.slower_reason", lambda op: None)  # plain loops, too
            assert ops.fused_muon([parameter]) is not None
        else:
            patch.setattr(ops, "fused_muon", lambda parameters: None)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
    return parameter.detach(), optimizer.state[parameter]["momentum_buffer"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("shape", "count"), [*((s, 1) for s in SHAPES), ((192, 64), 3), ((120, 100), 2), ((6, 50), 3)])
def test_errors_are_at_most_twice_those_of_torch(isa, shape, count, dtype, monkeypatch):
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    mine = theirs = 0.0
    for draw in range(1 if min(shape) > 20 else 12):  # the error of a few values is luck
        start = random(shape, draw, 0.02)
        gradients = [random(shape, 100 * draw + i + 1, 1e-3) for i in range(3)]
        exact = exact_steps(start, gradients, count, **options)
        ours, buffer = steps(start, gradients, count, dtype, True, monkeypatch, **options)
        peer, peers_buffer = steps(start, gradients, count, dtype, False, monkeypatch, **options)
        torch.testing.assert_close(buffer, peers_buffer)
        mine += (ours.double() - exact).square().sum().item()
        theirs += (peer.double() - exact).square().sum().item()
    # where PyTorch happens to be exact, the rounding of the weights is granted
    granted = (torch.finfo(torch.float32).eps * exact).square().sum().item()
    assert mine**0.5 <= 2 * max(theirs, granted) ** 0.5, (mine**0.5, theirs**0.5)


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (129, 63)])
def test_nothing_outside_of_the_matrix_is_touched(isa, shape, monkeypatch):
    """Weights, momentum, gradient and image lie between guards; the neighbours are NaN, which must not leak in."""
    monkeypatch.setattr("fastbert.ops.cpu.dispatch.slower_reason", lambda op: None)
    size = shape[0] * shape[1]

    def between_guards(values):
        memory = torch.full((size + 2 * GUARD,), float("nan"), dtype=values.dtype)
        memory[GUARD : GUARD + size] = values.flatten()
        return memory, memory[GUARD : GUARD + size].view(shape)

    weights, w = between_guards(random(shape, 0))
    gradient, g = between_guards(random(shape, 1))
    buffer, m = between_guards(torch.zeros(shape))
    narrow, image = between_guards(torch.zeros(shape, dtype=torch.bfloat16))
    parameter = nn.Parameter(w)
    assert parameter.data_ptr() == w.data_ptr()
    optimizer = Muon([("w", parameter)])
    optimizer.state[parameter]["momentum_buffer"] = m
    bf16_copies.publish(parameter, image, optimizer)
    parameter.grad = g
    optimizer.step()
    for memory in (weights, gradient, buffer, narrow):
        assert memory[:GUARD].isnan().all() and memory[GUARD + size :].isnan().all()
        assert memory[GUARD : GUARD + size].isfinite().all()
    assert torch.equal(image, w.bfloat16())
    assert bf16_copies.bf16_copy(parameter).data_ptr() == image.data_ptr()


def test_bits_do_not_depend_on_the_threads(isa, monkeypatch):
    monkeypatch.setattr("fastbert.ops.cpu.dispatch.slower_reason", lambda op: None)
    shapes, before, found = [(96, 32), (40, 70), (70, 40), (32, 32)], torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            parameters = [nn.Parameter(random(s, i)) for i, s in enumerate(shapes)]
            optimizer = Muon([(str(i), p) for i, p in enumerate(parameters)], {"0": 3})
            for p in parameters:
                p.grad = random(p.shape, 9)
            optimizer.step()
            found.append(torch.cat([p.detach().flatten() for p in parameters]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_gradient_of_zeros_only_decays(isa, monkeypatch):
    start = random((20, 30), 0)
    moved, _ = steps(
        start, [torch.zeros(20, 30)], 1, torch.bfloat16, True, monkeypatch, lr=0.1, momentum=0.9, weight_decay=0.5
    )
    torch.testing.assert_close(moved, start * 0.95)


def test_nan_is_passed_on(isa, monkeypatch):
    gradient = random((20, 30), 0)
    gradient[3, 4] = float("nan")
    moved, _ = steps(random((20, 30), 1), [gradient], 1, torch.bfloat16, True, monkeypatch)
    assert moved.isnan().any()


def test_empty_matrices_are_left_alone(isa, monkeypatch):
    for shape in ((0, 5), (5, 0)):
        moved, _ = steps(torch.zeros(shape), [torch.zeros(shape)], 1, torch.bfloat16, True, monkeypatch)
        assert moved.shape == shape


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_shards_take_the_step_that_one_rank_takes(shape):
    direction = random(shape, 0)
    moved = nn.Parameter(torch.zeros(shape))
    optimizer = Muon([("w", moved)], {"w": 2}, lr=1.0, momentum=0.0, weight_decay=0.0)
    moved.grad = direction
    optimizer.step()
    assert torch.equal(whole_update(direction, 2, 5, torch.bfloat16), -moved.detach())
