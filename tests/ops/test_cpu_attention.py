"""The C++ attention against float64: never more than twice PyTorch's own error, forward and every gradient."""

import math

import pytest
import torch

from fastbert import ops, reference
from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

CORE = native.compute()
DTYPES = [torch.float32, torch.bfloat16]


def bounds(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def random(*shape, seed=0, dtype=torch.float64):
    # values that bf16 holds, so that every dtype starts from the same numbers
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.bfloat16().to(dtype)


def results(attend, inputs, dtype, grad):
    """Output and gradients in float64."""
    inputs = [x.to(dtype).detach().clone().requires_grad_() for x in inputs]
    out = attend(*inputs)
    out.backward(grad.to(dtype))
    return [x.detach().double() for x in (out, *(x.grad for x in inputs))]


def assert_as_good_as_torch(mine, torchs, exact, dtype):
    names = ["out", *(f"gradient {i}" for i in range(len(mine) - 1))]
    for name, x, y, true in zip(names, mine, torchs, exact, strict=True):
        assert x.isfinite().all(), name
        error, torchs_error = (x - true).norm(), (y - true).norm()
        # where PyTorch happens to be exact (a row that sees one key), a rounding of each input is granted
        allowed = 2 * torchs_error if torchs_error else torch.finfo(dtype).eps * math.sqrt(x.numel())
        assert error <= allowed, f"{name}: error {error:.3g}, PyTorch's {torchs_error:.3g}"
        if torchs_error:
            floor = 2 * torch.finfo(dtype).eps * true.abs().max().clamp(min=1.0)
            assert (x - true).abs().max() <= 4 * (y - true).abs().max() + floor, f"{name}: one value is far off"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "head_dim", "window"),
    [
        ([5, 1, 17, 0, 63], 16, None),
        ([128, 127], 64, None),
        ([129, 300], 64, 7),
        ([1000], 32, None),
        ([65, 257], 128, 60),
        ([77], 48, 0),
        ([33, 31], 80, 1),
        ([16], 112, 100),
    ],
)
def test_packed(isa, lengths, head_dim, window, dtype):
    q, k, v, grad = (random(sum(lengths), 2, head_dim, seed=i) for i in range(4))
    cu = bounds(lengths)

    def attend(impl):
        return lambda q, k, v: ops.attention(q, k, v, cu, max(lengths), window=window, impl=impl)

    exact = results(attend("reference"), (q, k, v), torch.float64, grad)
    torchs = results(attend("reference"), (q, k, v), dtype, grad)
    assert_as_good_as_torch(results(attend("cpp"), (q, k, v), dtype, grad), torchs, exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 2])
def test_padded_with_a_mask(isa, window, dtype):
    lengths, longest = [7, 0, 19, 1], 19
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    q, k, v, grad = (random(4, longest, 3, 16, seed=i) for i in range(4))

    def attend(impl):
        return lambda q, k, v: ops.attention(q, k, v, attention_mask=mask, window=window, impl=impl)

    exact = results(attend("reference"), (q, k, v), torch.float64, grad)
    torchs = results(attend("reference"), (q, k, v), dtype, grad)
    mine = results(attend("cpp"), (q, k, v), dtype, grad)
    assert_as_good_as_torch(mine, torchs, exact, dtype)
    assert (mine[0][1] == 0).all() and all((g[mask == 0] == 0).all() for g in mine[2:]), "padding leaked"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [16, 32, 64, 80])
def test_fused_projection_with_rotary(isa, head_dim, dtype):
    lengths = [9, 64, 31]
    cu = bounds(lengths)
    qkv, grad = random(sum(lengths), 3, 2, head_dim), random(sum(lengths), 2, head_dim, seed=1)
    position = torch.cat([torch.arange(n) for n in lengths])

    def attend(impl):
        def run(qkv):
            rotary = reference.rotary_tables(position, head_dim, 10000.0, qkv.dtype)
            return ops.qkv_attention(qkv, cu, max(lengths), rotary=rotary, impl=impl)

        return run

    exact = results(attend("reference"), (qkv,), torch.float64, grad)
    torchs = results(attend("reference"), (qkv,), dtype, grad)
    assert_as_good_as_torch(results(attend("cpp"), (qkv,), dtype, grad), torchs, exact, dtype)


def test_fused_projection_padded():
    qkv = random(2, 20, 3, 2, 16, dtype=torch.float32)
    mask = torch.tensor([[1] * 20, [1] * 13 + [0] * 7])
    rotary = reference.rotary_tables(torch.arange(20).expand(2, 20), 16, 100.0, torch.float32)
    mine, theirs = (
        ops.qkv_attention(qkv, attention_mask=mask, rotary=rotary, impl=impl) for impl in ("cpp", "reference")
    )
    torch.testing.assert_close(mine, theirs)


