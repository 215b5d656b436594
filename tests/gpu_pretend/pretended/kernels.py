"""A launch on the pretended device: the real launcher's arguments, the values by a quick twin or by the interpreter.

A twin says in a few lines of PyTorch what a kernel computes, so that a training step takes a fraction of a second. What
has no twin (dropout, the bias gradient) goes through Triton's interpreter, and with ``PRETENDED_KERNELS=interpreter``
everything does; inside/test_twins.py compares the two.
"""

import itertools
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from pretended.log import LOG
from pretended.tensors import MixedDevices, OnCuda, count_bytes, inner_of

Arguments = dict[str, Any]
SHAPES: set[tuple] = set()  # what Triton would compile: kernel, constants, dtypes, divisibility of integers by 16


def _bounds(a: Arguments) -> list[tuple[int, int]]:
    if not a["PACKED"]:
        return [(first, first + a["L"]) for first in range(0, a["T"], max(a["L"], 1))]
    ends = a["CU_SEQLENS"].clamp(max=a["T"]).tolist()
    return [pair for pair in itertools.pairwise(ends) if pair[1] > pair[0]]


def _scores(q, k, a: Arguments, b: int, first: int, end: int):
    scores = torch.einsum("inh,jnh->nij", q.float(), k.float()) * (a["scale_log2"] * math.log(2))
    length = end - first
    if a["HAS_BIAS"]:
        scores = scores + a["BIAS"][0 if a["BIAS"].shape[0] == 1 else b][:, :length, :length].float()
    live = torch.ones(length, length, dtype=torch.bool)
    if a["HAS_MASK"]:
        live = live & (a["KEY_MASK"][first:end] != 0)
    if a["HAS_WINDOW"]:
        place = torch.arange(length)
        live = live & ((place[:, None] - place).abs() <= a["window"])
    return scores.masked_fill(~live, -math.inf)


def attention_forward(a: Arguments) -> None:
    for b, (first, end) in enumerate(_bounds(a)):
        scores = _scores(a["Q"][first:end], a["K"][first:end], a, b, first, end)
        p = scores.softmax(-1).nan_to_num(0.0)
        a["OUT"][first:end] = torch.einsum("nij,jnh->inh", p, a["V"][first:end].float()).to(a["OUT"].dtype)
        lse = scores.logsumexp(-1) / math.log(2)
        a["LSE"][:, first:end] = torch.where(lse == -math.inf, math.inf, lse)


def attention_backward(a: Arguments) -> None:
    for b, (first, end) in enumerate(_bounds(a)):
        q, k, v, do = (a[name][first:end].float() for name in ("Q", "K", "V", "DO"))
        p = _scores(q, k, a, b, first, end).softmax(-1).nan_to_num(0.0)
        dp = torch.einsum("inh,jnh->nij", do, v)
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) * (a["scale_log2"] * math.log(2))
        grads = {
            "DQ": torch.einsum("nij,jnh->inh", ds, k), "DK": torch.einsum("nij,inh->jnh", ds, q),
            "DV": torch.einsum("nij,inh->jnh", p, do),
        }  # fmt: skip
        for name, value in grads.items():
            if name in a:
                a[name][first:end] = value.to(a[name].dtype)


def attention_delta(a: Arguments) -> None:
    a["DELTA"].copy_((a["OUT"].float() * a["DO"].float()).sum(-1).T)


def _normalise(a: Arguments, s) -> None:
    if a.get("SUM") is not None:
        a["SUM"].copy_(s)
    mean = s.mean(-1)
    rstd = (s.var(-1, unbiased=False) + a["eps"]).rsqrt()
    y = (s - mean[:, None]) * rstd[:, None] * a["WEIGHT"].float()
    y = y if a["BIAS"] is None else y + a["BIAS"].float()
    for name in ("Y", "NARROW"):
        if a.get(name) is not None:
            a[name].copy_(y)
    a["MEAN"].copy_(mean)
    a["RSTD"].copy_(rstd)


def add_layer_norm_forward(a: Arguments) -> None:
    s = a["X"].float()
    _normalise(a, s if a["RESIDUAL"] is None else s + a["RESIDUAL"].float())


def embed_layer_norm(a: Arguments) -> None:
    s = a["WORD"].float()[a["INPUT_IDS"]]
    for table, ids in (("POSITION", "POSITION_IDS"), ("TYPE", "TYPE_IDS")):
        if a[table] is not None:
            s = s + a[table].float()[a[ids]]
    _normalise(a, s)


def add_layer_norm_backward(a: Arguments) -> None:
    dy, s = a["DY"].float(), a["SUM"].float()
    normed = (s - a["MEAN"][:, None]) * a["RSTD"][:, None]
    d = dy * a["WEIGHT"].float()
    ds = (d - normed * (d * normed).mean(-1, keepdim=True) - d.mean(-1, keepdim=True)) * a["RSTD"][:, None]
    ds = ds if a["DSUM"] is None else ds + a["DSUM"].float()
    for name in ("DRESIDUAL", "DX"):
        if a[name] is not None:
            a[name].copy_(ds)
    a["PARTS"].zero_()
    for plane, value in zip(a["PARTS"], (dy * normed, dy, ds), strict=False):
        plane[0] = value.sum(0)


def _before_activation(a: Arguments):
    x = a["X"].float()
    return x if a["BIAS"] is None else x + a["BIAS"].float()


def gelu_forward(a: Arguments) -> None:
    z, width = _before_activation(a), a["F"]
    y = F.gelu(z[:, :width], approximate="none" if a["EXACT"] else "tanh")
    a["Y"].copy_(y * z[:, width:] if a["GATED"] else y)


