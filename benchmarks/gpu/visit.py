"""The measuring half of visit.sh: ``visit.py PHASE``; the phases are in the table at the end."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from record import SMALL, attempt, device_ms, fact


def facts() -> None:
    """The machine, the first layer that runs on it, and what the card can do at best."""
    import triton

    from fastbert.config import BertConfig
    from fastbert.layers import Encoder
    from fastbert.ops import choose
    from fastbert.system import native

    fact(
        "machine", gpu=torch.cuda.get_device_name(), capability=torch.cuda.get_device_capability(),
        torch=torch.__version__, triton=triton.__version__, python=sys.version.split()[0],
    )  # fmt: skip
    with attempt("nvidia-smi"):
        asked = "--query-gpu=clocks.sm,clocks.mem,power.limit,temperature.gpu,driver_version"
        done = subprocess.run(["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True)
        fact("nvidia-smi", text=done.stdout.strip())
    fact("core", available=native.status()[0], why=native.status()[1])
    with attempt("first layer"):
        began = time.monotonic()
        encoder = Encoder(BertConfig.preset("tiny", "modern")).to("cuda")
        cu_seqlens = torch.tensor([0, 100, 128], dtype=torch.int32).to("cuda")
        hidden = torch.randn(128, 128).to("cuda").requires_grad_()
        with torch.autocast("cuda", torch.bfloat16):
            encoder(hidden, None, cu_seqlens, 100).float().square().mean().backward()
        torch.cuda.synchronize()
        given = dict.fromkeys("qkv", torch.zeros(4, 2, 64).to("cuda"))
        fact("first layer", seconds=round(time.monotonic() - began, 1), attention=choose("attention", "auto", given))
    with attempt("ceilings"):
        size, side = (1 << 16, 64) if SMALL else (1 << 30, 8192)
        a = torch.zeros(size, dtype=torch.uint8, device="cuda")
        b = torch.empty_like(a)
        x, y = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        copy_ms, product_ms = device_ms(lambda: b.copy_(a)), device_ms(lambda: torch.mm(x, y))
        fact("ceilings", bytes_s=2e3 * size / copy_ms, flops=2e3 * side**3 / product_ms)


def note(name: str, path: str) -> None:
    """What pytest said."""
    text = Path(path).read_text(encoding="utf-8") if Path(path).is_file() else ""
    found = re.findall(r"(\d+) (passed|failed|error|skipped)", text)
    failures = re.findall(r"^FAILED (.*)", text, re.M)[:12]
    fact(name, **{what: int(number) for number, what in found}, failures=failures)


def run(directory: str) -> None:
    """What a training wrote: tokens a second without the first steps, and the held-out loss."""
    folder = Path(directory)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [r for r in records if r["kind"] == "train"]
    if len(train) > 1:
        first, last = train[min(5, len(train) - 2)], train[-1]
        seconds = max(last["training_s"] - first["training_s"], 1e-9)
        fact(
            "training run", steps=last["step"], tokens=last["tokens"], training_s=last["training_s"],
            tokens_s=(last["tokens"] - first["tokens"]) / seconds, largest_norm=max(r["gradient_norm"] for r in train),
        )  # fmt: skip
    held = [(r["tokens"], round(r["loss"], 4), round(r["accuracy"], 4)) for r in records if r["kind"] == "heldout"]
    fact("held out", points=held, model=json.loads((folder / "run.json").read_text(encoding="utf-8")).get("model"))


if __name__ == "__main__":
    import correctness
    import operations
    import steps
    import summary

    phases = {
        "facts": facts, "note": note, "run": run, "model": correctness.model, "command": correctness.command,
        "step": steps.step, "ops": operations.ops, "inference": operations.inference, "tune": operations.tune,
        "summary": summary.summary,
    }  # fmt: skip
    phases[sys.argv[1]](*sys.argv[2:])
