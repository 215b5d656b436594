"""How quick is a training step, of what does it consist, and how quick are others."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from record import (
    OUT,
    SMALL,
    VOCAB,
    attempt,
    ceilings,
    config_of,
    fact,
    make_batch,
    seconds_of,
    time_left,
    useful_flops,
)

from fastbert.batch import PackedBatch
from fastbert.distributed.parallelism import Parallelism
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.training.late_readings import LateReadings, Step
from fastbert.training.static_batch import StaticBatch, StaticShape
from fastbert.training.step_graphs import StepGraphs

# preset, architecture, tokens a step, length
WANTED = (
    ("base", "modern", 65536, 128), ("mini", "modern", 65536, 128), ("base", "classic", 65536, 128),
    ("base", "modern", 8192, 128), ("base", "modern", 65536, 512), ("large", "modern", 32768, 128),
)  # fmt: skip


def training_step(model: BertForPreTraining, optimizers: Optimizers, batch, late: bool) -> Callable[[], None]:
    """A step as the trainer does it, or (not ``late``) with its two waits."""
    readings = LateReadings(torch.device("cuda")) if late else None

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(batch.to("cuda")).loss
        loss.backward()
        norm = optimizers.clip()
        if readings is None:
            loss.item(), norm.item()
        else:
            optimizers.found_inf = readings.guard(loss.detach(), norm)
        optimizers.update(1.0)
        if readings is not None:
            readings.exchange(Step(1, 0, batch.num_tokens, {}, {}))

    return step


def captured_step(model: BertForPreTraining, optimizers: Optimizers, batch: PackedBatch) -> Callable[[], None]:
    """The same step as CUDA graphs, in the shape of its batch."""
    assert batch.labels is not None
    readings = LateReadings(torch.device("cuda"))
    shape = StaticShape(batch.num_tokens, batch.num_sequences, len(batch.labels), batch.max_seqlen)
    graphs = StepGraphs(
        Parallelism(model, optimizers),
        readings,
        StaticBatch(shape, batch, torch.device("cuda")),
        autocast=lambda: torch.autocast("cuda", torch.bfloat16),
        accumulates=False,
    )

    def step() -> None:
        graphs.step([batch], [batch], 1.0, 0.0)
        readings.exchange(Step(1, 0, batch.num_tokens, {}, {}))

    return step


def step() -> None:
    for number, (preset, arch, tokens, length) in enumerate(WANTED[:1] if SMALL else WANTED):
        told = {"preset": preset, "arch": arch, "tokens": tokens, "length": length}
        if not time_left(60):
            fact("step", **told, skipped="no time left")
            continue
        with attempt("step", **told):
            one_step(told, profile=number < 2)
    for compiled in (False,) if SMALL else (False, True):
        if time_left(70):
            with attempt("peer step", who="transformers", compiled=compiled):
                peer_step(compiled)


def one_step(told: dict[str, Any], profile: bool) -> None:
    torch.manual_seed(0)
    config = config_of(told["preset"], told["arch"])
    model = BertForPreTraining(config).to("cuda").train()
    optimizers = Optimizers(model)
    batch = make_batch(64, 16) if SMALL else make_batch(told["tokens"], told["length"])
    assert batch.labels is not None
    flops = useful_flops(config, batch.num_tokens, batch.max_seqlen, len(batch.labels))
    began = time.monotonic()
    training_step(model, optimizers, batch, late=False)()
    first_s = time.monotonic() - began
    waiting_s, _ = seconds_of(training_step(model, optimizers, batch, late=False), 10)
    trained_s, host_s = seconds_of(training_step(model, optimizers, batch, late=True), 10)
    if profile and not SMALL:
        with attempt("profile", **told):
            profiled(training_step(model, optimizers, batch, late=True), told, trained_s)
    eager = {"ms": trained_s * 1e3, "host_ms": host_s * 1e3, "with_waits_ms": waiting_s * 1e3}
    captured = {}
    with attempt("captured step", **told):
        seconds, host_s = seconds_of(captured_step(model, optimizers, batch), 10)
        captured = {"captured_ms": seconds * 1e3, "captured_host_ms": host_s * 1e3}
        trained_s = seconds
    fact(
        "step", **told, first_s=first_s, **eager, **captured,
        tokens_s=batch.num_tokens / trained_s, share_of_peak=flops / trained_s / ceilings()[1],
        memory_gib=torch.cuda.max_memory_allocated() / 2**30,
    )  # fmt: skip


def profiled(run: Callable[[], None], told: dict[str, Any], seconds: float) -> None:
    """Launches and kernel time of a step; the longest kernels go to profile.txt."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        for _ in range(2):
            run()
        torch.cuda.synchronize()
    # the device's own events; an op of the host carries the time of its kernels once more
    events = [e for e in record.key_averages() if str(getattr(e, "device_type", "")).endswith("CUDA")]
    total_ms = sum(e.self_device_time_total for e in events) / 2e3
    fact(
        "profile",
        **told,
        device_ms=total_ms,
        launches=sum(e.count for e in events) / 2,
        busy=total_ms / (seconds * 1e3),
    )
    top = sorted(events, key=lambda e: -e.self_device_time_total)[:28]
    lines = [f"{e.self_device_time_total / 2e3:9.3f} ms {e.count / 2:7.0f} x  {e.key[:110]}" for e in top]
    with (OUT / "profile.txt").open("a", encoding="utf-8") as file:
        file.write(f"{told}: {total_ms:.2f} ms of kernels a step\n" + "\n".join(lines) + "\n\n")


def peer_step(compiled: bool) -> None:
    """transformers' BertForMaskedLM, bf16 autocast, SDPA, fused AdamW: the same tokens, none of them padding."""
    import transformers

    config = config_of("base", "classic")
    sizes = {
        n: getattr(config, n) for n in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = (
        transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCAB, **sizes, **dropout)).to("cuda").train()
    )
    with contextlib.suppress(ValueError, AttributeError):
        model.set_attn_implementation("sdpa")
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = make_batch(64, 16) if SMALL else make_batch(65536, 128)
    assert batch.labels is not None and batch.masked_index is not None
    labels = torch.full((batch.num_tokens,), -100)
    labels[batch.masked_index] = batch.labels
    ids, labels = (x.view(-1, batch.max_seqlen).to("cuda") for x in (batch.input_ids, labels))

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = call(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, host_s = seconds_of(run, 6, warm=2)
    flops = useful_flops(config, batch.num_tokens, batch.max_seqlen, len(batch.labels))
    fact(
        "peer step", who="transformers", compiled=compiled, version=transformers.__version__, ms=seconds * 1e3,
        host_ms=host_s * 1e3, tokens_s=batch.num_tokens / seconds,
        share_of_peak=flops / seconds / ceilings()[1],
    )  # fmt: skip