def gelu_backward(a: Arguments) -> None:
    z, width, dy = _before_activation(a), a["F"], a["DY"].float()
    gate = z[:, :width]
    if a["EXACT"]:
        slope = 0.5 * (1 + torch.erf(gate * 2**-0.5)) + gate * torch.exp(-0.5 * gate * gate) / math.sqrt(2 * math.pi)
        y = F.gelu(gate)
    else:
        s = torch.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate**3))
        slope = s + gate * s * (1 - s) * 1.5957691216057308 * (1 + 0.134145 * gate * gate)
        y = gate * s
    dx = torch.cat((dy * z[:, width:] * slope, dy * y), 1) if a["GATED"] else dy * slope
    a["DX"].copy_(dx)
    if a["PART_BIAS"] is not None:
        a["PART_BIAS"].zero_()
        a["PART_BIAS"][0] = dx.sum(0)


def rotary(a: Arguments) -> None:
    half, x = a["HALF"], a["X"].float()
    cos, sin = a["COS"].float()[:, None], a["SIN"].float()[:, None]
    sin = -sin if a["BACKWARD"] else sin
    first, second = x[..., :half], x[..., half:]
    a["Y"].copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), -1))


def cross_entropy(a: Arguments) -> None:
    logits, labels = a["LOGITS"].float().clone(), a["LABELS"]
    logits[:, a["vocab_size"] :] = -math.inf
    lse = logits.logsumexp(-1)
    place = labels.clamp(min=0)[:, None]
    a["LOSS"].copy_(torch.where(labels == -100, 0.0, lse - logits.gather(1, place)[:, 0]))
    if a["WRITE"]:
        grad = (logits - lse[:, None]).exp()
        grad.scatter_add_(1, place, -torch.ones_like(grad[:, :1]))
        a["LOGITS"].copy_(torch.where((labels == -100)[:, None], 0.0, grad))


TWINS: dict[str, Callable[[Arguments], None]] = {
    "attention_forward_kernel": attention_forward,
    "attention_backward_one_block_kernel": attention_backward,
    "attention_backward_keys_kernel": attention_backward,
    "attention_backward_queries_kernel": attention_backward,
    "attention_delta_kernel": attention_delta,
    "add_layer_norm_forward_kernel": add_layer_norm_forward,
    "add_layer_norm_backward_kernel": add_layer_norm_backward,
    "embed_layer_norm_kernel": embed_layer_norm,
    "gelu_forward_kernel": gelu_forward,
    "gelu_backward_kernel": gelu_backward,
    "rotary_kernel": rotary,
    "cross_entropy_kernel": cross_entropy,
}


def variant_of(kernel: Any, config: Any, arguments: Arguments) -> tuple:
    """What makes Triton compile a kernel again: constants, dtypes, and integers by their divisibility."""
    never = set(getattr(kernel, "do_not_specialize", None) or ())
    names = [parameter for parameter in _parameters(kernel)]
    parts: list[object] = [kernel.fn.__name__, config.num_warps, config.num_stages, *sorted(config.blocks.items())]
    for name in names:
        if name not in arguments:
            continue
        value, constant = arguments[name], _parameters(kernel)[name]
        if isinstance(value, torch.Tensor):
            parts.append((name, value.dtype, value.data_ptr() % 16 == 0))
        elif constant or value is None or isinstance(value, bool):
            parts.append((name, value))
        elif isinstance(value, int) and name not in never:
            parts.append((name, value == 1, value % 16 == 0, -(2**31) <= value < 2**31))
    return tuple(parts)


def _parameters(kernel: Any) -> dict[str, bool]:
    """Name → whether it is a constant of the compiled kernel."""
    annotations = kernel.fn.__annotations__
    code = kernel.fn.__code__
    return {name: "constexpr" in str(annotations.get(name, "")) for name in code.co_varnames[: code.co_argcount]}


def launch(kernel: Any, grid: int, config: Any, **arguments: Any) -> None:
    """In place of ``fastbert.kernels.launch.launch``."""
    if grid == 0:
        return
    name = kernel.fn.__name__
    for argument, value in arguments.items():
        if isinstance(value, torch.Tensor) and not isinstance(value, OnCuda):
            raise MixedDevices(f"{name}: {argument} is on the CPU: a kernel would read an address of the host")
    LOG.launch(name)
    # of the embedding's tables only the rows of these tokens are read
    count_bytes([value for key, value in arguments.items() if key not in ("WORD", "POSITION", "TYPE")])
    SHAPES.add(variant_of(kernel, config, {k: inner_of(v) for k, v in arguments.items()}))
    inner = {k: inner_of(v) for k, v in arguments.items()}
    if LOG.graph is None:
        compute(kernel, grid, config, inner)
    else:  # an output is an argument like another
        tensors = [x for x in inner.values() if isinstance(x, torch.Tensor)]
        LOG.graph.record_launch(lambda: compute(kernel, grid, config, inner), tensors)


def compute(kernel: Any, grid: int, config: Any, arguments: Arguments, *, interpreter: bool = False) -> None:
    """Fill the outputs, CPU tensors, by the twin or by Triton's interpreter."""
    twin = None if arguments.get("DROPOUT") else TWINS.get(kernel.fn.__name__)
    if twin is not None and not interpreter and os.environ.get("PRETENDED_KERNELS") != "interpreter":
        with torch.no_grad():
            twin(arguments)
        return
    kernel[(grid,)](**arguments, **config.blocks, num_warps=config.num_warps, num_stages=config.num_stages)


def install() -> None:
    """Every launcher of the package launches here."""
    import fastbert.kernels.public  # noqa: F401
    from fastbert.kernels.launch import launch as real

    for name, module in list(sys.modules.items()):
        if name.startswith("fastbert.kernels") and getattr(module, "launch", None) is real:
            module.launch = launch
