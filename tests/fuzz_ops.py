"""Random arguments, options and modes through every op and layer: "auto" gives what the reference gives, or both raise.

``pytest tests/fuzz_ops.py`` tries 2,000 cases, ``pytest -m slow tests/fuzz_ops.py`` a hundred thousand. One case again,
with the arguments it made: ``python tests/fuzz_ops.py SEED``. The random stream of a case is its seed's alone.
"""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from fastbert import layers, ops, reference
from fastbert.config import BertConfig

REFUSALS = (ValueError, RuntimeError, TypeError, IndexError, NotImplementedError)
MODES = ("train",) * 6 + ("no_grad", "inference", "autocast", "functorch", "dual", "twice", "trace")
WIDTHS = (1, 16, 32, 48, 64, 128)


class Case:
    """The arguments of one call, drawn from its seed; ``exact``: the same numbers in float64."""

    def __init__(self, seed: int, exact: bool = False):
        self.random, self.exact = random.Random(seed), exact
        self.mode = self.random.choice(MODES)
        self.mode = "train" if exact and self.mode == "autocast" else self.mode
        self.dtype = self.random.choice((torch.float32,) * 5 + (torch.bfloat16, torch.float64))
        self.floats: list[Tensor] = []  # that a derivative may be taken of
        self.generator = torch.Generator().manual_seed(seed)
        self.op, self.call = self.random.choice(list(OPS.items()))
        self.run = self.call(self)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def size(self, *usual: int) -> int:
        """One of the usual sizes, now and then another one, which need not fit."""
        return self.random.choice(usual) if self.chance(0.985) else self.random.randrange(0, 9)

    def normed(self, *usual: int) -> int:
        """A size of what is normalized: over 1 to 3 numbers the variance is near 0, and rounding grows by 1/√eps."""
        size = self.size(*usual)
        return size if size not in (1, 2, 3) else 4

    def tensor(self, *shape: int, scale: float = 1.0, strided: float = 0.2) -> Tensor:
        """Normal numbers; sometimes a view with strides of its own, another dtype, or a shape that does not fit."""
        sizes = list(shape)
        if sizes and self.chance(0.015):
            sizes[self.random.randrange(len(sizes))] = self.random.choice((0, 1, 3, 65))
        dtype = self.dtype if self.chance(0.985) else self.pick(torch.float32, torch.bfloat16, torch.float16)
        x = torch.randn(sizes, generator=self.generator) * scale
        x = x.to(dtype)
        if sizes and self.chance(strided):
            kind = self.random.randrange(4)
            if kind == 0:  # every second column of a wider tensor
                wide = torch.randn((*sizes[:-1], 2 * sizes[-1]), generator=self.generator).to(dtype) * scale
                x = wide[..., ::2]
            elif kind == 1:  # rows of a wider tensor
                wide = torch.randn((*sizes[:-1], sizes[-1] + 5), generator=self.generator).to(dtype) * scale
                x = wide[..., : sizes[-1]]
            elif kind == 2 and len(sizes) > 1:
                x = x.transpose(0, -1).contiguous().transpose(0, -1)
            else:
                x = x.clone()[:1].expand(sizes) if sizes[0] else x
        x = x.double() if self.exact else x
        self.floats.append(x)
        return x

    def some(self, probability: float, *shape: int, **how: Any) -> Tensor | None:
        return self.tensor(*shape, **how) if self.chance(probability) else None

    def ids(self, limit: int, *shape: int) -> Tensor:
        dtype = torch.int64 if self.chance(0.9) else torch.int32
        return torch.randint(0, max(limit, 1), shape, generator=self.generator).to(dtype)

    def lengths(self) -> tuple[Tensor, int, int]:
        """cu_seqlens, max_seqlen and the number of tokens."""
        lengths = [self.random.choice((1, 2, 5, 7, 17)) for _ in range(self.random.randrange(1, 5))]
        if self.chance(0.1):
            lengths.insert(self.random.randrange(len(lengths)), 0)
        ends = torch.tensor([0, *lengths]).cumsum(0)
        dtype = torch.int32 if self.chance(0.9) else torch.int64
        return ends.to(dtype), max(lengths) + self.pick(0, 0, 0, 3), sum(lengths)


# ---- one function for each op: draws its arguments, returns the call as a function of the implementation ----
Run = Callable[[str, list[Tensor]], Any]


