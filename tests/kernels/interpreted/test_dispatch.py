"""What a kernel refuses, it refuses in one line that names the argument and the remedy; ``ops`` runs it by name."""

import functools

import pytest
import torch

from fastbert import ops, reference
from fastbert.kernels import dispatch
from fastbert.kernels.dispatch import OPS, refusal
from fastbert.kernels.launch import within_31_bits


def heads(*shape, **options):
    return torch.randn(*shape, **options)


Q = heads(4, 2, 16)
REFUSED = {
    "head size": (
        "attention",
        {"q": heads(4, 2, 24), "k": heads(4, 2, 24), "v": heads(4, 2, 24)},
        {},
        r"q has head_dim 24.*Remedy",
    ),
    "mixed dtypes": ("attention", {"q": Q, "k": Q.half(), "v": Q}, {}, "q, k, v are torch.float32, torch.float16"),
    "float64": ("attention", {"q": Q.double(), "k": Q.double(), "v": Q.double()}, {}, "q is torch.float64.*Remedy"),
    "last stride": (
        "attention",
        {"q": heads(4, 16, 2).mT, "k": Q, "v": Q},
        {},
        r"q has last stride 2.*q\.contiguous\(\)",
    ),
    "scale": ("attention", {"q": Q, "k": Q, "v": Q}, {"scale": -1.0}, r"scale=-1\.0.*Remedy"),
    "device": ("bias_gelu", {"x": torch.empty(2, 4, device="meta")}, {}, "x is on meta.*Remedy"),
    "two devices": (
        "bias_gelu",
        {"x": torch.empty(2, 4), "bias": torch.empty(4, device="meta")},
        {},
        "bias is on meta, x on cpu",
    ),
    "table gradient": ("rotary", {"x": Q, "cos": heads(4, 8).requires_grad_()}, {}, r"cos asks.*cos\.detach\(\)"),
    "width": ("add_layer_norm", {"x": heads(1, 20000)}, {}, "x is 20000 wide.*Remedy"),
    "table in pieces": ("embed_layer_norm", {"word": heads(8, 4).T}, {}, r"word is not contiguous.*Remedy"),
    "no such op": ("convolution", {"x": Q}, {}, "no Triton kernel for 'convolution'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_names_the_argument(name):
    op, tensors, options, message = REFUSED[name]
    why = refusal(op, tensors, **options)
    assert why is not None and "\n" not in why
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(why)


def test_every_kernel_has_its_op():
    assert set(OPS) <= set(ops.OPS)  # the rest are compounds of these, or the CPU's own
    assert refusal("attention", {"q": Q, "k": Q, "v": Q, "bias": None}) is None


def test_asked_by_name_on_the_cpu_without_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(RuntimeError, match=r"impl argument='triton': bias_gelu: x is on the CPU.*TRITON_INTERPRET=1"):
        ops.bias_gelu(Q, impl="triton")
    monkeypatch.setenv("FASTBERT_IMPL", "triton")
    with pytest.raises(RuntimeError, match=r"FASTBERT_IMPL='triton': rotary"):
        ops.rotary(Q, Q[:, 0, :8], Q[:, 0, :8])


def test_ops_run_the_kernel_asked_for(monkeypatch):
    """Each op through the dispatch point; a kernel that was not reached would not be missed by numbers alone."""
    from fastbert.kernels import launch

    reached = []
    stock = launch.launch

    def spy(kernel, *arguments, **options):
        reached.append(kernel.fn.__name__)
        return stock(kernel, *arguments, **options)

    for module in ("attention.forward", "norm", "gelu", "rotary", "embed", "loss"):
        monkeypatch.setattr(f"fastbert.kernels.{module}.launch", spy)
    x, vector, ids = torch.randn(6, 16), torch.randn(16), torch.arange(6)
    calls = {
        "attention": (lambda i: ops.attention(Q[None], Q[None], Q[None], impl=i), "attention_forward_kernel"),
        "rotary": (lambda i: ops.rotary(Q, Q[:, 0, :8], Q[:, 0, :8], impl=i), "rotary_kernel"),
        "add_layer_norm": (
            lambda i: ops.add_layer_norm(x, x, vector, None, 1e-5, impl=i),
            "add_layer_norm_forward_kernel",
        ),
        "bias_gelu": (lambda i: ops.bias_gelu(x, vector, impl=i), "gelu_forward_kernel"),
        "geglu": (lambda i: ops.geglu(x, vector, impl=i), "gelu_forward_kernel"),
        "feed_forward": (
            lambda i: ops.feed_forward(x, vector, None, torch.eye(16), None, torch.eye(16), None, impl=i),
            "gelu_forward_kernel",
        ),
        "embed_layer_norm": (
            lambda i: ops.embed_layer_norm(ids, None, None, x, None, None, vector, None, 1e-5, impl=i),
            "embed_layer_norm_kernel",
        ),
        "masked_lm_loss": (lambda i: ops.masked_lm_loss(x, x, None, ids, impl=i), "cross_entropy_kernel"),
    }
    assert set(calls) == set(OPS)
    for name, (call, kernel) in calls.items():
        reached.clear()
        ours = call("triton")
        assert kernel in reached, name
        torch.testing.assert_close(ours, call("reference"), rtol=1e-4, atol=1e-5)
        reached.clear()
        call("auto")  # CPU tensors: never the interpreter unasked
        assert not reached, name


def test_a_model_trains_the_same_with_kernels_and_without():
    """Ten steps of a small post-norm layer with both implementations: the loss curves agree."""
    weights = [torch.randn(s) * 0.2 for s in ((48, 16), (16, 16), (32, 16), (16, 32), (16,), (16,))]
    x, target = torch.randn(12, 16), torch.randint(0, 16, (12,))
    cu_seqlens = torch.tensor([0, 5, 12], dtype=torch.int32)

    def curve(impl):
        qkv_w, out_w, up_w, down_w, gain, shift = parameters = [w.clone().requires_grad_() for w in weights]
        losses = []
        for _ in range(10):
            q, k, v = (x @ qkv_w.T).view(12, 3, 1, 16).unbind(1)
            context = ops.attention(q, k, v, cu_seqlens, 7, impl=impl).flatten(1) @ out_w.T
            hidden = ops.add_layer_norm(context, x, gain, shift, 1e-5, impl=impl)
            hidden = ops.feed_forward(hidden, gain, shift, up_w, None, down_w, None, norm="post", impl=impl)
            loss = ops.masked_lm_loss(hidden, weights[1], None, target, impl=impl)
            loss.backward()
            losses.append(loss.item())
            with torch.no_grad():
                for p in parameters:
                    p -= 0.5 * p.grad
                    p.grad = None
        return losses

    ours, theirs = curve("triton"), curve("reference")
    assert theirs[-1] < 0.9 * theirs[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# ---- arguments that a kernel would misread ----
def test_tables_of_other_strides():
    cos, sin = reference.rotary_tables(torch.arange(6), 64, 1e4, torch.float32)
    x, cos, sin = heads(6, 2, 32), cos[:, ::2], sin[:, ::2]
    torch.testing.assert_close(ops.rotary(x, cos, sin, impl="triton"), reference.rotary(x, cos, sin))


@pytest.mark.parametrize("seed", [2**64 - 1, 2**63, -1, 0])
def test_seeds_of_64_bits(seed):
    q = heads(1, 6, 2, 32)
    first, again = (ops.attention(q, q, q, dropout_p=0.3, seed=seed, impl="triton") for _ in range(2))
    other = ops.attention(q, q, q, dropout_p=0.3, seed=seed - 7, impl="triton")
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_copy_is_made_where_a_32_bit_index_would_overflow():
    far = torch.empty(0, device="meta").as_strided((1, 1, 20, 20), (0, 0, 2**27, 1))
    assert within_31_bits(far, 2).stride(2) == 20
    assert within_31_bits(far, 2, sizes=(15,)) is far
    assert "31 bits" in refusal("attention", {"q": Q, "k": Q, "v": Q, "bias": heads(1, 1, 1).expand(2, 2**16, 2**16)})


def test_bfloat16_is_computed_in_float32_where_the_interpreter_is_wrong(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED_DTYPES", (torch.float16, torch.float32))
    q, x = heads(8, 2, 32).bfloat16(), heads(5, 64).bfloat16()
    ends = torch.tensor([0, 8], dtype=torch.int32)
    close = functools.partial(torch.testing.assert_close, rtol=3e-2, atol=3e-2)
    close(ops.attention(q, q, q, ends, 8, impl="triton"), reference.attention(q, q, q, ends, 8))
    norm = x, x.float(), torch.ones(64), None, 1e-5
    close(ops.add_layer_norm(*norm, impl="triton"), reference.add_layer_norm(*norm))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="autocast"):
        ops.bias_gelu(x, impl="triton")
