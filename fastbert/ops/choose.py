"""Which implementation runs an op: the written rule, and the reason for each choice."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fastbert import reference
from fastbert.kernels import dispatch as triton_dispatch
from fastbert.ops import checks
from fastbert.ops.cpu import dispatch as cpu_dispatch
from fastbert.system import native

Impl = Literal["auto", "reference", "triton", "cpp"]
OPS = (
    "attention", "rotary", "add_layer_norm", "bias_gelu", "geglu", "feed_forward", "self_attention",
    "embed_layer_norm", "masked_lm_loss",
)  # fmt: skip
_IMPLS = get_args(Impl)
_MOST_REASONS = 4096
_reasons: dict[bytes, str | None] = {}  # what _cpp_reason found out about arguments of this kind


def requested_impl() -> str:
    """The implementation that ``FASTBERT_IMPL`` names; "auto" without one."""
    return os.environ.get("FASTBERT_IMPL", "auto") or "auto"


def choose(
    op: str, impl: str = "auto", tensors: Mapping[str, Tensor | None] | None = None, **options: object
) -> tuple[str, str]:
    """Return ``(implementation, why)`` for an op on these tensors (argument name → tensor or None).

    Rule: an implementation named by the caller or by ``FASTBERT_IMPL`` runs or is refused. Otherwise ("auto") the
    Triton kernel runs CUDA tensors that it supports, the C++ kernel CPU tensors that it supports and where it was
    measured to be faster, and the reference everything else. A kernel runs plain tensors of exactly the documented
    shapes only (:func:`checks.kernel_mismatch`); the reference broadcasts, or raises PyTorch's own error. Without
    ``tensors`` the answer is for tensors that a kernel supports, on this machine's CUDA device if it has one.
    ``FASTBERT_IMPL`` applies to whole programs: with ``cpp``, which also rules the text engine, an op whose arguments
    no C++ kernel supports runs the reference; so does, with ``triton``, an op that has no Triton kernel (the
    optimizers' steps).

    Raises:
        ValueError: unknown implementation name.
        RuntimeError: the implementation cannot run this op here.
    """
    source = "impl argument"
    if impl == "auto":
        impl, source = requested_impl(), "FASTBERT_IMPL"
    if impl not in _IMPLS:
        raise ValueError(f"{source}={impl!r}: expected one of {', '.join(_IMPLS)}")
    if impl == "reference":
        return "reference", f"requested by {source}"
    key = None
    if tensors is not None and impl != "triton" and cpu_dispatch.has_kernel(op):
        key = _arguments_key(op, tensors, options)
    on_cuda = key is None and (
        torch.cuda.is_available() if tensors is None else any(x is not None and x.is_cuda for x in tensors.values())
    )
    if impl == "cpp" or (impl == "auto" and not on_cuda):
        why = _cpp_reason(op, tensors, options, key)
        if why is None and impl == "auto":
            why = cpu_dispatch.slower_reason(op)
        if why is None:
            return "cpp", f"requested by {source}" if impl == "cpp" else "the C++ kernel supports these CPU tensors"
        if impl == "cpp" and source != "FASTBERT_IMPL":
            raise RuntimeError(f"{source}='cpp': {op}: {why}")
        return "reference", why
    missing = triton_dispatch.no_kernel(op, tensors or {})
    why = missing or (None if tensors is None else checks.kernel_mismatch(op, tensors, options))
    if why is None and tensors is not None:
        why = triton_dispatch.refusal(op, tensors, **options)
    elif why is None and on_cuda:
        why = triton_dispatch.no_machine()
    if why is None:
        return "triton", f"requested by {source}" if impl == "triton" else "the Triton kernel supports these tensors"
    if impl == "triton" and not (missing and source == "FASTBERT_IMPL"):
        raise RuntimeError(f"{source}='triton': {op}: {why}")
    return "reference", why


def _arguments_key(op: str, tensors: checks.Tensors, options: Mapping[str, object]) -> bytes | None:
    """All that a reason depends on but the numbers in the tensors; None: not plain CPU tensors in plain eager mode."""
    if torch.compiler.is_compiling() or not native.status()[0] or checks.transform_reason():
        return None
    autocast = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else None
    return native.compute().arguments_key(checks.PLAIN, tensors, {"op": op, "autocast": autocast, **options})


def _cpp_reason(
    op: str, tensors: checks.Tensors | None, options: Mapping[str, object], key: bytes | None
) -> str | None:
    """Why no C++ kernel can run; looked into once for arguments of one kind, since a small op takes microseconds."""
    if tensors is None or not cpu_dispatch.has_kernel(op):
        return cpu_dispatch.unsupported_reason(op, {}, **options)
    if key is None or (why := _reasons.get(key, "")) == "":
        why = checks.kernel_mismatch(op, tensors, options)
        why = why or cpu_dispatch.unsupported_reason(op, tensors, **options)
        if key is not None:
            if len(_reasons) >= _MOST_REASONS:
                _reasons.clear()
            _reasons[key] = why
    return why or cpu_dispatch.mask_reason(tensors.get("attention_mask"))


def implementation(op: str, impl: str, tensors: Mapping[str, Tensor | None], **options: object) -> Callable[..., Any]:
    """The function that :func:`choose` names. Triton is imported on first use."""
    chosen = choose(op, impl, tensors, **options)[0]
    if chosen == "triton":
        from fastbert.kernels import public

        return getattr(public, op)
    if chosen == "cpp":
        from fastbert.ops.cpu import public as cpu_public

        return getattr(cpu_public, op)
    return getattr(reference, op)