def _wrap(case: Case, call: Callable[..., Any], positional: list[Any], **named: Any) -> Run:
    """The call with the tensors that a derivative is taken of put in place of those that were drawn."""

    def run(impl: str, floats: list[Tensor]) -> Any:
        at = {id(old): new for old, new in zip(case.floats, floats, strict=True)}

        def place(x: Any) -> Any:
            return tuple(map(place, x)) if isinstance(x, tuple) else at.get(id(x), x)

        return call(*map(place, positional), **{name: place(x) for name, x in named.items()}, impl=impl)

    return run


def bias_gelu(case: Case) -> Run:
    width = case.size(*WIDTHS)
    x = case.tensor(*case.pick((), (3,), (2, 5), (17,), (0,)), width)
    bias = case.some(0.7, case.pick(width, width, width, 1))
    return _wrap(case, ops.bias_gelu, [x, bias, case.pick("none", "tanh")])


def geglu(case: Case) -> Run:
    width = case.size(*WIDTHS)
    x = case.tensor(*case.pick((3,), (2, 5), (17,), (0,)), 2 * width)
    return _wrap(case, ops.geglu, [x, case.some(0.7, 2 * width), case.pick("none", "tanh")])


def add_layer_norm(case: Case) -> Run:
    width = case.normed(*WIDTHS[1:])
    lead = case.pick((3,), (2, 5), (17,), (0,))
    residual = case.some(0.7, *(lead if case.chance(0.95) else (1,)), width)
    arguments = [case.tensor(*lead, width), residual, case.tensor(width), case.some(0.7, width), case.pick(1e-5, 1.0)]
    return _wrap(case, ops.add_layer_norm, arguments, return_sum=case.chance(0.3))


def feed_forward(case: Case) -> Run:
    width, inner, mlp = case.normed(16, 32, 64), case.size(16, 48, 96), case.pick("gelu", "geglu")
    rows = inner * (2 if mlp == "geglu" else 1)
    arguments = [
        case.tensor(*case.pick((3,), (2, 5), (17,), (0,)), width), case.tensor(width), case.some(0.7, width),
        case.tensor(rows, width, scale=0.2), case.some(0.6, rows), case.tensor(width, inner, scale=0.2),
        case.some(0.6, width),
    ]  # fmt: skip
    named = {"norm": case.pick("pre", "post"), "mlp": mlp, "eps": 1e-5, "approximate": case.pick("none", "tanh")}
    return _wrap(case, ops.feed_forward, arguments, **named)


def _angles(case: Case, tokens: int, head_dim: int) -> tuple[Tensor, Tensor] | None:
    if case.chance(0.5):
        return None
    count = tokens if case.chance(0.95) else 1
    return reference.rotary_tables(torch.arange(count), head_dim, 1e4, torch.float32)


def self_attention(case: Case) -> Run:
    heads, head_dim = case.pick(1, 2, 3), case.normed(16, 32, 64)
    width = heads * head_dim
    cu_seqlens, longest, tokens = case.lengths()
    norm = case.pick("pre", "post")
    rows = torch.randperm(tokens, generator=case.generator)[: case.random.randrange(tokens + 1)]
    rows = case.ids(tokens, 5) if case.chance(0.2) else rows
    unique = case.ids(4, tokens).long() if case.chance(0.1) else None
    normed = norm == "post" or case.chance(0.8)
    arguments = [
        case.tensor(4 if unique is not None else tokens, width), case.tensor(width) if normed else None,
        case.tensor(width) if normed and case.chance(0.7) else None, case.tensor(3 * width, width, scale=0.2),
        case.some(0.6, 3 * width), case.tensor(width, width, scale=0.2), case.some(0.6, width), cu_seqlens, longest,
    ]  # fmt: skip
    return _wrap(
        case, ops.self_attention, arguments,
        num_heads=heads, window=case.pick(None, None, 0, 2, 100), rotary=_angles(case, tokens, head_dim),
        rows=rows if case.chance(0.3) else None, unique_index=unique, norm=norm, eps=1e-5,
    )  # fmt: skip


def attention(case: Case) -> Run:
    heads, head_dim = case.pick(1, 2, 4), case.size(16, 32, 64, 24)
    shared = case.pick(heads, heads, heads, 1)
    named: dict[str, Any] = {"window": case.pick(None, None, 0, 2, 100), "is_causal": case.chance(0.1)}
    named["scale"] = case.pick(None, None, 0.3, 1)
    if case.chance(0.5):
        cu_seqlens, longest, tokens = case.lengths()
        q, k, v = (case.tensor(tokens, n, head_dim) for n in (heads, shared, shared))
        if case.chance(0.2):
            named["bias"] = case.tensor(heads, longest, longest)
        return _wrap(case, ops.attention, [q, k, v, cu_seqlens, longest], **named)
    batch, length = case.pick(1, 3), case.pick(1, 6, 17)
    keys = length if case.chance(0.9) else case.pick(1, 9)
    q = case.tensor(batch, length, heads, head_dim)
    k, v = (case.tensor(batch, keys, shared, head_dim) for _ in range(2))
    if case.chance(0.4):
        ends = torch.randint(0, keys + 1, (batch, 1), generator=case.generator)
        mask = torch.arange(keys) < ends if case.chance(0.8) else torch.rand(batch, keys) < 0.5
        named["attention_mask"] = mask.to(case.pick(torch.bool, torch.int64, torch.float32))
    if case.chance(0.2):
        named["bias"] = case.tensor(*case.pick((heads,), (batch, heads)), length, keys)
    return _wrap(case, ops.attention, [q, k, v], **named)


