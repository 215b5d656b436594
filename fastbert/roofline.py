"""What a training step must cost at least: ``python -m fastbert.roofline --gpu h100 --preset base``.

For every op of one step it counts FLOPs and bytes as this package moves them (the formulas stand in the kernels'
docstrings), takes the larger of FLOPs/peak and bytes/bandwidth as its floor, and adds the floors up. **A prediction
from data sheets, not a measurement**: it assumes that every op reaches its limit, and serves to judge a measured step.

Legend: T tokens a step, L sequence length, D hidden_size, F intermediate_size, N·H = D, V vocabulary, M masked rows,
e bytes an element.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Literal

from fastbert.config import BertConfig
from fastbert.system.cli import run


@dataclass(frozen=True)
class Gpu:
    """Data-sheet peaks: dense 16-bit tensor TFLOP/s with float32 accumulation, and memory GB/s."""

    name: str
    tflops: float
    gb_per_s: float


GPUS = {
    "h100": Gpu("NVIDIA H100 SXM", 989.4, 3350.0),
    "h200": Gpu("NVIDIA H200 SXM", 989.4, 4800.0),
    "a100": Gpu("NVIDIA A100 SXM 80 GB", 311.9, 2039.0),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", 165.2, 1008.0),
    "mi300x": Gpu("AMD Instinct MI300X", 1307.4, 5300.0),
}


@dataclass(frozen=True)
class RooflineOptions:
    """Predict the least time of a training step on a GPU, op by op. A prediction, not a measurement."""

    gpu: Literal["h100", "h200", "a100", "rtx4090", "mi300x"] = "h100"
    """Whose data-sheet peaks to take."""
    preset: Literal["tiny", "mini", "small", "base", "large"] = "base"
    """Model size."""
    arch: Literal["classic", "roformer", "modern"] = "classic"
    """Architecture."""
    vocab_size: int = 30522
    """Pieces in the vocabulary."""
    tokens: int = 32768
    """Real tokens a step; padding is not computed."""
    length: int = 128
    """Tokens a sequence."""
    mask_fraction: float = 0.15
    """Share of the tokens whose prediction is trained; the head runs on these rows only."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Op:
    """One op's cost in a whole step, all layers, forward and backward."""

    name: str
    flops: float
    bytes: float

    def floor_s(self, gpu: Gpu) -> float:
        return max(self.flops / (gpu.tflops * 1e12), self.bytes / (gpu.gb_per_s * 1e9))

    def bound(self, gpu: Gpu) -> str:
        return "tensor" if self.flops / (gpu.tflops * 1e12) > self.bytes / (gpu.gb_per_s * 1e9) else "memory"


def _linear(name: str, rows: int, width: int, out: int, times: int = 1, e: int = 2) -> Op:
    """A Linear, forward and both gradients: three products, each reading two matrices and writing one."""
    return Op(name, times * 6 * rows * width * out, times * 3 * e * (rows * width + width * out + rows * out))


# of Muon's step, for each number of a matrix: gradient and momentum stacked, averaged, copied back and mixed (48), the
# norm and the cast (12), five iterations that read and write a 16-bit matrix twice (40), update and decay (34)
MUON_BYTES = 134


def _muon(matrices: list[tuple[int, int, int]]) -> Op:
    """Momentum and five Newton–Schulz iterations of (count, rows, columns), rows <= columns."""
    numbers = sum(count * rows * columns for count, rows, columns in matrices)
    flops = sum(count * 5 * (4 * rows**2 * columns + 2 * rows**3) for count, rows, columns in matrices)
    return Op("Muon", flops, MUON_BYTES * numbers)


