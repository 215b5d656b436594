"""Arguments are proven before a kernel sees an address: options and sequences here for every implementation, shapes
and kinds of tensors for the kernels, from one table per op.

What fails :func:`check_options`, :func:`check_attention` or :func:`check_cu_seqlens` is a ValueError whatever runs.
What fails :func:`kernel_mismatch` runs the reference, which broadcasts as PyTorch does or raises PyTorch's error.
"""

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

_TRY_REFERENCE = "Try: impl='reference'"
PLAIN = (Tensor, torch.nn.Parameter)
_CHOICES = {"approximate": ("none", "tanh"), "norm": ("pre", "post"), "mlp": ("gelu", "geglu")}
# arguments of integers or booleans; every other tensor holds floating-point numbers
_INDICES = ("attention_mask", "labels", "input_ids", "position_ids", "token_type_ids", "rows", "unique_index")
Tensors = Mapping[str, Tensor | None]
Shapes = dict[str, tuple[int, ...]]


# ---- for every implementation ----
def check_options(**options: object) -> None:
    """Refuse unknown values of ``approximate``, ``norm`` and ``mlp``, and dropout outside [0, 1]."""
    for name, value in options.items():
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise ValueError(f"{name}={value!r}. Try: one of {', '.join(_CHOICES[name])}")
        elif not 0.0 <= value <= 1.0:  # type: ignore[operator]
            raise ValueError(f"{name}={value}: expected a probability in [0, 1]")


def check_attention(q, k, v, cu_seqlens, max_seqlen, attention_mask, window, bias, dropout_p) -> None:
    if q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            f"q, k, v have shapes {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}: expected one shape"
        )
    if cu_seqlens is not None:
        if q.ndim != 3:
            raise ValueError(f"q has shape {tuple(q.shape)}: with cu_seqlens it is packed, (tokens, heads, head_dim)")
        if max_seqlen is None:
            raise ValueError("max_seqlen is missing: with cu_seqlens give the longest sequence's length")
        if attention_mask is not None:
            raise ValueError("attention_mask and cu_seqlens exclude each other: packed sequences have no padding")
        check_cu_seqlens(cu_seqlens, max_seqlen, q.shape[0])
    elif q.ndim != 4:
        raise ValueError(
            f"q has shape {tuple(q.shape)}: expected padded (batch, length, heads, head_dim), or give cu_seqlens"
        )
    elif attention_mask is not None:
        _check_mask(attention_mask, q.shape[:2])
    length = q.shape[1] if cu_seqlens is None else max_seqlen
    if bias is not None and (bias.ndim not in (3, 4) or bias.shape[-3] != q.shape[-2] or min(bias.shape[-2:]) < length):
        raise ValueError(f"bias has shape {tuple(bias.shape)}: expected (…, {q.shape[-2]} heads, {length}, {length})")
    if window is not None and window < 0:
        raise ValueError(f"window={window}: expected None or a distance >= 0 in tokens")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p={dropout_p}: expected a probability in [0, 1)")


def _check_mask(mask: Tensor, shape: torch.Size) -> None:
    if mask.shape != shape:
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)}: expected {tuple(shape)}")
    if not mask.is_floating_point() or mask.device.type != "cpu" or not _has_values(mask):
        return
    if bool((mask < 0).any()):
        raise ValueError(
            "attention_mask has negative numbers: it is 1 at real tokens and 0 at padding, not a number to add. "
            "Try: attention_mask=mask == 0, or bias="
        )


def check_cu_seqlens(cu_seqlens: Tensor, max_seqlen: int, num_tokens: int) -> None:
    """Values are read on the CPU only: on a GPU that waits for the device, and the kernels cut what does not fit."""
    if cu_seqlens.ndim != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or not cu_seqlens.numel():
        kind, shape = cu_seqlens.dtype, tuple(cu_seqlens.shape)
        raise ValueError(f"cu_seqlens is {kind} of shape {shape}: expected torch.int32, (sequences + 1,)")
    if cu_seqlens.device.type != "cpu" or not _has_values(cu_seqlens):
        return
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != num_tokens:
        raise ValueError(f"cu_seqlens goes from {ends[0]} to {ends[-1]}: expected 0 to q's {num_tokens} tokens")
    lengths = [b - a for a, b in itertools.pairwise(ends)]
    if lengths and (min(lengths) < 0 or max(lengths) > max_seqlen):
        raise ValueError(f"sequences of {min(lengths)} to {max(lengths)} tokens: expected 0 to max_seqlen={max_seqlen}")


def _has_values(x: Tensor) -> bool:
    """Whether the numbers of x may be read: not those of a compiler's, a tracer's or a transform's tensors."""
    return not torch.compiler.is_compiling() and type(x) is Tensor and transform_reason() is None


