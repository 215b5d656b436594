"""The C++ masked-LM loss against float64: never more than twice PyTorch's own error, value and every gradient."""

import math

import pytest
import torch

from fastbert import ops, reference
from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

CORE = native.compute()
DTYPES = [torch.float32, torch.bfloat16]


def case(rows, width, columns, vocab_size, spread=0.5):
    """hidden, weight, bias, labels; values that bf16 holds, so that every dtype starts from the same numbers."""
    generator = torch.Generator().manual_seed(rows + columns)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).bfloat16().double() * scale
        for shape, scale in (((rows, width), 1.0), ((columns, width), spread), ((columns,), 0.5))
    )
    labels = torch.randint(0, vocab_size, (rows,), generator=generator)
    labels[::5] = -100
    return hidden, weight, bias, labels


def results(impl, hidden, weight, bias, labels, dtype, **options):
    inputs = [None if x is None else x.to(dtype).detach().clone().requires_grad_() for x in (hidden, weight, bias)]
    loss = ops.masked_lm_loss(*inputs, labels, impl=impl, **options)
    (3.0 * loss).backward()
    return [loss.detach().double()] + [x.grad.double() for x in inputs if x is not None]


def assert_as_good_as_torch(mine, torchs, exact, dtype):
    for name, x, y, true in zip(("loss", "hidden", "weight", "bias"), mine, torchs, exact, strict=False):
        assert x.isfinite().all(), name
        # the loss is one number, in float32 on both sides: PyTorch may hit it by chance
        floor = (1e-6 if dtype == torch.float32 else 1e-3) * true.abs() if name == "loss" else 0.0
        error, allowed = (x - true).norm(), 2 * (y - true).norm() + floor
        assert error <= allowed, f"{name}: error {error:.3g}, PyTorch's {(y - true).norm():.3g}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width", "columns", "vocab_size"),
    [(1, 16, 64, 60), (17, 24, 64, 64), (63, 32, 128, 127), (129, 64, 1024, 1000), (300, 64, 192, 129), (5, 8, 17, 1)],
)
def test_value_and_gradients(isa, rows, width, columns, vocab_size, dtype):
    given = case(rows, width, columns, vocab_size)
    exact = results("reference", *given, torch.float64, vocab_size=vocab_size)
    torchs = results("reference", *given, dtype, vocab_size=vocab_size)
    mine = results("cpp", *given, dtype, vocab_size=vocab_size)
    assert_as_good_as_torch(mine, torchs, exact, dtype)
    assert (mine[2][vocab_size:] == 0).all() and (mine[3][vocab_size:] == 0).all(), "padding of the vocabulary leaked"
    assert (mine[1][given[3] == -100] == 0).all(), "a row without a label leaked"


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_bias_and_with_weights_of_the_rows(isa, dtype):
    hidden, weight, _, labels = case(40, 32, 192, 190)
    row_weights = torch.rand(40, generator=torch.Generator().manual_seed(1)) * 3
    rest = {"vocab_size": 190, "row_weights": row_weights}
    exact = results("reference", hidden, weight, None, labels, torch.float64, **rest)
    torchs = results("reference", hidden, weight, None, labels, dtype, **rest)
    assert_as_good_as_torch(results("cpp", hidden, weight, None, labels, dtype, **rest), torchs, exact, dtype)


def test_without_gradients_the_value_is_the_same():
    hidden, weight, bias, labels = (x.float() if x.is_floating_point() else x for x in case(600, 16, 64, 60))
    row_weights = torch.rand(600)
    for weights in (None, row_weights):
        options = {"vocab_size": 60, "row_weights": weights}
        with torch.no_grad():
            value = ops.masked_lm_loss(hidden, weight, bias, labels, impl="cpp", **options)
        exact = ops.masked_lm_loss(hidden, weight, bias, labels, impl="reference", **options)
        torch.testing.assert_close(value, exact, rtol=1e-6, atol=0)


def test_only_the_gradients_asked_for():
    hidden, weight, bias, labels = (x.float() if x.is_floating_point() else x for x in case(20, 16, 64, 60))
    hidden.requires_grad_()
    loss = ops.masked_lm_loss(hidden, weight, bias, labels, impl="cpp")
    loss.backward()
    assert hidden.grad is not None and weight.grad is None
    with pytest.raises(RuntimeError, match="second backward"):
        ops.masked_lm_loss(hidden, weight, bias, labels, impl="cpp").backward(retain_graph=True) or loss.backward()


