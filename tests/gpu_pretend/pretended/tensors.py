"""Tensors that say they are on cuda:0, hold their values on the CPU, and refuse what CUDA refuses.

Every ATen call passes :func:`run`. It raises for tensors of two devices, and writes down waits, copies and launches.
Autograd, autocast and the optimizers are PyTorch's own.
"""

import contextlib
import math
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pretended.graphs import execute, refuse_host_tensors
from pretended.log import LOG

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# the host needs the values
_WAITS = {
    "_local_scalar_dense": "item()", "nonzero": "nonzero()", "masked_select": "masked_select()", "equal": "equal()",
    "_unique2": "unique()", "is_nonzero": "bool()", "bincount": "bincount()", "multinomial": "multinomial()",
    "segment_reduce": "segment_reduce() reads its lengths", "allclose": "allclose()",
}  # fmt: skip
# views, allocations and questions: nothing runs
_FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "select", "slice", "unbind", "split", "detach",
    "alias", "as_strided", "unsqueeze", "squeeze", "unflatten", "flatten", "chunk", "empty", "empty_like",
    "empty_strided", "new_empty", "_reshape_alias", "split_with_sizes", "new_empty_strided", "lift_fresh", "unfold",
    "is_same_size", "_has_same_storage_numel", "result_type", "narrow", "diagonal", "view_as", "set_", "resize_",
    "_local_scalar_dense", "is_pinned", "nonzero_static", "sym_size", "sym_stride",
}  # fmt: skip
_INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")
# ops that take no CPU scalar beside CUDA tensors
_STRICT = (
    "_fused",
    "addmm",
    "mm",
    "bmm",
    "baddbmm",
    "index_select",
    "embedding",
    "cat",
    "stack",
    "_foreach_norm",
    "gather",
)
# multi-tensor kernels: elements a block and blocks a launch (ATen/native/cuda/MultiTensorApply.cuh)
_CHUNK, _BLOCKS = 65536, 320
_TENSORS_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
_pinned: dict[int, torch.Tensor] = {}  # kept alive, so that no address is used twice


class MixedDevices(RuntimeError):
    """What CUDA says of an operation on tensors of two devices."""


class OnCuda(torch.Tensor):
    """A tensor of the pretended device."""

    _inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnCuda":
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        made._inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self._inner.data_ptr()

    def tolist(self) -> Any:
        LOG.wait("tolist()")
        return self._inner.tolist()

    def __repr__(self) -> str:
        return f"OnCuda({self._inner!r})"

    def __deepcopy__(self, memo):
        copied = OnCuda(self._inner.clone())
        copied.requires_grad_(self.requires_grad)
        return copied