def embed_layer_norm(case: Case) -> Run:
    width, shape = case.normed(16, 32, 64), case.pick((7,), (2, 5), (0,))
    arguments = [
        case.ids(9, *shape), case.ids(6, *case.pick(shape, shape[-1:])), case.ids(2, *shape), case.tensor(9, width),
        case.some(0.7, 6, width), case.some(0.7, 2, width), case.tensor(width), case.some(0.7, width), 1e-5,
    ]  # fmt: skip
    return _wrap(case, ops.embed_layer_norm, arguments)


def masked_lm_loss(case: Case) -> Run:
    rows, width, words = case.size(1, 5, 17, 0), case.size(16, 32, 64), case.size(9, 50, 64)
    labels = torch.randint(0, max(words, 1), (rows,), generator=case.generator)
    labels[torch.rand(rows, generator=case.generator) < 0.2] = -100
    weights = torch.rand(rows, generator=case.generator) if case.chance(0.2) else None
    arguments = [case.tensor(rows, width), case.tensor(words, width, scale=0.2), case.some(0.6, words), labels]
    return _wrap(case, ops.masked_lm_loss, arguments, row_weights=weights)


def encoder(case: Case) -> Run:
    arch = case.pick("classic", "modern", "roformer")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 2}
    config = BertConfig.preset("tiny", arch, vocab_size=50, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(case.random.randrange(2**31))
        module = layers.Encoder(config, dtype=case.dtype).eval()
        module = module.double() if case.exact else module
    if case.chance(0.5):
        cu_seqlens, longest, tokens = case.lengths()
        arguments: list[Any] = [case.tensor(tokens, 32), None, cu_seqlens, longest]
    else:
        arguments = [case.tensor(2, 6, 32)]

    def call(*given: Any, impl: str) -> Any:
        for part in module.modules():
            part.impl = impl  # type: ignore[assignment]
        return module(*given)

    return _wrap(case, call, arguments)


OPS: dict[str, Callable[[Case], Run]] = {
    f.__name__: f
    for f in (
        bias_gelu, geglu, add_layer_norm, feed_forward, self_attention, attention, embed_layer_norm, masked_lm_loss,
        encoder,
    )
}  # fmt: skip


# ---- modes: what is computed of a call ----
def _total(out: Any) -> Tensor:
    outs = out if isinstance(out, tuple) else (out,)
    # of both signs: nearly equal gradients of a row cancel in a norm's backward, and what is left is rounding;
    # numbers of bfloat16: under autocast outputs are bfloat16 or float32, and both get the same gradient
    weights = ((1.7 * torch.arange(x.numel()).double() + 0.3).cos().bfloat16().double().view(x.shape) for x in outs)
    return torch.stack([(x.double() * w).sum() for x, w in zip(outs, weights, strict=True)]).sum()


def outcome(case: Case, impl: str) -> list[Tensor]:
    """The tensors that the case computes with an implementation."""
    floats = [x.detach() for x in case.floats]
    if case.mode in ("no_grad", "inference"):
        with torch.inference_mode() if case.mode == "inference" else torch.no_grad():
            return _list(case.run(impl, floats))
    if case.mode == "trace":
        with torch.no_grad():
            traced = torch.jit.trace(lambda *x: case.run(impl, list(x)), tuple(floats), check_trace=False)
            return _list(traced(*floats))
    if case.mode == "dual":
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(x, torch.full_like(x, 0.5)) for x in floats]
            return [t for x in _list(case.run(impl, duals)) if (t := forward_ad.unpack_dual(x).tangent) is not None]
    if case.mode == "functorch":
        return list(torch.func.grad(lambda xs: _total(case.run(impl, list(xs))))(tuple(floats)))
    floats = [x.requires_grad_() for x in floats]
    autocast = torch.autocast("cpu", torch.bfloat16) if case.mode == "autocast" else contextlib.nullcontext()
    with autocast:
        out = case.run(impl, floats)
    twice = case.mode == "twice"
    grads = torch.autograd.grad(_total(out), floats, create_graph=twice, allow_unused=True)
    found = _dense(grads, floats)
    if twice and any(g.requires_grad for g in found):
        whole = torch.stack([g.double().sin().sum() for g in found]).sum()
        found += _dense(torch.autograd.grad(whole, floats, allow_unused=True), floats)
    return [x.detach() for x in (*_list(out), *found)]


