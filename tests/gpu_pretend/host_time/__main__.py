"""The host's time for a layer of a model: ``cd tests/gpu_pretend && python -m host_time``, no GPU needed.

Prints for each architecture of a preset the microseconds of a layer's forward and backward, median of many, under
autocast to bfloat16 as in training and in bfloat16 without gradients as in inference, the kernels launched, and the
calls of Python functions, which are the same on every machine. "a layer" is the share of one in a pass through all
layers of the preset, with what the pass does once; "alone" a layer that is called by itself.
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


def passes_of(preset: str, arch: str, tokens: int, length: int):
    """Name → (what is entered around it, a pass, the layers in it), on packed sequences of one length."""
    import torch

    from fastbert.config import BertConfig
    from fastbert.layers import Encoder

    config = BertConfig.preset(preset, arch)
    encoder, frozen = (Encoder(config).to("cuda").train(train) for train in (True, False))
    frozen = frozen.to(torch.bfloat16)
    layers, alone = config.num_hidden_layers, encoder.layers[1]
    hidden = torch.empty(tokens, config.hidden_size, device="cuda", requires_grad=True)
    narrow = torch.empty(tokens, config.hidden_size, device="cuda", dtype=torch.bfloat16)
    cu_seqlens = torch.empty(tokens // length + 1, dtype=torch.int32, device="cuda")
    position_ids = torch.empty(tokens, dtype=torch.int64, device="cuda")
    rotary = None
    if config.position == "rope":
        rotary = tuple(torch.empty(tokens, config.head_dim // 2, device="cuda") for _ in range(2))
    for one in (encoder, frozen):  # the tables are made once for all layers, by operations this device does not have
        one._rotary = lambda *_: {True: rotary, False: rotary}  # type: ignore[assignment]
    made = []

    def backward(grad):
        made.pop().backward(grad)

    def autocast():
        return torch.autocast("cuda", torch.bfloat16)

    def forward(run):
        made[:] = [run()]

    def whole(model, x):
        return lambda: model(x, position_ids, cu_seqlens, length)

    def single(layer, x):
        return lambda: layer(x, cu_seqlens, length, rotary=rotary)

    no_context = contextlib.nullcontext
    return {
        "a layer": {
            "forward": (autocast, lambda: forward(whole(encoder, hidden)), layers),
            "backward": (no_context, lambda: backward(torch.empty_like(made[0])), layers),
            "inference": (torch.inference_mode, whole(frozen, narrow), layers),
        },
        "alone": {
            "forward": (autocast, lambda: forward(single(alone, hidden)), 1),
            "backward": (no_context, lambda: backward(torch.empty_like(made[0])), 1),
            "inference": (torch.inference_mode, single(frozen.layers[1], narrow), 1),
        },
    }


def measure(driver, preset: str, arch: str, repeats: int) -> dict[str, Any]:
    """The facts of one architecture."""
    facts: dict[str, Any] = {"preset": preset, "arch": arch}
    for place, functions in passes_of(preset, arch, 65536, 128).items():
        facts[place] = {}
        times: dict[str, list[float]] = {name: [] for name in functions}
        for repeat in range(repeats + 2):  # the first compiles, the second counts
            for name, (around, function, layers) in functions.items():
                with around():
                    before = driver.recorded_launches()
                    begin = time.perf_counter()
                    calls = calls_of(function) if repeat == 1 else function()
                    times[name].append((time.perf_counter() - begin) / layers)
                    launches = driver.recorded_launches() - before
                if repeat == 1:
                    facts[place][name] = {"launches": launches // layers, "calls": calls // layers}
        for name, seconds in times.items():
            facts[place][name]["us"] = round(statistics.median(seconds[2:]) * 1e6, 1)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m host_time", description=__doc__)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--arch", nargs="*", default=["modern", "classic"])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--profile", action="store_true", help="print where a forward's time goes")
    chosen = parser.parse_args()
    driver = machine.start()
    for arch in chosen.arch:
        print(json.dumps(measure(driver, chosen.preset, arch, chosen.repeats)), flush=True)
        if chosen.profile:
            import cProfile

            around, forward, _ = passes_of(chosen.preset, arch, 65536, 128)["a layer"]["forward"]
            with around(), cProfile.Profile() as profile:
                for _ in range(chosen.repeats):
                    forward()
            profile.print_stats("tottime")


if __name__ == "__main__":
    main()
