"""Why a C++ kernel cannot run on these tensors, or is slower than PyTorch, in one line with the remedy.

:func:`fastbert.ops.choose` asks before any kernel is called.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fastbert.ops.cpu.bf16_copies import compute_dtype
from fastbert.system.native import compute, status

_TRY = "Try: impl='reference'"
_DTYPES = (torch.float32, torch.bfloat16)
_PROJECTIONS = tuple(f"{name}_{part}" for name in ("up", "down", "qkv", "out") for part in ("weight", "bias"))
Tensors = Mapping[str, Tensor | None]


@torch.compiler.assume_constant_result  # torch.compile calls it once instead of tracing into it
def _core_reason() -> str | None:
    there, why = status()
    return None if there else f"the C++ core cannot be loaded: {why}. {_TRY}"


@torch.compiler.assume_constant_result
def _is_scalar() -> bool:
    return compute().cpu_isa() == "scalar"


def _common_reason(tensors: Tensors) -> str | None:
    for name, x in tensors.items():
        if x is None:
            continue
        if x.device.type != "cpu":
            return f"{name} is on {x.device}: the C++ kernels run on the CPU. {_TRY}"
        if x.is_floating_point() and x.dtype not in _DTYPES:
            return f"{name} is {x.dtype}: the C++ kernels take float32 and bfloat16. {_TRY}"
    return None


def _attention_reason(tensors: Tensors, options: Mapping[str, object]) -> str | None:
    given = {name: x for name in ("q", "k", "v") if (x := tensors.get(name)) is not None}
    for name, x in given.items():
        first = next(iter(given.values()))
        if x.dtype != first.dtype:
            return f"{name} is {x.dtype}, the queries are {first.dtype}: expected one dtype"
        if x.shape[-1] % 16 or not 16 <= x.shape[-1] <= 128:
            return f"{name} has head_dim {x.shape[-1]}: the kernel takes multiples of 16 up to 128. {_TRY}"
        if x.stride(-1) != 1 and x.numel():
            return f"{name} has last stride {x.stride(-1)}: the kernel reads rows. Try: {name}.contiguous()"
    if tensors.get("bias") is not None:
        return f"bias was given: the kernel adds none to the scores. {_TRY}"
    if options.get("dropout_p") and torch.compiler.is_compiling():
        return f"dropout under torch.compile: the kernel's seed is drawn outside the graph. {_TRY}"
    scale = options.get("scale")
    if isinstance(scale, (int, float)) and not scale > 0:
        return f"scale={scale}: the kernel takes a positive scale. {_TRY}"
    for name in ("cos", "sin"):
        table = tensors.get(name)
        if table is not None and table.requires_grad:
            return f"{name} requires a gradient, which the kernel does not compute. Try: {name}.detach()"
    return None


def mask_reason(mask: Tensor | None) -> str | None:
    """Why the attention kernel cannot take this attention_mask; the one reason that numbers in a tensor decide."""
    if mask is None:
        return None
    if torch.compiler.is_compiling():
        return f"attention_mask under torch.compile: the kernel must look at its values first. {_TRY}"
    real = mask != 0
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        return f"attention_mask has a real token after padding: the kernel takes padding at the end. {_TRY}"
    return None


def _rows_reason(tensors: Tensors, options: Mapping[str, object]) -> str | None:
    x, residual = tensors.get("x"), tensors.get("residual")
    if x is not None and residual is not None and (x.dtype, x.shape) != (residual.dtype, residual.shape):
        return f"x is {x.dtype} {tuple(x.shape)}, residual {residual.dtype} {tuple(residual.shape)}: expected the same"
    vectors = {n: v for n in ("weight", "bias", "norm_weight", "norm_bias") if (v := tensors.get(n)) is not None}
    normed = tensors.get("word") if x is None else x
    for name, vector in vectors.items():
        if normed is not None and vector.dtype not in (normed.dtype, torch.float32):
            return f"{name} is {vector.dtype} and what it scales {normed.dtype}: expected one dtype, or float32"
    if options.get("norm") == "post":  # these are added in the pass that normalises
        vectors |= {n: v for n in ("out_bias", "down_bias") if (v := tensors.get(n)) is not None}
    for name, vector in vectors.items():
        first, other = next(iter(vectors.items()))
        if vector.dtype != other.dtype:
            return f"{name} is {vector.dtype}, {first} {other.dtype}: expected one dtype"
    for name in ("word", "position", "token_type"):
        table = tensors.get(name)
        if table is not None and not table.is_contiguous():
            return f"{name} is not contiguous. Try: {name}.contiguous()"
        if table is not None and normed is not None and table.dtype != normed.dtype:
            return f"{name} is {table.dtype}, word {normed.dtype}: PyTorch adds them in the wider. {_TRY}"
    return None


def _gelu_reason(tensors: Tensors, options: Mapping[str, object]) -> str | None:
    x, bias = tensors.get("x"), tensors.get("bias")
    if x is not None and bias is not None and x.dtype != bias.dtype:
        return f"bias is {bias.dtype}, x {x.dtype}: PyTorch computes in the wider. Try: bias.to(x.dtype)"
    return None


def _block_reason(tensors: Tensors, options: Mapping[str, object]) -> str | None:
    x = tensors.get("x")
    if x is None:
        return None
    dtype = compute_dtype(x)
    if dtype not in _DTYPES:
        return f"autocast asks for {dtype}: the C++ kernels take float32 and bfloat16. {_TRY}"
    allowed = (dtype, torch.float32) if torch.is_autocast_enabled("cpu") else (dtype,)
    for name in _PROJECTIONS:
        weight = tensors.get(name)
        if weight is not None and weight.dtype not in allowed:
            return f"{name} is {weight.dtype} and x {x.dtype}: expected one dtype, or float32 weights under autocast"
        if weight is not None and weight.ndim == 2 and not weight.is_contiguous():
            return f"{name} is not contiguous. Try: {name}.contiguous()"
    heads, qkv = options.get("num_heads"), tensors.get("qkv_weight")
    if isinstance(heads, int) and qkv is not None and (size := qkv.shape[0] // 3 // heads) not in range(16, 129, 16):
        return f"the heads are {size} wide: the kernel takes multiples of 16 up to 128. {_TRY}"
    return _rows_reason(tensors, options)


def _loss_reason(tensors: Tensors, options: Mapping[str, object]) -> str | None:
    hidden, weight, labels = (tensors.get(name) for name in ("hidden", "weight", "labels"))
    if hidden is None or weight is None or labels is None:
        return None
    dtype = compute_dtype(hidden)
    if dtype not in _DTYPES:
        return f"autocast asks for {dtype}: the C++ kernels take float32 and bfloat16. {_TRY}"
    allowed = (dtype, torch.float32) if torch.is_autocast_enabled("cpu") else (dtype,)
    for name, x in (("weight", weight), ("bias", tensors.get("bias"))):
        if x is not None and x.dtype not in allowed:
            return f"{name} is {x.dtype} and hidden {hidden.dtype}: expected one dtype, or float32 under autocast"
    if not weight.is_contiguous():
        return "weight is not contiguous. Try: weight.contiguous()"
    if labels.dtype != torch.int64 or hidden.ndim != 2 or labels.shape != hidden.shape[:1]:
        kind, shape = labels.dtype, tuple(labels.shape)
        return f"labels are {kind} {shape}, hidden {tuple(hidden.shape)}: expected torch.int64 (M,) and (M, D)"
    row_weights = tensors.get("row_weights")
    if row_weights is not None and row_weights.requires_grad:
        return f"row_weights require a gradient, which the kernel does not compute. {_TRY}"
    return None


# op → what else it refuses
_UNSUPPORTED: dict[str, Callable[[Tensors, Mapping[str, object]], str | None]] = {
    "attention": _attention_reason,
    "self_attention": _block_reason,
    "feed_forward": _block_reason,
    "add_layer_norm": _rows_reason,
    "bias_gelu": _gelu_reason,
    "geglu": _gelu_reason,
    "embed_layer_norm": _rows_reason,
    "masked_lm_loss": _loss_reason,
    "adamw": lambda tensors, options: None,
    "muon": lambda tensors, options: None,
}
# these are no torch.library ops: under torch.compile they break the graph, and PyTorch's own forms fuse
_EAGER_ONLY = (
    "self_attention", "feed_forward", "add_layer_norm", "bias_gelu", "geglu", "embed_layer_norm", "masked_lm_loss",
)  # fmt: skip


def has_kernel(op: str) -> bool:
    return op in _UNSUPPORTED


def unsupported_reason(op: str, tensors: Tensors, **options: object) -> str | None:
    """Return why the C++ kernel of ``op`` cannot take these arguments, or None when it can.

    Args:
        op: a name in :data:`fastbert.ops.OPS`.
        tensors: argument name → tensor or None, as :mod:`fastbert.ops` spells them.
        options: the op's other arguments that decide (``scale`` of attention).
    """
    if not has_kernel(op):
        return f"there is no C++ kernel for {op!r}. {_TRY}"
    return _core_reason() or _common_reason(tensors) or _UNSUPPORTED[op](tensors, options)


def slower_reason(op: str) -> str | None:
    """Why "auto" leaves ``op`` to PyTorch although a kernel could run, or None; measured, csrc/cpu/README.md."""
    if _is_scalar():
        return "neither AVX2 nor NEON here: the plain loops are slower than PyTorch"
    if op in _EAGER_ONLY and torch.compiler.is_compiling():
        return "torch.compile fuses PyTorch's own form"
    return None
