"""Why a Triton kernel cannot run on these tensors, in one line that names the argument and the remedy.

``fastbert.ops`` asks here before it calls a kernel. This module imports neither triton nor a kernel, so that asking is
cheap and works where triton is not installed.
"""

import functools
import importlib.util
import os
from collections.abc import Mapping

import torch
from torch import Tensor

HEAD_DIMS = (16, 32, 64, 128)
MAX_WIDTH = 16384
OLDEST_CAPABILITY = (8, 0)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Triton's interpreter, up to 3.9, multiplies the bit patterns of bfloat16 numbers as integers
INTERPRETED_DTYPES: tuple[torch.dtype, ...] = (torch.float16, torch.float32)
_REMEDY = "Remedy: impl='reference'"
# op → the arguments whose rows a kernel reads along the last dimension
_ROWS = {
    "attention": ("q", "k", "v"),
    "rotary": ("x",),
    "add_layer_norm": ("x", "residual", "weight", "bias"),
    "bias_gelu": ("x", "bias"),
    "geglu": ("x", "bias"),
    "feed_forward": ("x", "norm_weight", "norm_bias", "up_bias", "down_bias"),
    "embed_layer_norm": ("weight", "bias"),
    "masked_lm_loss": (),
}
# op → tables read as one block of memory
_WHOLE = {"embed_layer_norm": ("word", "position", "token_type"), "masked_lm_loss": ("labels",)}
OPS = tuple(_ROWS)


# torch.compile calls these once and keeps the result instead of tracing into them
@torch.compiler.assume_constant_result
def _no_triton() -> str | None:
    if not _has_triton():
        return "triton is not installed. Remedy: pip install triton (CUDA builds of torch bring it)"
    return None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _old_device(index: int) -> str | None:
    if torch.version.hip:
        name = torch.cuda.get_device_properties(index).gcnArchName.split(":")[0]
        return None if name == "gfx942" else f"cuda:{index} is {name}: the kernels are compiled for gfx942. {_REMEDY}"
    major, minor = _capability(index)
    if (major, minor) < OLDEST_CAPABILITY:
        return f"cuda:{index} has compute capability {major}.{minor}: the kernels need 8.0 or newer. {_REMEDY}"
    return None


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _device_refusal(tensors: Mapping[str, Tensor | None]) -> str | None:
    given = {name: x for name, x in tensors.items() if x is not None}
    if not given:
        return "no tensor determines the device"
    first_name, first = next(iter(given.items()))
    for name, x in given.items():
        if x.device != first.device:
            return f"{name} is on {x.device}, {first_name} on {first.device}: expected one device"
    if first.device.type == "cpu":
        if os.environ.get("TRITON_INTERPRET") == "1":
            return _interpreter_refusal()
        return (
            f"{first_name} is on the CPU: the kernels run on CUDA tensors, or interpreted, very slowly, with "
            f"TRITON_INTERPRET=1 set before Python starts. {_REMEDY}"
        )
    if first.device.type != "cuda":
        return f"{first_name} is on {first.device}: the kernels run on CUDA tensors. {_REMEDY}"
    return _old_device(first.device.index or 0)


def _interpreter_refusal() -> str | None:
    """Inside an autocast to bfloat16 an op makes tensors that public.py does not see."""
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") not in INTERPRETED_DTYPES:
        dtype = torch.get_autocast_dtype("cpu")
        return f"autocast asks for {dtype}, which Triton's interpreter multiplies wrongly. {_REMEDY}"
    return None


def _head_refusal(op: str, tensors: Mapping[str, Tensor | None], options: Mapping[str, object]) -> str | None:
    if op == "attention":
        q, k, v, bias = (tensors.get(name) for name in ("q", "k", "v", "bias"))
        assert q is not None and k is not None and v is not None
        if q.dtype != k.dtype or q.dtype != v.dtype:
            return f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}: expected one dtype"
        if q.shape[-1] not in HEAD_DIMS:
            return f"q has head_dim {q.shape[-1]}: the kernel takes {', '.join(map(str, HEAD_DIMS))}. {_REMEDY}"
        scale = options.get("scale")
        if isinstance(scale, (int, float)) and scale <= 0:
            return f"scale={scale}: the kernel takes a positive scale. {_REMEDY}"
        if bias is not None and bias.shape[-1] * bias.shape[-2] >= 2**31:
            return f"bias has shape {tuple(bias.shape)}: the kernel counts a matrix's elements in 31 bits. {_REMEDY}"
        if bias is not None and bias.ndim not in (3, 4):
            return f"bias has {bias.ndim} dimensions: the kernel takes (heads, length, length) or one for each sequence"
    if op == "rotary":
        x = tensors["x"]
        assert x is not None
        if x.shape[-1] not in HEAD_DIMS:
            return f"x has head_dim {x.shape[-1]}: the kernel takes {', '.join(map(str, HEAD_DIMS))}. {_REMEDY}"
        for name in ("cos", "sin"):
            table = tensors.get(name)
            if table is not None and table.requires_grad:
                return f"{name} asks for a gradient, which the kernel does not give. Remedy: {name}.detach()"
    return None


def no_machine() -> str | None:
    """Why no Triton kernel runs on this machine's current CUDA device, whatever the tensors; None if they do."""
    return _no_triton() or _old_device(torch.cuda.current_device())


def no_kernel(op: str, tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why this op has no Triton kernel at all, on any machine and for any tensors; None if it has one."""
    if op not in OPS:
        return f"there is no Triton kernel for {op!r}. {_REMEDY}"
    if tensors.get("row_weights") is not None:
        return f"no kernel takes row_weights. {_REMEDY}"
    return None


def refusal(op: str, tensors: Mapping[str, Tensor | None], **options: object) -> str | None:
    """Return why the Triton kernel of ``op`` cannot take these arguments, or None when it can.

    Args:
        op: a name in :data:`OPS`.
        tensors: argument name → tensor or None, as :mod:`fastbert.ops` spells them.
        options: the op's other arguments that decide (``scale`` of attention).
    """
    if why := no_kernel(op, tensors) or _no_triton() or _device_refusal(tensors):
        return why
    for name, x in tensors.items():
        if x is not None and x.is_floating_point() and x.dtype not in _DTYPES:
            return f"{name} is {x.dtype}: the kernels take float16, bfloat16 and float32. {_REMEDY}"
    for name in _ROWS[op]:
        x = tensors.get(name)
        if x is not None and x.numel() and x.stride(-1) != 1:
            return f"{name} has last stride {x.stride(-1)}: the kernel reads rows. Remedy: {name}.contiguous()"
        if x is not None and op != "attention" and x.shape[-1] > MAX_WIDTH * (2 if op in ("geglu", "bias_gelu") else 1):
            return f"{name} is {x.shape[-1]} wide: the kernel takes rows up to {MAX_WIDTH}. {_REMEDY}"
    for name in _WHOLE.get(op, ()):
        x = tensors.get(name)
        if x is not None and not x.is_contiguous():
            return f"{name} is not contiguous: the kernel reads it as one block. Remedy: {name}.contiguous()"
    return _head_refusal(op, tensors, options)
