"""Measure the kernels' configurations on this machine's GPU and keep the fastest: ``python -m fastbert.tune``.

Every kernel of a workload is tried with neighbours of its static configuration (blocks halved and doubled, attention's
tiles from 16 to 128, other warps and stages), one kernel at a time, timing forward and backward together; a candidate
that does not compile, does not fit or changes the result is passed over. What wins by more than two per cent goes into
the JSON overlay that ``fastbert.kernels.configs`` reads.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from fastbert import ops
from fastbert.system.cli import run, unset
from fastbert.system.errors import InputError

# kernels whose block is the whole row; all keys of the one-block backward are fixed too
_WHOLE_ROW = ("add_layer_norm_forward", "add_layer_norm_backward", "embed_layer_norm")
WORTH_IT = 0.98


@dataclass(frozen=True)
class TuneOptions:
    """Measure kernel configurations on this machine's GPU and write the fastest to a JSON file."""

    output: Annotated[str | None, unset("FILE")] = None
    """File to write (default: $FASTBERT_TUNED, else ~/.cache/fastbert/kernels.json)."""
    hidden_size: int = 768
    """Width of the model to tune for."""
    length: int = 128
    """Tokens a sequence."""
    tokens: int = 32768
    """Tokens a step."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format to tune for."""


def candidates(op: str, static: Any) -> Iterator[Any]:
    """Neighbours of a static configuration, itself first."""
    from fastbert.kernels.launch import Config

    yield static
    names = [n for n in static.blocks if not (n == "BLOCK_N" and op.startswith("attention_backward_one_block"))]
    names = [] if op in _WHOLE_ROW or op.startswith("attention_bias") else names
    # attention's best tile goes by the length, and may be far from the static one
    tiles = op.startswith("attention")
    choices = [
        (16, 32, 64, 128) if tiles else (static.blocks[n] // 2, static.blocks[n], static.blocks[n] * 2) for n in names
    ]
    for sizes in itertools.product(*choices):
        blocks = {**static.blocks, **dict(zip(names, sizes, strict=True))}
        if any(size < 16 for name, size in blocks.items() if name in ("BLOCK_M", "BLOCK_N")) or 0 in blocks.values():
            continue
        for warps, stages in itertools.product((4, 8), (1, 2, 3)):
            if (found := Config(blocks, warps, stages)) != static:
                yield found


def workloads(options: TuneOptions, device: str = "cuda") -> dict[str, Callable[[], list[Tensor]]]:
    """Name → forward and backward of one op, returning the output and the gradients."""
    dtype, width, total = getattr(torch, options.dtype), options.hidden_size, options.tokens
    heads, count = width // 64, total // options.length

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    cu_seqlens = torch.arange(0, total + 1, options.length, dtype=torch.int32, device=device)
    qkv, x, residual, up = (
        normal(total, 3, heads, 64),
        normal(total, width),
        normal(total, width),
        normal(total, 4 * width),
    )
    weight, bias, up_bias = normal(width), normal(width), normal(4 * width)
    masked = max(total // 8, 1)
    hidden, words = normal(masked, width), normal(30528, width)
    labels = torch.randint(0, 30522, (masked,), device=device)

    def both(out: Tensor, *leaves: Tensor) -> list[Tensor]:
        return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

    q, k, v = qkv.unbind(1)
    assert count >= 1
    return {
        "attention": lambda: both(ops.attention(q, k, v, cu_seqlens, options.length, impl="triton"), qkv),
        "add_layer_norm": lambda: both(ops.add_layer_norm(x, residual, weight, bias, 1e-12, impl="triton"), x, weight),
        "bias_gelu": lambda: both(ops.bias_gelu(up, up_bias, impl="triton"), up, up_bias),
        "geglu": lambda: both(ops.geglu(up, up_bias, impl="triton"), up, up_bias),
        "masked_lm_loss": lambda: both(
            ops.masked_lm_loss(hidden, words, None, labels, vocab_size=30522, impl="triton"), hidden
        ),
    }


def fastest(op: str, static: Any, work: Callable[[], list[Tensor]], measure: Callable[[Callable], float]) -> Any:
    """The best candidate for one kernel, the static one unless another wins by more than two per cent."""
    from fastbert.kernels import configs

    expected = work()
    best, best_ms = static, measure(work)
    for candidate in itertools.islice(candidates(op, static), 1, None):
        with configs.forced(**{op: candidate}):
            try:
                results = work()
                # a configuration changes the order of a sum, not its value beyond rounding
                if not all(torch.allclose(a, b, rtol=0.05, atol=0.05) for a, b in zip(results, expected, strict=True)):
                    continue
                ms = measure(work)
            except Exception as error:  # does not compile, or does not fit this device
                print(f"  {candidate}: {type(error).__name__}", file=sys.stderr)
                continue
        if ms < best_ms * WORTH_IT:
            best, best_ms = candidate, ms
    print(f"{op}: {best} ({best_ms:.3f} ms, forward and backward)")
    return best


def main(options: TuneOptions) -> None:
    if not torch.cuda.is_available():
        raise InputError("fastbert.tune: no CUDA device on this machine. Try: the machine where the model will train")
    from triton.testing import do_bench

    from fastbert.kernels import configs

    chosen = {}
    for work in workloads(options).values():
        with configs.observed() as asked:
            work()
        for key, (op, static) in list(asked.items()):
            best = fastest(op, static, work, lambda f: do_bench(f, return_mode="median"))
            if best != static:
                chosen[key] = best
    path = Path(options.output) if options.output else configs.overlay_path()
    configs.write_overlay(path, chosen)
    print(f"{len(chosen)} configurations differ from the static table; written to {path}")


if __name__ == "__main__":
    sys.exit(run(main, TuneOptions))