def _dense(grads: tuple[Tensor | None, ...], of: list[Tensor]) -> list[Tensor]:
    """No gradient is a gradient of zeros."""
    return [torch.zeros_like(x) if g is None else g for g, x in zip(grads, of, strict=True)]


def _list(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, tuple) else [out]


def try_case(seed: int) -> str | None:
    """None, or what differs."""
    case = Case(seed)
    found: dict[str, list[Tensor] | Exception] = {}
    for impl in ("reference", "auto"):
        try:
            with torch.random.fork_rng():
                found[impl] = outcome(case, impl)
        except REFUSALS as error:
            found[impl] = error
    right, got = found["reference"], found["auto"]
    name = f"seed {seed}: {case.op}, {case.mode}, {case.dtype}"
    if isinstance(right, Exception) or isinstance(got, Exception):
        # what the reference cannot do a kernel may refuse, and what it can do too: in one line
        if isinstance(got, Exception):
            return None if isinstance(right, Exception) else f"{name}: auto raises {type(got).__name__}: {got}"
        # under autocast a kernel takes mixes of dtypes that PyTorch's LayerNorm refuses
        return None if case.mode == "autocast" else f"{name}: the reference raises {type(right).__name__}: {right}"
    if len(right) != len(got):
        return f"{name}: {len(got)} tensors, expected {len(right)}"
    low = case.mode == "autocast" or any(x.dtype in (torch.bfloat16, torch.float16) for x in (*case.floats, *right))
    # rounding of bfloat16 has 8 bits, and a sum of gradients rounds each summand, in an encoder layer after layer
    tolerance = (0.12 if case.op == "encoder" else 6e-2) if low else 2e-4
    tolerance *= 5 if case.mode == "twice" else 1
    for number, (a, b) in enumerate(zip(right, got, strict=True)):
        # kernels keep an autocast's bfloat16 where PyTorch's LayerNorm returns float32
        if a.shape != b.shape or (a.dtype != b.dtype and case.mode != "autocast"):
            return f"{name}: output {number} is {b.dtype} {tuple(b.shape)}, expected {a.dtype} {tuple(a.shape)}"
        a, b = a.double(), b.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return f"{name}: output {number} has other infinities or NaN"
        a, b = a.nan_to_num(0.0, 0.0, 0.0), b.nan_to_num(0.0, 0.0, 0.0)
        error, size = (a - b).norm(), a.norm() + 3e-2 * a.numel() ** 0.5
        if error > tolerance * size and not (low and _is_nearer(seed, number, a, b)):
            return f"{name}: output {number} differs by {error / size:.1e} of its size"
    return None


def _is_nearer(seed: int, number: int, a: Tensor, b: Tensor) -> bool:
    """Whether what auto computed in low precision errs at most twice as much as the reference in low precision."""
    exact = outcome(Case(seed, exact=True), "reference")[number]
    return bool((b - exact).norm() <= 2 * (a - exact).norm())


def _try(seeds: range) -> None:
    failures = [failure for seed in seeds if (failure := try_case(seed))]
    assert not failures, f"{len(failures)} of {len(seeds)} cases\n" + "\n".join(failures[:20])


@pytest.mark.filterwarnings("ignore")
def test_auto_equals_the_reference():
    _try(range(2000))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_auto_equals_the_reference_a_hundred_thousand_times(part):
    """In a process of its own, so that a crash is a failure too."""
    seeds = f"{10_000 * part}-{10_000 * part + 9_999}"
    # PyTorch keeps what oneDNN compiled for the last 1,024 shapes, twice: gigabytes where every case has its own
    environment = os.environ | {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
    command = [sys.executable, "-W", "ignore", __file__, seeds]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


if __name__ == "__main__":
    for text in sys.argv[1:]:
        first, _, last = text.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            if (failure := try_case(seed)) or not last:
                case = Case(seed)
                print(failure or f"seed {seed}: {case.op}, {case.mode}, {case.dtype}: no difference")
                if not last:
                    print(*[f"  {tuple(x.shape)} {x.stride()} {x.dtype}" for x in case.floats], sep="\n")