class Pretending(TorchDispatchMode):
    """Sends factory functions and calls of CPU tensors through :func:`run` too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def pin(tensor: torch.Tensor) -> torch.Tensor:
    _pinned[tensor.untyped_storage().data_ptr()] = tensor
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


def inner_of(x: Any) -> Any:
    return x._inner if isinstance(x, OnCuda) else x


def _wrap(x: Any) -> Any:
    return OnCuda(x) if isinstance(x, torch.Tensor) and not isinstance(x, OnCuda) else x


def run(func, args, kwargs):
    """One ATen or custom operation on tensors of either device."""
    if func is torch.ops.prim.device.default:
        return CUDA
    name = func.name().partition(".")[0]
    space, _, base = name.partition("::")
    flat, spec = tree_flatten((args, kwargs))
    on_cuda = [x for x in flat if isinstance(x, OnCuda)]
    on_cpu = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, OnCuda)]
    if name in OPDEFS and on_cuda:
        _refuse_mixture(name, base, args, on_cpu)
        # the op's own body on the pretended tensors: what it allocates, multiplies and launches is seen too
        with Pretending(), torch.no_grad():
            return OPDEFS[name]._init_fn(*args, **kwargs)
    if space == "aten" and base != "_to_copy" and _composite(func):
        # under inference_mode composites arrive whole
        with Pretending():
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
    device = kwargs.get("device")
    if base in ("_pin_memory", "pin_memory"):
        return pin(args[0].clone())
    if base == "is_pinned":
        return not on_cuda and is_pinned(args[0])
    if not on_cuda and not is_cuda(device):
        if kwargs.get("pin_memory"):
            return pin(func(*args, **{**kwargs, "pin_memory": False}))
        return func(*args, **kwargs)
    iargs, ikwargs = tree_unflatten([inner_of(x) for x in flat], spec)
    if base == "_to_copy":
        return _to_copy(func, iargs, ikwargs, bool(on_cuda), device)
    if base == "copy_":
        return _copy(func, args, iargs, ikwargs)
    _refuse_mixture(name, base, args, on_cpu)
    _note_waits(base, flat, bool(on_cuda))
    if is_cuda(device):
        ikwargs = {key: value for key, value in ikwargs.items() if key != "pin_memory"} | {"device": CPU}
    out = execute(func, iargs, ikwargs)
    _note_launches(base, flat, out)
    known = {id(x._inner): x for x in on_cuda}
    return tree_map(lambda x: known[id(x)] if id(x) in known else _wrap(x), out)


def _composite(func) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _to_copy(func, iargs, ikwargs, from_cuda: bool, device):
    to_cuda = is_cuda(device) or (device is None and from_cuda)
    options = {key: value for key, value in ikwargs.items() if key not in ("device", "pin_memory")}
    source = iargs[0]
    if to_cuda == from_cuda:
        LOG.launch("_to_copy")
        count_bytes([source])
        LOG.bytes += source.numel() * options.get("dtype", source.dtype).itemsize
    elif to_cuda:
        LOG.copy("copy to the device", is_pinned(source))
    else:
        LOG.wait("copy to the host")
    out = execute(func, iargs, options)
    out = out.clone() if out is source else out
    return OnCuda(out) if to_cuda else out


def _copy(func, args, iargs, ikwargs):
    target, source = args[0], args[1]
    if isinstance(target, OnCuda) == isinstance(source, OnCuda):
        LOG.launch("copy_")
        count_bytes([target, source])
    else:
        host = source if isinstance(target, OnCuda) else target
        pinned = is_pinned(host) and bool(ikwargs.get("non_blocking") or (len(iargs) > 2 and iargs[2]))
        if host is source or pinned:
            LOG.copy("copy_ to the device" if host is source else "copy_ to the host", pinned)
        else:
            LOG.wait("copy_ to the host")
    execute(func, iargs, ikwargs)
    return target


def _refuse_mixture(name: str, base: str, args, on_cpu: list[torch.Tensor]) -> None:
    if not on_cpu:
        return
    refuse_host_tensors(name, on_cpu)
    if base in _INDEXING and isinstance(args[0], OnCuda):
        LOG.wait("a CPU index of a CUDA tensor is copied")
    elif all(x.ndim == 0 for x in on_cpu) and name.startswith("aten") and not base.startswith(_STRICT):
        pass  # PyTorch reads the number on the host
    else:
        shapes = ", ".join(str(tuple(x.shape)) for x in on_cpu)
        raise MixedDevices(f"{name}: all tensors must be on one device, found cuda:0 and cpu, of shape {shapes}")


def _note_waits(base: str, flat: list, on_cuda: bool) -> None:
    if base in _WAITS and on_cuda:
        LOG.wait(_WAITS[base])
    if base in _INDEXING and any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in flat[1:]):
        LOG.wait("an index of booleans")


def _note_launches(base: str, flat: list, out: Any) -> None:
    if base in _FREE or (isinstance(out, torch.Tensor) and not out.numel()):
        return
    count_bytes([*flat, *tree_flatten(out)[0]])
    if base.startswith(("_foreach", "_fused_adam")):
        LOG.launch(base, _multi_tensor_launches(base, [x for x in flat if isinstance(x, OnCuda)]))
    else:
        LOG.launch(base)


def count_bytes(values: list) -> None:
    """Each tensor of a launch once; a table that is looked up only where it is read."""
    tensors = {id(inner_of(x)): inner_of(x) for x in values if isinstance(x, torch.Tensor)}
    seen = {(x.data_ptr(), x.shape, x.stride()): x.numel() * x.element_size() for x in tensors.values()}
    LOG.bytes += sum(seen.values())


def _multi_tensor_launches(base: str, tensors: list) -> int:
    """Launches of a multi-tensor kernel; at least one."""
    lists = 4 if base.startswith("_fused_adam") else 3 if "lerp" in base or "addc" in base else 2
    first = [x for x in tensors if x.ndim] or tensors
    dense = all(inner_of(x).is_contiguous() for x in first)
    first = first[: max(len(first) // lists, 1)]
    if not dense:  # PyTorch takes one tensor after the other
        return len(first)
    blocks = sum(math.ceil(x.numel() / _CHUNK) for x in first)
    return max(math.ceil(blocks / _BLOCKS), math.ceil(len(first) / _TENSORS_A_LAUNCH[lists]), 1)


@contextlib.contextmanager
def on_the_host():
    """Values of pretended tensors without an entry in the log (what a test asks, the program under test does not)."""
    before = LOG.snapshot(), LOG.total, LOG.capturing, LOG.graph
    LOG.capturing, LOG.graph = False, None
    try:
        yield
    finally:
        for name, counter in before[0].items():
            setattr(LOG, name, counter)
        LOG.total, LOG.capturing, LOG.graph = before[1:]
