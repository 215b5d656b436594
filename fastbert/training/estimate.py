"""What a run will take, before it starts: memory and time; it is refused if there is not enough.

Memory is computed from the shapes of the model and the batch: weights, gradients, optimizer state, activations. Time is
measured: one forward and backward pass of a batch, whose result is discarded.

Legend: T tokens of a pass, D hidden_size, F intermediate_size, N heads, L layers, V vocabulary, M masked tokens.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastbert.config import BertConfig
from fastbert.distributed.world import World
from fastbert.model import BertForPreTraining
from fastbert.optim.groups import uses_muon
from fastbert.system.errors import InputError
from fastbert.training.plan import TrainingPlan

# libraries, their buffers, the data
RUNTIME_BYTES = {"cpu": 600 << 20, "cuda": 1200 << 20}
SAFETY_FACTOR = 1.1  # allocators round up
GIB = 1 << 30
SLOW_SHARE = 0.5  # of the foreseen speed; the optimizer's step, which is not foreseen, takes up to a quarter


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a step on one device."""

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    runtime: int

    @property
    def peak(self) -> int:
        counted = self.parameters + self.optimizer + self.gradients + self.activations
        return int(SAFETY_FACTOR * counted) + self.runtime


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
        num_parameters: of the model.
        hidden_matrices: parameters updated by Muon (one state each; AdamW has two).
        tokens: T, of one pass.
        masked: M, of one pass.
        max_length: longest sequence.
        bf16: activations and copies of the weights in bf16.
        optimizer: "muon" or "adamw".
        device: "cpu" or "cuda".
        shards: ranks over which weights and state are sharded.
    """
    width = 2 if bf16 else 4
    states = 2 * num_parameters - (hidden_matrices if optimizer == "muon" else 0)
    gated = 2 if config.mlp == "geglu" else 1
    hidden, inner = config.hidden_size, config.intermediate_size
    # inputs, norms, Q K V, context, sums; the two halves, their product
    of_layer = tokens * (8 * hidden + (gated + 2) * inner) * width
    # softmax(Q Kᵀ) of each head, forward and backward, unless a kernel avoids it
    scores = 0 if device == "cuda" else 2 * tokens * max_length * config.num_attention_heads * 4
    head = masked * (config.padded_vocab_size * (4 + 4 + width) + 4 * hidden * width)
    return Memory(
        parameters=num_parameters * (4 + (2 if bf16 else 0)) // shards,
        optimizer=4 * states // shards,
        gradients=4 * num_parameters // shards,
        activations=config.num_hidden_layers * of_layer + scores + head,
        runtime=RUNTIME_BYTES[device if device in RUNTIME_BYTES else "cpu"],
    )


def check_memory(plan: TrainingPlan, world: World) -> Memory:
    """Predict the memory of a step before allocating it; refuse a step that does not fit."""
    with torch.device("meta"):
        named = list(BertForPreTraining(plan.config).named_parameters())
    rate = plan.mask_rate
    memory = predict_memory(
        plan.config,
        sum(p.numel() for _, p in named),
        sum(p.numel() for n, p in named if uses_muon(n, p)),
        tokens=plan.pass_tokens,
        masked=math.ceil(plan.pass_tokens * max(rate.rate(0.0), rate.rate(1.0))),
        max_length=plan.max_length,
        bf16=plan.dtype == torch.bfloat16,
        optimizer=plan.optimizer,
        device=plan.device.type,
        shards=world.size if plan.mode == "fsdp" else 1,
    )
    ranks_here = 1 if plan.device.type == "cuda" else world.local_size
    available = available_bytes(plan.device)
    refuse_too_large(memory, available, preset=plan.preset, tokens=plan.pass_tokens, ranks_here=ranks_here)
    return memory


def available_bytes(device: torch.device) -> int:
    """Free memory of the GPU, or of the machine and its control group."""
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
    """Raise InputError if a step does not fit; the message says what would."""
    needed = memory.peak * ranks_here
    if needed <= available:
        return
    fixed = memory.peak - int(SAFETY_FACTOR * memory.activations)
    if fixed * ranks_here < available and memory.activations:
        share = (available / ranks_here - fixed) / (SAFETY_FACTOR * memory.activations)
        remedy = f"--micro-batch-tokens {max(int(tokens * share) // 128 * 128, 128)}"
    else:
        remedy = "a smaller --preset, or several devices with torchrun and --shard"
    raise InputError(
        f"--preset {preset}: a step of {tokens:,} tokens needs about {needed / GIB:.1f} GiB"
        f"{f' for the {ranks_here} ranks of this machine' if ranks_here > 1 else ''}, and {available / GIB:.1f} GiB "
        f"are free. Try: {remedy}"
    )


def measure_step(
    one_pass: Callable[[], object], max_s: float = 2.0, *, times: int = 2, compiles: bool = False
) -> float:
    """Seconds of one forward and backward pass: the fastest of several, the first being a warm-up.

    Args:
        one_pass: returns when the device has finished.
        max_s: passes that took longer together are not repeated,
        times: most passes.
        compiles: unless it compiles kernels, which may take longer than a hundred passes.
    """
    if compiles:
        one_pass()
    best, began_s = float("inf"), time.monotonic()
    for _ in range(times):
        start_s = time.monotonic()
        one_pass()
        best = min(best, time.monotonic() - start_s)
        if time.monotonic() - began_s > max_s:
            break
    return best


def refuse_impossible(minutes: float, prepared_s: float, step_s: float, finish_s: float) -> None:
    """Raise InputError if the minutes do not suffice for one step and the end of the run."""
    needed_s = prepared_s + step_s + finish_s
    if needed_s <= minutes * 60.0:
        return
    raise InputError(
        f"--minutes {minutes:g}: preparation took {prepared_s:.0f} s, a step takes {step_s:.2g} s, the end of the run "
        f"{finish_s:.0f} s. Try: --minutes {needed_s / 60.0 * 1.5:.1g} or more, a smaller --preset, or --steps"
    )


def slowdown(foreseen: float, now: float) -> str | None:
    """A line for the user if training is far slower than was foreseen: other work has the cores since.

    Args:
        foreseen: tokens/s of the pass that was measured before the first step; 0: none was.
        now: tokens/s of the last steps.
    """
    if not 0 < now < SLOW_SHARE * foreseen:
        return None
    return (
        f"slow: {now:,.0f} tokens/s, {now / foreseen:.0%} of what was measured before the first step. Other programs "
        "use the same cores; the run continues, and with --minutes sees less text"
    )
