"""The host's time for one layer: ``cd tests/gpu_pretend && python -m host_time``, no GPU needed.

Prints for each architecture of a preset the microseconds of a layer's forward and backward, median of many, under
autocast to bfloat16 as in training and in bfloat16 without gradients as in inference, the kernels launched, and the
calls of Python functions, which are the same on every machine.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from typing import Any

from host_time import machine


def calls_of(function) -> int:
    """Calls of Python functions that it makes."""
    number = 0

    def count(frame, event, argument):
        nonlocal number
        number += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return number - 1


def layer_of(preset: str, arch: str, tokens: int, length: int):
    """Name → (what is entered around it, a call of one layer on packed sequences of one length)."""
    import torch

    from fastbert.config import BertConfig
    from fastbert.layers import EncoderLayer

    config = BertConfig.preset(preset, arch)
    layer, frozen = (EncoderLayer(config, 1).to("cuda").train(train) for train in (True, False))
    frozen = frozen.to(torch.bfloat16)
    hidden = torch.empty(tokens, config.hidden_size, device="cuda", requires_grad=True)
    narrow = torch.empty(tokens, config.hidden_size, device="cuda", dtype=torch.bfloat16)
    cu_seqlens = torch.empty(tokens // length + 1, dtype=torch.int32, device="cuda")
    rotary = None
    if config.position == "rope":
        rotary = tuple(torch.empty(tokens, config.head_dim // 2, device="cuda") for _ in range(2))
    made = []

    def forward():
        made[:] = [layer(hidden, cu_seqlens, length, rotary=rotary)]

    grad = torch.empty(tokens, config.hidden_size, device="cuda")

    def backward():
        made[0].backward(grad)

    def inference():
        frozen(narrow, cu_seqlens, length, rotary=rotary)

    def autocast():
        return torch.autocast("cuda", torch.bfloat16)

    return {
        "forward": (autocast, forward),
        "backward": (contextlib.nullcontext, backward),
        "inference": (torch.inference_mode, inference),
    }


def measure(driver, preset: str, arch: str, repeats: int) -> dict[str, Any]:
    """The facts of one architecture."""
    functions = layer_of(preset, arch, 65536, 128)
    times: dict[str, list[float]] = {name: [] for name in functions}
    facts: dict[str, Any] = {"preset": preset, "arch": arch}
    for repeat in range(repeats + 2):  # the first compiles, the second counts
        for name, (around, function) in functions.items():
            with around():
                before = driver.recorded_launches()
                begin = time.perf_counter()
                calls = calls_of(function) if repeat == 1 else function()
                times[name].append(time.perf_counter() - begin)
                launches = driver.recorded_launches() - before
            if repeat == 1:
                facts[name] = {"launches": launches, "calls": calls}
    for name, seconds in times.items():
        facts[name]["us"] = round(statistics.median(seconds[2:]) * 1e6, 1)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m host_time", description=__doc__)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--arch", nargs="*", default=["modern", "classic"])
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--profile", action="store_true", help="print where a forward's time goes")
    chosen = parser.parse_args()
    driver = machine.start()
    for arch in chosen.arch:
        print(json.dumps(measure(driver, chosen.preset, arch, chosen.repeats)), flush=True)
        if chosen.profile:
            import cProfile

            around, forward = layer_of(chosen.preset, arch, 65536, 128)["forward"]
            with around(), cProfile.Profile() as profile:
                for _ in range(chosen.repeats):
                    forward()
            profile.print_stats("tottime")


if __name__ == "__main__":
    main()
