"""Is it right? The whole model against the reference, repeated runs bit for bit, the command and its resume."""

import shutil
import subprocess
import time

import torch
from record import OUT, SMALL, attempt, config_of, fact, make_batch

from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers


def model() -> None:
    """Loss and every gradient by the kernels against the reference, in float32 and bfloat16; then repeatability."""
    for arch in ("modern", "classic", "roformer"):
        with attempt("model", arch=arch):
            torch.manual_seed(0)
            config = config_of("mini", arch, window=32 if arch == "modern" else None)
            kernels = BertForPreTraining(config).to("cuda").train()
            spec = BertForPreTraining(config, impl="reference").to("cuda").train()
            spec.load_state_dict(kernels.state_dict())
            batch = (make_batch(64, 16, ragged=True) if SMALL else make_batch(4096, 128, ragged=True)).to("cuda")
            for precision, autocast in (("fp32", False), ("bf16", True)):
                losses, grads = zip(*(gradients(one, batch, autocast) for one in (kernels, spec)), strict=True)
                errors = {n: float((grads[0][n] - g).norm() / g.norm().clamp(min=1e-12)) for n, g in grads[1].items()}
                worst = max(errors, key=errors.__getitem__)
                fact(
                    "model", arch=arch, precision=precision, loss=losses[0], reference=losses[1], worst_gradient=worst,
                    error=errors[worst],
                )  # fmt: skip
    with attempt("repeatable"):
        repeatable()


def gradients(one: BertForPreTraining, batch, autocast: bool) -> tuple[float, dict[str, torch.Tensor]]:
    one.zero_grad()
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        loss = one(batch).loss
    loss.backward()
    return loss.item(), {n: p.grad.double() for n, p in one.named_parameters() if p.grad is not None}


def repeatable() -> None:
    """Two trainings of a few steps have the same bits; a saved optimizer state goes on."""
    torch.manual_seed(0)
    start = BertForPreTraining(config_of("tiny", "modern")).to("cuda").train()
    batch = make_batch(64, 16).to("cuda") if SMALL else make_batch(2048, 64).to("cuda")
    ends = []
    for _ in range(2):
        twin = BertForPreTraining(start.config).to("cuda").train()
        twin.load_state_dict(start.state_dict())
        optimizers = Optimizers(twin)
        for _ in range(2 if SMALL else 5):
            with torch.autocast("cuda", torch.bfloat16):
                twin(batch).loss.backward()
            optimizers.step(1.0)
        ends.append(torch.cat([p.detach().flatten() for p in twin.parameters()]))
    fact("repeatable", same_bits=bool(torch.equal(*ends)))
    fresh = Optimizers(twin)
    fresh.load_state_tensors({name: x.cpu() for name, x in optimizers.state_tensors().items()})
    with torch.autocast("cuda", torch.bfloat16):
        twin(batch).loss.backward()
    fresh.step(1.0)
    fact("optimizer state put back", finite=all(bool(p.isfinite().all()) for p in twin.parameters()))


def command() -> None:
    """The command as a user gives it: train, stop, resume, and the resumed run against the whole one; predict."""
    steps = 4 if SMALL else 40
    whole, parts = OUT / "whole", OUT / "parts"
    for folder in (whole, parts):
        shutil.rmtree(folder, ignore_errors=True)
    sizes = "--vocab-size 300 --batch-tokens 256 --max-length 32 --eval-tokens 64".split()
    base = (*"--data bundled:en --preset tiny --evaluations 1 --device cuda".split(), *(sizes if SMALL else ()))
    python("train", "fastbert.train", *base, "--steps", str(steps), "--output", str(whole))
    python(
        "train, stopped",
        "fastbert.train",
        *base,
        "--steps",
        str(steps),
        "--stop-after",
        str(steps // 2),
        "--output",
        str(parts),
    )
    python("resume", "fastbert.train", "--resume", "--output", str(parts))
    with attempt("resume"):
        files = [(folder / "model.safetensors").read_bytes() for folder in (whole, parts)]
        fact("resume", same_bits=files[0] == files[1])
    python("predict", "fastbert.predict", str(whole), "the [MASK] was old", "--device", "cuda")


def python(name: str, module: str, *arguments: str) -> None:
    began = time.monotonic()
    # "python3" as visit.sh finds it, whatever stands for it
    done = subprocess.run(
        [shutil.which("python3") or "python3", "-m", module, *arguments], capture_output=True, text=True
    )
    print(done.stdout[-1500:], done.stderr[-1500:], flush=True)
    said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    fact("command", name=name, exit=done.returncode, seconds=round(time.monotonic() - began, 1), said=said)
