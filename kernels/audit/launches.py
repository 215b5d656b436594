"""The launches this package makes for real models, recorded under fake CUDA tensors: nothing is computed.

The ahead-of-time audit compiles them, and the dry-run tests check their grids, strides and alignment. Any op's plain
forward and backward functions can be recorded this way: they allocate and launch, and do not care what is launched.

Legend: T packed tokens, L sequence length, N heads, H head_dim, D hidden_size, F intermediate_size, V vocabulary.
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastbert.kernels import embed, gelu, loss, norm, rotary
from fastbert.kernels.attention import op as attention
from fastbert.kernels.attention.op import NO_WINDOW
from fastbert.kernels.launch import Launch, recording


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's widths."""

    name: str
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int = 30522

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 128, 2, 512),
        Shape("mini", 256, 4, 1024),
        Shape("small", 512, 8, 2048),
        Shape("base", 768, 12, 3072),
        Shape("large", 1024, 16, 4096),
    )
}


def _tensor(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda:0")


def _attention(
    options: str, num_sequences: int, length: int, num_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    total = num_sequences * length
    q, k, v = _tensor(total, 3, num_heads, head_dim, dtype=dtype).unbind(1)
    mask = "mask" in options  # padded, then; packed otherwise
    bias = _tensor(1, num_heads, length, length, dtype=dtype) if "bias" in options else None
    rest = (
        None if mask else _tensor(num_sequences + 1, dtype=torch.int32),
        _tensor(total, dtype=torch.int8) if mask else None,
        bias,
        _tensor(1) if "dropout" in options else None,
        length,
        64 if "window" in options else NO_WINDOW,
        head_dim**-0.5,
        0.1 if "dropout" in options else 0.0,
    )
    out, lse = attention.forward(q, k, v, *rest)
    attention.backward(torch.empty_like(out), q, k, v, out, lse, *rest, bias is not None)


def attention_launches(
    arch: str, *, options: str = "", num_sequences: int = 8, length: int = 512, num_heads: int = 12, head_dim: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Launch]:  # fmt: skip
    """Forward and backward; ``options`` names any of mask, window, bias, dropout."""
    with FakeTensorMode(), recording(arch) as log:
        _attention(options, num_sequences, length, num_heads, head_dim, dtype)
    return log


def _rows(shape: Shape, total: int, dtype: torch.dtype, options: str) -> None:
    width, inner = shape.hidden_size, shape.intermediate_size
    x, weight, bias = _tensor(total, width, dtype=dtype), _tensor(width, dtype=dtype), _tensor(width, dtype=dtype)
    dropout_p, seed = (0.1, _tensor(1)) if "dropout" in options else (0.0, None)
    y, summed, mean, rstd = norm.forward(x, x, weight, bias, seed, 1e-12, dropout_p, True)
    norm.backward(y, y, summed, weight, mean, rstd, seed, dropout_p, dtype, dtype)
    exact = "tanh" not in options
    for gated in (False, True):
        up, up_bias = _tensor(total, inner * (1 + gated), dtype=dtype), _tensor(inner * (1 + gated), dtype=dtype)
        gelu.backward(gelu.forward(up, up_bias, exact, gated), up, up_bias, exact, gated, True)
    ids = _tensor(total)
    tables = (_tensor(30528, width, dtype=dtype), _tensor(512, width, dtype=dtype), _tensor(2, width, dtype=dtype))
    embed.forward(ids, ids, ids, *tables, weight, bias, 1e-12)
    q = _tensor(total, 3, shape.num_heads, shape.head_dim, dtype=dtype).select(1, 0)
    table = _tensor(total, shape.head_dim // 2, dtype=dtype)
    rotary.turn(rotary.turn(q, table, table, False), table, table, True)
    masked = max(total // 8, 1)
    padded = -(-shape.vocab_size // 64) * 64
    loss.cross_entropy_in_place(_tensor(masked, padded, dtype=dtype), _tensor(masked), shape.vocab_size, True)
    # as a layer under autocast calls them: sums in float32, y for products too, and x's sums for a bias's gradient
    wide, again = (_tensor(total, width, dtype=torch.float32) for _ in range(2))
    norm.launch_forward(x, wide, weight, bias, seed, wide, y, again, mean, rstd, 1e-12, dropout_p)
    parts = _tensor(3, norm.row_groups(total)[0], width, dtype=torch.float32)
    norm.launch_backward(wide, None, again, weight, seed, mean, rstd, wide, x, parts, dropout_p)


def row_launches(
    arch: str,
    *,
    shape: Shape = SHAPES["base"],
    total: int = 4096,
    dtype: torch.dtype = torch.bfloat16,
    options: str = "",
) -> list[Launch]:
    """LayerNorm, GELU, GeGLU, embedding, rotary and loss; ``options`` names any of dropout, tanh."""
    with FakeTensorMode(), recording(arch) as log:
        _rows(shape, total, dtype, options)
    return log


def shipped(arch: str, *, full: bool = False) -> Iterator[tuple[str, Launch]]:
    """(label, launch) of what the audit compiles: BERT-base in bfloat16, or with ``full`` everything."""
    seen = set()
    heads = (32, 64, 128) if full else (64,)
    dtypes = (torch.bfloat16, torch.float32) if full else (torch.bfloat16,)
    options = ("", "mask", "window", "bias", "dropout", "mask window", "bias dropout", "mask window bias dropout")
    for dtype in dtypes:
        for head_dim in heads:
            for option in options if full else options[:5]:
                for length in (32, 64, 128, 512, 2048):
                    for launch in attention_launches(
                        arch, options=option, length=length, head_dim=head_dim, dtype=dtype
                    ):
                        label = f"{launch.name.removesuffix('_kernel')} {str(dtype)[6:]} h{head_dim} {option}".strip()
                        if (label, launch.config.blocks.values().__repr__()) not in seen:
                            seen.add((label, launch.config.blocks.values().__repr__()))
                            yield label, launch
        for shape in SHAPES.values() if full else (SHAPES["base"],):
            for option in ("", "dropout tanh"):
                for launch in row_launches(arch, shape=shape, dtype=dtype, options=option):
                    gated = " gated" if launch.arguments.get("GATED") else ""
                    name = launch.name.removesuffix("_kernel")
                    yield f"{name} {str(dtype)[6:]} {shape.name}{gated} {option}".strip(), launch