def test_a_fused_buffer_is_read_where_it_lies():
    """Views of a larger buffer, with guards that must neither be read into the result nor be written."""
    buffer = torch.full((40, 5, 4, 32), math.nan)
    buffer[3:33, 1:4, 1:3] = random(30, 3, 2, 32, dtype=torch.float32)
    q, k, v = buffer[3:33, 1:4, 1:3].unbind(1)
    before = buffer.clone()
    cu = bounds([17, 13])
    out = ops.attention(q, k, v, cu, 17, impl="cpp")
    torch.testing.assert_close(out, ops.attention(q, k, v, cu, 17, impl="reference"))
    assert torch.equal(buffer.view(torch.int32), before.view(torch.int32))


def test_nothing_outside_of_the_outputs_is_written(isa):
    """The core itself, into poisoned buffers with guard bands: every value inside is written, none outside."""
    tokens, heads, head_dim, guard = 21, 2, 48, 64
    q, k, v, d_out = (random(tokens, heads, head_dim, seed=i, dtype=torch.float32) for i in range(4))
    size = tokens * heads * head_dim
    buffers = [torch.full((size + 2 * guard,), math.nan) for _ in range(4)]
    out, dq, dk, dv = (b[guard:-guard].view(tokens, heads, head_dim) for b in buffers)
    lse = torch.full((heads * tokens + 2 * guard,), math.nan)
    cu = bounds([8, 13])

    def view(x):
        return x.data_ptr(), x.stride(0), x.stride(1)

    rest = ((0, 0), cu.data_ptr(), 0, (2, heads, tokens, head_dim), -1, 0.2, 1)
    at = lse[guard:].data_ptr()
    CORE.cpu_attention(False, False, [view(q), view(k), view(v)], [view(out)], at, *rest)
    CORE.cpu_attention(True, False, [view(x) for x in (q, k, v, d_out)], [view(x) for x in (dq, dk, dv)], at, *rest)
    for buffer in (*buffers, lse):
        assert buffer[:guard].isnan().all() and buffer[-guard:].isnan().all()
        assert buffer[guard:-guard].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_the_bits(dtype):
    lengths = [50, 3, 120, 64]
    cu = bounds(lengths)
    before = torch.get_num_threads()
    seen = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        qkv = random(sum(lengths), 3, 4, 32, dtype=dtype).requires_grad_()
        out = ops.qkv_attention(qkv, cu, 120, impl="cpp")
        out.backward(random(*out.shape, seed=1, dtype=dtype))
        seen.append((out.detach(), qkv.grad))
    torch.set_num_threads(before)
    for out, grad in seen[1:]:
        assert torch.equal(out, seen[0][0]) and torch.equal(grad, seen[0][1])


def test_large_scores_do_not_overflow(isa):
    q, k, v = (random(40, 1, 16, seed=i, dtype=torch.float32) * 100 for i in range(3))
    cu = bounds([40])
    torch.testing.assert_close(
        ops.attention(q, k, v, cu, 40, impl="cpp"),
        ops.attention(q, k, v, cu, 40, impl="reference"),
        atol=1e-3,
        rtol=1e-4,
    )
    below = ops.attention(q, -q.abs(), v, cu, 40, impl="cpp")
    assert below.isfinite().all()


@pytest.mark.parametrize("equal", [False, True], ids=["values", "equal values"])
def test_gradients_of_large_scores(isa, equal):
    """Where all values are equal the gradients of q and k are 0: what is left is how far the weights miss 1."""
    q, k, v, grad = (random(2, 17, 1, 64, seed=i) for i in range(4))
    v = v[:, :1].expand_as(v) if equal else v

    def attend(impl):
        return lambda q, k, v: ops.attention(q, k, v, scale=1.0, impl=impl)

    exact = results(attend("reference"), (q, k, v), torch.float64, grad)
    torchs = results(attend("reference"), (q, k, v), torch.float32, grad)
    assert_as_good_as_torch(results(attend("cpp"), (q, k, v), torch.float32, grad), torchs, exact, torch.float32)