# ---- for the kernels ----
def transform_reason() -> str | None:
    """Why no kernel may run now: something watches or transforms PyTorch's own operations. None in plain eager mode."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return f"inside torch.func: kernels have no rules for its transforms. {_TRY_REFERENCE}"
    if forward_ad._current_level >= 0:
        return f"forward-mode differentiation: kernels have no tangents. {_TRY_REFERENCE}"
    if torch._C._len_torch_dispatch_stack():
        return f"inside a TorchDispatchMode: it would not see into a kernel. {_TRY_REFERENCE}"
    if torch._C._get_tracing_state() is not None:
        return f"torch.jit.trace would record a kernel as constants. {_TRY_REFERENCE}"
    if torch._C._len_torch_function_stack() and torch.get_default_device().type != "cpu":
        return f"the default device is {torch.get_default_device()}: kernels allocate on their own. {_TRY_REFERENCE}"
    return None


def _norm_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    x = t.get("x")
    if x is None:
        return {}
    vector = tuple(x.shape[-1:])
    return {"residual": tuple(x.shape), "weight": vector, "bias": vector}


def _gelu_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    x = t.get("x")
    if x is None:
        return {}
    return {"bias": tuple(x.shape[-1:])}


def _feed_forward_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    x, up = t.get("x"), t.get("up_weight")
    if x is None or up is None:
        return {}
    width, inner = x.shape[-1], up.shape[0]
    return {
        "norm_weight": (width,), "norm_bias": (width,), "up_weight": (inner, width), "up_bias": (inner,),
        "down_weight": (width, inner // 2 if options.get("mlp") == "geglu" else inner), "down_bias": (width,),
    }  # fmt: skip


def _self_attention_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    x, index = t.get("x"), t.get("unique_index")
    if x is None:
        return {}
    width, tokens = x.shape[-1], (x if index is None else index).shape[0]
    num_heads = options["num_heads"]
    angles = (tokens, width // num_heads // 2 if isinstance(num_heads, int) else -1)
    return {
        "norm_weight": (width,), "norm_bias": (width,), "qkv_weight": (3 * width, width), "qkv_bias": (3 * width,),
        "out_weight": (width, width), "out_bias": (width,), "cos": angles, "sin": angles,
    }  # fmt: skip


def _embed_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    word, ids = t.get("word"), t.get("input_ids")
    if word is None:
        return {}
    vector = tuple(word.shape[-1:])
    found = {"weight": vector, "bias": vector}
    for name in ("word", "position", "token_type"):
        if (table := t.get(name)) is not None:
            found[name] = (len(table), *vector)
    return found if ids is None else found | dict.fromkeys(("position_ids", "token_type_ids"), tuple(ids.shape))


def _loss_shapes(t: Tensors, options: Mapping[str, object]) -> Shapes:
    hidden, weight = t.get("hidden"), t.get("weight")
    if hidden is None or weight is None:
        return {}
    rows = tuple(hidden.shape[:1])
    return {
        "hidden": (*rows, *weight.shape[1:]), "weight": (*weight.shape[:1], *hidden.shape[1:]),
        "bias": tuple(weight.shape[:1]), "labels": rows, "row_weights": rows,
    }  # fmt: skip


# op → the shape of each argument that is given, from the others; attention's are checked for every implementation
_SHAPES: dict[str, Callable[[Tensors, Mapping[str, object]], Shapes]] = {
    "add_layer_norm": _norm_shapes,
    "bias_gelu": _gelu_shapes,
    "geglu": _gelu_shapes,
    "feed_forward": _feed_forward_shapes,
    "self_attention": _self_attention_shapes,
    "embed_layer_norm": _embed_shapes,
    "masked_lm_loss": _loss_shapes,
}


def kernel_mismatch(op: str, tensors: Tensors, options: Mapping[str, object]) -> str | None:
    """Why no kernel can run ``op`` on these tensors, or None: every one plain, of the right kind and exact shape."""
    compiling = torch.compiler.is_compiling()
    if not compiling and (why := transform_reason()):
        return why
    for name, x in tensors.items():
        if x is None:
            continue
        # the compiler cannot trace is_neg(), and resolves such views itself
        if type(x) not in PLAIN or x.layout is not torch.strided or (not compiling and x.is_neg()):
            return f"{name} is a {type(x).__name__}, {x.layout}: kernels read plain strided tensors. {_TRY_REFERENCE}"
        if name in _INDICES:
            if name != "attention_mask" and x.dtype is not torch.int64:
                return f"{name} is {x.dtype}: kernels read torch.int64. Try: {name}.long()"
        elif not x.is_floating_point():
            return f"{name} is {x.dtype}: expected floating-point numbers. {_TRY_REFERENCE}"
    scale = options.get("scale")
    if scale is not None and not isinstance(scale, int | float):
        return f"scale is a {type(scale).__name__}: kernels take a number. {_TRY_REFERENCE}"
    shapes = _SHAPES.get(op)
    if shapes is None or len(tensors) == 1:
        return None
    if op == "geglu" and (x := tensors.get("x")) is not None and x.shape[-1] % 2:
        return f"x is {x.shape[-1]} wide: expected [gate | value] of equal width. {_TRY_REFERENCE}"
    for name, shape in shapes(tensors, options).items():
        x = tensors.get(name)
        if x is not None and x.shape != shape:
            return f"{name} has shape {tuple(x.shape)}: kernels take {shape}. {_TRY_REFERENCE}"
    return None
