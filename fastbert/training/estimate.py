"""What a run will take, before it starts: memory, tokens, time; and a refusal where that cannot be had.

Memory is counted: weights, gradients, optimizer state and the activations that the backward pass needs, by the shapes
of the model and the batch. Time is measured: one forward and backward pass of a batch, its result thrown away.

Legend: T tokens of a pass, D hidden_size, F intermediate_size, N heads, L layers, V vocabulary, M masked tokens.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastbert.config import BertConfig
from fastbert.system.errors import InputError

# bytes beyond what is counted: the libraries, their buffers, the data
RUNTIME_BYTES = {"cpu": 600 << 20, "cuda": 1200 << 20}
SAFETY = 1.1  # allocators round up
GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, on one device."""

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    runtime: int

    @property
    def peak(self) -> int:
        counted = self.parameters + self.optimizer + self.gradients + self.activations
        return int(SAFETY * counted) + self.runtime


def predict_memory(
    config: BertConfig,
    num_parameters: int,
    hidden_matrices: int,
    *,
    tokens: int,
    masked: int,
    max_length: int,
    bf16: bool,
    optimizer: str,
    device: str,
    shards: int = 1,
) -> Memory:
    """Peak memory of a training step.

    Args:
        config: of the model.
        num_parameters: all of them.
        hidden_matrices: parameters that Muon turns (one state each; AdamW's have two).
        tokens: T, of one pass on one device.
        masked: M of them.
        max_length: of a sequence.
        bf16: activations take two bytes, with copies of the weights in bf16.
        optimizer: "muon" or "adamw".
        device: "cpu" or "cuda".
        shards: ranks that share weights and state out.
    """
    width = 2 if bf16 else 4
    states = 2 * num_parameters - (hidden_matrices if optimizer == "muon" else 0)
    gated = 2 if config.mlp == "geglu" else 1
    hidden, inner = config.hidden_size, config.intermediate_size
    # inputs, norms, Q K V, context, sums; the two halves, their product
    of_layer = tokens * (8 * hidden + (gated + 2) * inner) * width
    # softmax(Q Kᵀ), where no kernel avoids it: probabilities of each head, forwards and backwards
    scores = 0 if device == "cuda" else 2 * tokens * max_length * config.num_attention_heads * 4
    head = masked * (config.padded_vocab_size * (4 + 4 + width) + 4 * hidden * width)
    return Memory(
        parameters=num_parameters * (4 + (2 if bf16 else 0)) // shards,
        optimizer=4 * states // shards,
        gradients=4 * num_parameters // shards,
        activations=config.num_hidden_layers * of_layer + scores + head,
        runtime=RUNTIME_BYTES[device if device in RUNTIME_BYTES else "cpu"],
    )


def available_bytes(device: torch.device) -> int:
    """Memory that this process may take: of the GPU, or of the machine and its control group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    limits = [_meminfo("MemAvailable")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            limits.append(max(most - now, 0))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else 1 << 62


def _meminfo(field: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":")), None)


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return None


def refuse_too_large(memory: Memory, available: int, *, preset: str, tokens: int, ranks_here: int = 1) -> None:
    """Raise InputError where a step cannot fit; the line says what would."""
    needed = memory.peak * ranks_here
    if needed <= available:
        return
    fixed = memory.peak - int(SAFETY * memory.activations)
    if fixed * ranks_here < available and memory.activations:
        share = (available / ranks_here - fixed) / (SAFETY * memory.activations)
        remedy = f"--micro-batch-tokens {max(int(tokens * share) // 128 * 128, 128)} would fit"
    else:
        remedy = "choose a smaller --preset, or share it out over several devices with torchrun and --shard"
    raise InputError(
        f"--preset {preset}: a step of {tokens:,} tokens needs about {needed / GIB:.1f} GiB"
        f"{f' for the {ranks_here} ranks of this machine' if ranks_here > 1 else ''} and {available / GIB:.1f} GiB are "
        f"free: {remedy}"
    )


def measure_step(one_pass: Callable[[], object], most_s: float = 2.0) -> float:
    """Seconds of one forward and backward pass: the quicker of two, since the first one warms up."""
    best, began_s = float("inf"), time.monotonic()
    for _ in range(2):
        start_s = time.monotonic()
        one_pass()
        best = min(best, time.monotonic() - start_s)
        if time.monotonic() - began_s > most_s:
            break
    return best


def refuse_impossible(minutes: float, prepared_s: float, step_s: float, ending_s: float) -> None:
    """Raise InputError where the minutes are over before a step and the end of the run could be done."""
    needed_s = prepared_s + step_s + ending_s
    if needed_s <= minutes * 60.0:
        return
    raise InputError(
        f"--minutes {minutes:g}: {prepared_s:.0f} s went into the preparation, a step takes {step_s:.2g} s and the end "
        f"{ending_s:.0f} s: give --minutes {needed_s / 60.0 * 1.5:.1g} or more, a smaller --preset, or --steps"
    )