def step(config: BertConfig, tokens: int, length: int, masked: int, parameters: int, e: int = 2) -> list[Op]:
    """The ops of one training step in 16-bit, with a float32 residual stream, master weights and optimizers."""
    t, d, f, layers = tokens, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    v = config.padded_vocab_size
    gated = config.mlp == "geglu"
    # a local layer's token sees at most 2w + 1 others
    seen = [
        length if config.window is None or config.is_global_layer(i) else min(length, 2 * config.window + 1)
        for i in range(layers)
    ]
    of_layer = 4 * d * d + (3 if gated else 2) * d * f
    products = 2 + (5 if length <= 128 else 7)  # the one-block backward, or keys and queries apart
    ops = [
        _linear("query, key, value projections", t, d, 3 * d, layers),
        _linear("attention output projection", t, d, d, layers),
        _linear("feed-forward up", t, d, f * (2 if gated else 1), layers),
        _linear("feed-forward down", t, f, d, layers),
        # forward 4 e T D and the log-sum-exp; backward 8 e T D
        Op("attention", sum(products * 2 * t * s * d for s in seen), layers * 12 * e * t * d),
        Op("GeGLU" if gated else "bias + GELU", 0, layers * (8 if gated else 5) * e * t * f),
        # forward x, residual → sum, y; backward dy, sum, dsum → dx, dresidual; the stream and its gradient in float32
        Op("residual + LayerNorm, two a layer", 0, 2 * layers * (4 * e + 5 * 4) * t * d),
        Op("embedding + LayerNorm", 0, (5 + 3) * e * t * d),
        _linear("prediction head's transform", masked, d, d),
        _linear("prediction head's decoder", masked, d, v),
        Op("cross-entropy in place", 0, 3 * e * masked * v),
        # weights to 16 bits, their gradients back to 32
        Op("casts of matrices and gradients", 0, layers * of_layer * 2 * (4 + e)),
        _muon([(layers * 4, d, d), (layers * (3 if gated else 2), min(d, f), max(d, f))]),
        # read weight, gradient and both moments, write weight and moments
        Op("AdamW", 0, (parameters - layers * of_layer) * 4 * 7),
    ]
    if config.position == "rope":
        ops.append(Op("rotary, queries and keys", 0, layers * 2 * 2 * 2 * e * t * d))
    return ops


def count_parameters(config: BertConfig) -> int:
    """Weights of the encoder and its head, biases left out: they are under a thousandth."""
    d, f = config.hidden_size, config.intermediate_size
    layer = 4 * d * d + (3 if config.mlp == "geglu" else 2) * d * f
    positions = config.max_position_embeddings if config.position == "learned" else 0
    return config.num_hidden_layers * layer + (config.padded_vocab_size + positions) * d + d * d


def main(options: RooflineOptions) -> None:
    gpu = GPUS[options.gpu]
    config = BertConfig.preset(options.preset, arch=options.arch, vocab_size=options.vocab_size)
    masked = max(1, round(options.tokens * options.mask_fraction))
    ops = step(config, options.tokens, options.length, masked, count_parameters(config))
    total_s = sum(op.floor_s(gpu) for op in ops)
    flops = sum(op.flops for op in ops)
    summary = {
        "gpu": gpu.name,
        "floor_ms": total_s * 1e3,
        "tokens_per_s": options.tokens / total_s,
        "share_of_tensor_peak": flops / (gpu.tflops * 1e12) / total_s,
    }
    if options.json:
        rows = [{**asdict(op), "floor_ms": op.floor_s(gpu) * 1e3, "bound": op.bound(gpu)} for op in ops]
        print(json.dumps({"prediction": True, **summary, "ops": rows}, indent=2))
        return
    print(f"PREDICTION from data-sheet peaks, nothing was run: {gpu.name}, {options.preset} {options.arch}, "
          f"{options.tokens} tokens in sequences of {options.length}")  # fmt: skip
    print(f"{'op (forward and backward, all layers)':40s} {'TFLOP':>8s} {'GB':>8s} {'floor ms':>9s}  bound")
    for op in ops:
        floor_ms = op.floor_s(gpu) * 1e3
        print(f"{op.name:40s} {op.flops / 1e12:8.3f} {op.bytes / 1e9:8.3f} {floor_ms:9.3f}  {op.bound(gpu)}")
    print(f"{'step':40s} {flops / 1e12:8.3f} {sum(op.bytes for op in ops) / 1e9:8.3f} {total_s * 1e3:9.3f}  "
          f"{summary['tokens_per_s']:,.0f} tokens/s at most, "
          f"{summary['share_of_tensor_peak']:.0%} of the tensor peak")  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main, RooflineOptions))
