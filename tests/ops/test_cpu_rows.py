"""The C++ row kernels and layer halves against float64: at most twice PyTorch's own error, gradients included."""

import math

import pytest
import torch

from fastbert import ops, reference
from fastbert.system import native

if not native.status()[0]:
    pytest.skip("the C++ core is not compiled", allow_module_level=True)

DTYPES = [torch.float32, torch.bfloat16]


def random(*shape, seed=0):
    # values that bf16 holds, so that every dtype starts from the same numbers
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.bfloat16().double()


def vector(size, seed, mean=0.0):
    return (mean + 0.1 * random(size, seed=seed)).bfloat16().double()


def matrix(rows, columns, seed):
    return (random(rows, columns, seed=seed) * columns**-0.5).bfloat16().double()


def results(op, inputs, dtype):
    """Outputs and gradients in float64."""
    inputs = [x.to(dtype).detach().clone().requires_grad_() for x in inputs]
    outs = op(*inputs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    torch.autograd.backward(outs, [random(*out.shape, seed=100 + i).to(dtype) for i, out in enumerate(outs)])
    return [x.detach().double() for x in (*outs, *(x.grad for x in inputs))]


def assert_as_good_as_torch(op, make, dtype):
    """``make(seed)`` gives the inputs; small tensors are drawn many times, for the error of a few values is luck."""
    total, draws = None, 0
    while total is None or (draws < 40 and min(size for *_, size in total) * draws < 2000):
        inputs = make(1000 * draws)
        mine = results(lambda *xs: op(ops, *xs, impl="cpp"), inputs, dtype)
        torchs = results(lambda *xs: op(reference, *xs), inputs, dtype)
        exact = results(lambda *xs: op(reference, *xs), inputs, torch.float64)
        found = []
        for number, (x, y, true) in enumerate(zip(mine, torchs, exact, strict=True)):
            assert x.shape == true.shape and x.isfinite().all(), number
            worst = 2 * torch.finfo(dtype).eps * true.abs().max().clamp(min=1.0)
            assert (x - true).abs().max() <= 4 * (y - true).abs().max() + worst, f"result {number}: one is far off"
            # where PyTorch happens to be exact, the rounding of each value is granted
            granted = torch.finfo(dtype).eps ** 2 * true.square().sum() / 12
            found.append(((x - true).square().sum(), (y - true).square().sum(), granted, true.numel()))
        total = found if total is None else [
            (a + e, b + f, c + g, n) for (a, b, c, n), (e, f, g, _) in zip(total, found, strict=True)
        ]  # fmt: skip
        draws += 1
    for number, (error, torchs_error, granted, _) in enumerate(total):
        allowed = 2 * max(torchs_error, granted) ** 0.5
        assert error**0.5 <= allowed, f"result {number}: error {error**0.5:.3g}, PyTorch's {torchs_error**0.5:.3g}"


SHAPES = [(1, 17), (63, 64), (129, 127), (300, 256)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_add_layer_norm(isa, rows, width, dtype):
    def make(seed):
        weight, bias = vector(width, seed + 3, mean=1.0), vector(width, seed + 4)
        return [random(rows, width, seed=seed + 1), random(rows, width, seed=seed + 2), weight, bias]

    eps = 1e-5
    assert_as_good_as_torch(lambda of, *xs, **kw: of.add_layer_norm(*xs, eps, **kw), make, dtype)
    assert_as_good_as_torch(lambda of, *xs, **kw: of.add_layer_norm(*xs, eps, return_sum=True, **kw), make, dtype)

    def alone(of, x, weight, **kw):
        return of.add_layer_norm(x, None, weight, None, eps, **kw)

    assert_as_good_as_torch(alone, lambda seed: make(seed)[::2], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_gelu_and_geglu(isa, rows, width, approximate, dtype):
    def make(seed, factor=1):
        return [2 * random(rows, factor * width, seed=seed + 1), vector(factor * width, seed + 2)]

    assert_as_good_as_torch(lambda of, *xs, **kw: of.bias_gelu(*xs, approximate, **kw), make, dtype)
    assert_as_good_as_torch(
        lambda of, x, **kw: of.bias_gelu(x, None, approximate, **kw), lambda seed: make(seed)[:1], dtype
    )
    assert_as_good_as_torch(lambda of, *xs, **kw: of.geglu(*xs, approximate, **kw), lambda seed: make(seed, 2), dtype)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_from_zero(isa, approximate):
    x = torch.tensor([-1e30, -90.0, -14.0, -6.0, -1e-30, -0.0, 0.0, 1e-40, 1e-6, 6.0, 90.0, 1e30, math.inf])
    x.requires_grad_()
    out = ops.bias_gelu(x[None], None, approximate, impl="cpp")
    (slope,) = torch.autograd.grad(out.sum(), x)
    exact = x.detach().double().requires_grad_()
    (true_slope,) = torch.autograd.grad(reference.bias_gelu(exact[:-1], None, approximate).sum(), exact)
    assert (out[0] - reference.bias_gelu(exact, None, approximate))[:-1].abs().max() < 2e-6 and out[0, -1] == math.inf
    assert (slope - true_slope)[1:-2].abs().max() < 1e-6
    assert ops.bias_gelu(torch.full((1, 5), math.nan), None, approximate, impl="cpp").isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("norm", "mlp", "biases"), [("post", "gelu", True), ("pre", "geglu", False), ("pre", "gelu", True)]
)
def test_feed_forward(isa, norm, mlp, biases, dtype):
    tokens, width, inner = 77, 40, 56
    up = inner * (2 if mlp == "geglu" else 1)

    def make(seed):
        inputs = [random(tokens, width, seed=seed + 1), vector(width, seed + 2, mean=1.0)]
        inputs += [matrix(up, width, seed + 3), matrix(width, inner, seed + 4)]
        return inputs + [vector(n, seed + 5 + n) for n in (width, up, width)] * biases

    def op(of, x, weight, up, down, bias=None, up_bias=None, down_bias=None, **kw):
        return of.feed_forward(x, weight, bias, up, up_bias, down, down_bias, norm=norm, mlp=mlp, eps=1e-5, **kw)

    assert_as_good_as_torch(op, make, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("asked", [None, [0, 5, 6, 30]])
@pytest.mark.parametrize("norm", ["post", "pre", "pre, without"])
def test_self_attention(isa, norm, asked, dtype):
    lengths, heads, width = [5, 1, 17, 8], 2, 32
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    rows = None if asked is None else torch.tensor(asked)
    positions = torch.cat([torch.arange(n) for n in lengths])
    rotary = reference.rotary_tables(positions, width // heads, 100.0, torch.float64)

    def make(seed):
        inputs = [random(31, width, seed=seed + 1), matrix(3 * width, width, seed + 2), vector(3 * width, seed + 3)]
        inputs += [matrix(width, width, seed + 4), vector(width, seed + 5)]
        return inputs + [vector(width, seed + 6, mean=1.0), vector(width, seed + 7)] * (norm in ("post", "pre"))

    def op(of, x, qkv, qkv_bias, out, out_bias, weight=None, bias=None, **kw):
        tables = [table.to(x.dtype if of is reference else torch.float32) for table in rotary]
        return of.self_attention(
            x, weight, bias, qkv, qkv_bias, out, out_bias, cu_seqlens, 17, num_heads=heads, rotary=tables, rows=rows,
            norm=norm[:4].strip(","), eps=1e-5, window=6, **kw,
        )  # fmt: skip

    assert_as_good_as_torch(op, make, dtype)


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("lengths", "asked"),
    [([9] * 8, "one each"), ([9] * 6 + [4] * 6, "one each"), ([3, 7, 5, 2], "one each"), ([17], "one each"),
     ([9] * 8, "two of one"), ([9] * 8, None)],
)  # fmt: skip
def test_self_attention_without_gradients(isa, lengths, asked, norm, rotary):
    """One row of each sequence needs no keys and values; distinct rows are projected once."""
    heads, width = 2, 32
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    tokens = int(cu_seqlens[-1])
    generator = torch.Generator().manual_seed(tokens)
    inside = torch.tensor([int(torch.randint(0, n, (), generator=generator)) for n in lengths])
    rows = None if asked is None else cu_seqlens[:-1] + inside
    if asked == "two of one":
        rows = torch.cat([rows[:1], rows[:-1]])
    index = torch.randint(0, 13, (tokens,), generator=generator)
    positions = torch.cat([torch.arange(n) for n in lengths])
    tables = reference.rotary_tables(positions, width // heads, 100.0, torch.float64)
    vectors = [vector(n, 3 + n) for n in (3 * width, width)]
    weights = [vector(width, 6, mean=1.0), vector(width, 7), matrix(3 * width, width, 2), vectors[0],
               matrix(width, width, 4), vectors[1]]  # fmt: skip

    def run(of, dtype, x, **options):
        turned = tuple(table.to(dtype) for table in tables) if rotary else None
        with torch.no_grad():
            return of.self_attention(
                x.to(dtype), *(w.to(dtype) for w in weights), cu_seqlens, max(lengths), num_heads=heads, rotary=turned,
                rows=rows, norm=norm, eps=1e-5, **options,
            ).double()  # fmt: skip

    distinct = random(13, width, seed=1)
    for given in ({"x": distinct[index]}, {"x": distinct, "unique_index": index}):
        exact = run(reference, torch.float64, distinct[index])
        torch.testing.assert_close(run(reference, torch.float64, **given), exact)
        mine = run(ops, torch.float32, **given, impl="cpp")
        error = (run(reference, torch.float32, **given) - exact).abs().max()
        assert mine.shape == exact.shape and (mine - exact).abs().max() <= 2 * error + 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tables", [1, 2, 3])
def test_embed_layer_norm(isa, tables, dtype):
    width, tokens = 24, 200
    generator = torch.Generator().manual_seed(5)
    sizes = (50, 30, 2)
    ids = [torch.randint(0, size, (tokens,), generator=generator) for size in sizes]

    def make(seed):
        inputs = [vector(width, seed + 1, mean=1.0), vector(width, seed + 2)]
        return inputs + [random(size, width, seed=seed + 10 + i) for i, size in enumerate(sizes[:tables])]

    def op(of, weight, bias, word, position=None, types=None, **kw):
        return of.embed_layer_norm(*ids, word, position, types, weight, bias, 1e-5, **kw)

    assert_as_good_as_torch(op, make, dtype)
    ids[0][7] = 50
    with pytest.raises(IndexError, match="50"):
        op(ops, *(x.to(dtype) for x in make(0)), impl="cpp")


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_give_what_copies_give(dtype):
    wide = random(40, 3, 64, seed=1).to(dtype)
    weight, bias = (vector(128, i, 1.0).to(dtype)[::2] for i in (2, 3))
    for view in (wide[:, 1], wide.transpose(0, 1), wide[..., ::2].repeat(1, 1, 2)):
        out = ops.add_layer_norm(view, view, weight, bias, 1e-5, impl="cpp")
        again = ops.add_layer_norm(view.contiguous(), view.contiguous(), weight.clone(), bias.clone(), 1e-5, impl="cpp")
        assert torch.equal(out, again)
        assert torch.equal(ops.bias_gelu(view, bias, impl="cpp"), ops.bias_gelu(view.clone(), bias.clone(), impl="cpp"))


def test_nothing_to_do():
    weight = torch.ones(8, requires_grad=True)
    x = torch.empty(0, 8, requires_grad=True)
    for out in (ops.add_layer_norm(x, x, weight, weight, 1e-5, impl="cpp"), ops.bias_gelu(x, weight, impl="cpp")):
        assert out.shape == (0, 8)
        out.sum().backward()
    assert weight.grad is not None and not weight.grad.any() and x.grad is not None and x.grad.shape == (0, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_the_bits(dtype):
    inputs = [random(1000, 48, seed=1), vector(48, 2, 1.0), vector(48, 3), matrix(96, 48, 4), vector(96, 5)]
    inputs += [matrix(48, 96, 6), vector(48, 7)]

    def op(*xs):
        return ops.feed_forward(*xs, norm="post", eps=1e-5, impl="cpp")

    def norm_and_gelu(x, weight, bias, *_):
        return ops.bias_gelu(ops.add_layer_norm(x, x, weight, bias, 1e-5, impl="cpp"), bias, impl="cpp")

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(norm_and_gelu, inputs[:3], dtype))
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


def test_tied_tables_get_the_sum_of_both_gradients():
    table = random(50, 16, seed=1).float().requires_grad_()
    ids = torch.tensor([3, 3, 7, 49, 3])
    weight = torch.ones(16)
    grads = []
    for impl in ("cpp", "reference"):
        lookup, projection = ops.tie_embedding(table, impl)
        out = ops.embed_layer_norm(ids, None, None, lookup, None, None, weight, None, 1e-5, impl=impl)
        loss = (out @ projection.t()).square().sum()
        grads.append(torch.autograd.grad(loss, table)[0])
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-4 * grads[1].abs().max().item())
    lookup, _ = ops.tie_embedding(table, "cpp")  # only one of the two is used
    out = ops.embed_layer_norm(ids, None, None, lookup, None, None, weight, None, 1e-5, impl="cpp")
    (alone,) = torch.autograd.grad(out.square().sum() + out[:, 0].sum(), table)
    assert alone.shape == table.shape and alone[3].any() and not alone[4].any()


def test_what_it_cannot_do_is_said():
    x, weight = torch.randn(4, 8), torch.ones(8)
    with pytest.raises(RuntimeError, match="float64"):
        ops.bias_gelu(x.double(), None, impl="cpp")
    with pytest.raises(RuntimeError, match="residual"):
        ops.add_layer_norm(x, x.bfloat16(), weight, None, 1e-5, impl="cpp")
    assert ops.add_layer_norm(x, x.bfloat16(), weight, None, 1e-5).shape == x.shape  # auto takes the reference


def test_images_of_weights_follow_them_whoever_writes():
    from fastbert.ops.cpu import bf16_copies
    from fastbert.optim.adamw import AdamW

    weight = torch.nn.Parameter(random(64, 32, seed=1).float())
    for make in (AdamW, torch.optim.AdamW):  # PyTorch's fused form does not count its writes
        optimizer = make([weight], lr=0.1, fused=True)
        for _ in range(3):
            assert torch.equal(bf16_copies.bf16_copy(weight), weight.detach().bfloat16())
            weight.grad = random(64, 32, seed=2).float()
            optimizer.step()
            assert torch.equal(bf16_copies.bf16_copy(weight), weight.detach().bfloat16())
        if make is AdamW and ops.choose("adamw")[0] == "cpp":  # without AVX2 PyTorch's own step is quicker
            assert bf16_copies.bf16_copy(weight) is bf16_copies.bf16_copy(weight)  # kept, not made anew
            with torch.no_grad():
                weight.mul_(2.0)
            assert torch.equal(bf16_copies.bf16_copy(weight), weight.detach().bfloat16())


def test_one_pass_adamw_is_pytorchs():
    from fastbert.optim.adamw import AdamW, clip

    start = [random(70, 33, seed=1).float(), random(5, seed=2).float()]
    mine, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    options = {"lr": 0.05, "betas": (0.9, 0.98), "eps": 1e-6}
    groups = [
        [{"params": [p[0]], "weight_decay": 0.1}, {"params": [p[1]], "weight_decay": 0.0}] for p in (mine, theirs)
    ]
    ours, peer = AdamW(groups[0], **options), torch.optim.AdamW(groups[1], **options)
    for number in range(20):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = random(*a.shape, seed=number + 3).float()
            b.grad = a.grad.clone()
        norm = clip(ours, mine, 1.0)
        assert torch.allclose(norm, torch.nn.utils.clip_grad_norm_(theirs, 1.0), rtol=1e-5)
        ours.step()
        peer.step()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
        assert ours.state[a].keys() == peer.state[b].keys() and ours.state[a]["step"] == peer.state[b]["step"]