def test_nothing_to_do():
    empty = torch.zeros(0, 2, 16, requires_grad=True)
    out = ops.attention(empty, empty, empty, torch.zeros(1, dtype=torch.int32), 0, impl="cpp")
    out.sum().backward()
    assert out.shape == empty.grad.shape == (0, 2, 16)
    assert ops.attention(*(torch.zeros(2, 0, 2, 16),) * 3, impl="cpp").shape == (2, 0, 2, 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "head_dim", "window"),
    [([5, 1, 17, 0, 63], 16, None), ([128, 127], 32, None), ([129, 300], 64, 7), ([300], 32, None), ([65], 128, 60)],
)
def test_dropout(isa, lengths, head_dim, window, dtype, dropout_factors):
    """The weights that the generator drops are dropped, forward and in every gradient."""
    heads, seed, cu, probability = 2, 11, bounds(lengths), 0.25
    q, k, v, grad = (random(sum(lengths), heads, head_dim, seed=i) for i in range(4))

    def plain(q, k, v):
        """Sequence by sequence with the mask that the generator draws."""
        out = []
        for start, length in zip(cu.tolist(), lengths, strict=False):
            part = slice(start, start + length)
            width, near = -(-length // 16) * 16, torch.arange(length)
            scores = torch.einsum("inh,jnh->nij", q[part], k[part]) * head_dim**-0.5
            if window is not None:
                scores = scores.masked_fill((near[:, None] - near).abs() > window, float("-inf"))
            z = torch.stack(
                [dropout_factors(seed, probability, length, length, width, start, head) for head in range(heads)]
            )
            out.append(torch.einsum("nij,jnh->inh", scores.softmax(-1) * z.to(q.dtype), v[part]))
        return torch.cat(out)

    def kernel(q, k, v):
        return ops.attention(q, k, v, cu, max(lengths), window=window, dropout_p=probability, seed=seed, impl="cpp")

    exact, torchs = (results(plain, (q, k, v), of, grad) for of in (torch.float64, dtype))
    assert_as_good_as_torch(results(kernel, (q, k, v), dtype, grad), torchs, exact, dtype)


def test_dropout_of_the_fused_projection_is_the_same(isa):
    qkv = random(150, 3, 2, 32, dtype=torch.float32)
    options = {"dropout_p": 0.1, "seed": 5, "impl": "cpp"}
    apart = ops.attention(*qkv.unbind(1), bounds([50, 100]), 100, **options)
    assert ops.qkv_attention(qkv, bounds([50, 100]), 100, **options).equal(apart)


def test_what_it_cannot_do_is_said():
    q = torch.zeros(4, 2, 16)
    cu = bounds([4])
    cases = [
        (q.double(), {}, r"q is torch.float64: the C\+\+ kernels take float32 and bfloat16. Try: impl='reference'"),
        (torch.zeros(4, 2, 24), {}, "q has head_dim 24: the kernel takes multiples of 16 up to 128"),
        (torch.zeros(4, 16, 2).transpose(1, 2), {}, r"q has last stride 2.*Try: q.contiguous\(\)"),
        (q, {"bias": torch.zeros(2, 4, 4)}, "bias was given"),
        (q, {"scale": -1.0}, "scale=-1.0"),
    ]
    for x, options, message in cases:
        with pytest.raises(RuntimeError, match=message):
            ops.attention(x, x, x, cu, 4, impl="cpp", **options)
        ops.attention(x, x, x, cu, 4, **options)  # "auto" takes the reference
    x = torch.zeros(1, 4, 2, 16)
    with pytest.raises(RuntimeError, match="a real token after padding"):
        ops.attention(x, x, x, attention_mask=torch.tensor([[0, 1, 1, 1]]), impl="cpp")
    with pytest.raises(ValueError, match="4 tokens"):
        ops.attention(q, q, q, bounds([3]), 4, impl="cpp")


def test_the_choice_is_told():
    assert ops.choose("attention", "cpp") == ("cpp", "requested by impl argument")
    chosen, why = ops.choose("attention", "auto", {"q": torch.zeros(4, 2, 24), "k": None, "v": None})
    assert chosen == "reference" and "head_dim 24" in why


def test_torch_library_agrees():
    qkv = random(20, 3, 2, 16, dtype=torch.float32).requires_grad_()
    cos, sin = reference.rotary_tables(torch.arange(20), 16, 100.0, torch.float32)
    cu = bounds([8, 12])
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    apart, attention = torch.ops.fastbert.cpu_attention.default, torch.ops.fastbert.cpu_qkv_attention.default
    for dropped in ((0.0, 0), (0.25, 5)):
        torch.library.opcheck(attention, (qkv, cos, sin, cu, None, -1, 0.25, *dropped), test_utils=checks)
        torch.library.opcheck(apart, (*qkv.unbind(1), cu, None, 3, 0.25, *dropped), test_utils=checks)