def test_under_autocast_float32_weights_are_computed_with_in_bf16():
    hidden, weight, bias, labels = (x.float() if x.is_floating_point() else x for x in case(30, 16, 128, 120))
    weight.requires_grad_()
    values = []
    for impl in ("reference", "cpp"):
        weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            loss = ops.masked_lm_loss(hidden, weight, bias, labels, vocab_size=120, impl=impl)
        loss.backward()
        assert weight.grad.dtype == torch.float32
        values.append((loss.detach(), weight.grad))
    torch.testing.assert_close(values[0], values[1], rtol=2e-2, atol=2e-4)


def test_large_and_far_logits():
    hidden, weight, bias, labels = case(16, 16, 64, 64, spread=100.0)
    given = [x.float() for x in (hidden, weight, bias)]
    mine, theirs = (ops.masked_lm_loss(*given, labels, impl=impl) for impl in ("cpp", "reference"))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan(isa, dtype):
    hidden, weight, bias, labels = case(20, 16, 64, 64)
    hidden[3, 5] = math.nan
    loss, of_hidden, *_ = results("cpp", hidden, weight, bias, labels, dtype)
    assert loss.isnan() and of_hidden[3].isnan().all() and of_hidden[4].isfinite().all()


def test_no_row_and_no_label():
    weight = torch.randn(64, 16, requires_grad=True)
    for rows in (0, 3):
        loss = ops.masked_lm_loss(torch.randn(rows, 16), weight, None, torch.full((rows,), -100), impl="cpp")
        loss.backward()
        assert loss == 0 and (weight.grad == 0).all()


def test_the_core_writes_rows_and_nothing_else(isa):
    rows, columns, vocab_size, guard = 3, 50, 37, 64
    for dtype in DTYPES:
        buffer = torch.full((rows * columns + 2 * guard,), math.nan, dtype=dtype)
        inside = buffer[guard:-guard]
        inside.view(rows, columns)[:, :vocab_size] = torch.randn(rows, vocab_size).to(dtype)
        losses, labels = torch.full((rows + 2 * guard,), math.nan), torch.tensor([36, -100, 0])
        CORE.cpu_cross_entropy(
            dtype == torch.bfloat16, inside.data_ptr(), 0, labels.data_ptr(), 0, losses[guard:].data_ptr(), rows,
            columns, vocab_size, True, 0.5, 1,
        )  # fmt: skip
        for x in (buffer, losses):
            assert x[:guard].isnan().all() and x[-guard:].isnan().all() and x[guard:-guard].isfinite().all()
        assert (inside.view(rows, columns)[:, vocab_size:] == 0).all() and losses[guard + 1] == 0


def test_threads_do_not_change_the_bits():
    hidden, weight, _, labels = case(100, 32, 1024, 1000)
    before = torch.get_num_threads()
    logits = (hidden @ weight.t()).float()
    seen = []
    for threads in (1, 2, 5):
        out, losses = logits.clone(), torch.empty(100)
        CORE.cpu_cross_entropy(
            False, out.data_ptr(), 0, labels.data_ptr(), 0, losses.data_ptr(), 100, 1024, 1000, True, 0.1, threads
        )
        seen.append((out, losses))
    assert torch.get_num_threads() == before
    for out, losses in seen[1:]:
        assert torch.equal(out, seen[0][0]) and torch.equal(losses, seen[0][1])


def test_what_it_cannot_do_is_said():
    hidden, weight = torch.zeros(4, 16), torch.zeros(64, 16)
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(IndexError, match="label 60 of row 0: expected 0 to 59, or -100"):
        ops.masked_lm_loss(hidden, weight, None, labels + 60, vocab_size=60, impl="cpp")
    for changed, message in [
        ({"hidden": hidden.double()}, "hidden is torch.float64"),
        ({"weight": weight.bfloat16()}, "weight is torch.bfloat16 and hidden torch.float32"),
        ({"weight": torch.zeros(16, 64).t()}, r"Try: weight.contiguous\(\)"),
        ({"labels": labels.int()}, "labels are torch.int32"),
    ]:
        given = {"hidden": hidden, "weight": weight, "bias": None, "labels": labels} | changed
        with pytest.raises(RuntimeError, match=message):
            ops.masked_lm_loss(**given, impl="cpp")
    assert ops.choose("masked_lm_loss", "cpp")[0] == "cpp"


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_probabilities_of_labels(isa, dtype):
    for rows in (0, 1, 300):
        hidden, weight, bias, labels = case(rows, 16, 50, 37)
        given, labels = [x.to(dtype) for x in (hidden, weight, bias)], labels.clamp(min=0)
        exact = reference.label_log_probs(*(x.double() for x in given), labels, vocab_size=37)
        mine = ops.label_log_probs(*given, labels, vocab_size=37, impl="cpp")
        torchs = reference.label_log_probs(*given, labels, vocab_size=37)
        assert mine.shape == (rows,) and mine.dtype == torch.float32
        if rows:
            assert (mine - exact).abs().max() <= 2 * (torchs - exact).abs().max() + 1e-6
