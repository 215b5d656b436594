"""A prepared launch has the arguments of the ordinary one: ``cd tests/gpu_pretend && python -m host_time.arguments``.

The device computes nothing, but a launch's grid, kernel and arguments can be compared: numbers as they are, addresses
absolute for what was there before (weights, inputs), and relative to the pass's first allocation for what it made.
"""

import json
import sys

from host_time import machine


def launches_of(function):
    """(grid, kernel, arguments) of each launch that it makes, in order."""
    import torch
    from triton.backends.nvidia.driver import CudaLauncher

    seen, stock = [], CudaLauncher.__call__
    first = torch.empty(1, device="cuda").data_ptr()

    def call(self, x, y, z, stream, kernel, metadata, launch_metadata, enter, leave, *arguments):
        plain = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
        # what is allocated later lies higher: addresses are made up, one after the other
        plain = [("made", a - first) if type(a) is int and a >= first else a for a in plain]
        seen.append(((x, y, z), kernel, plain))
        return stock(self, x, y, z, stream, kernel, metadata, launch_metadata, enter, leave, *arguments)

    CudaLauncher.__call__ = call
    try:
        function()
    finally:
        CudaLauncher.__call__ = stock
    return seen


def compare(arch: str, length: int, **options) -> int:
    """Launches of a forward and backward pass, which are the same the first time and from then on."""
    import torch

    from fastbert.config import BertConfig
    from fastbert.kernels.prepared import Prepared
    from fastbert.layers import Encoder
    from fastbert.ops import cuda_layer

    torch.manual_seed(0)
    config = BertConfig.preset("mini", arch, **options)
    encoder = Encoder(config).to("cuda").train()
    tokens = 8 * length
    hidden = torch.empty(tokens, config.hidden_size, device="cuda", requires_grad=True)
    cu_seqlens = torch.empty(9, dtype=torch.int32, device="cuda")
    position_ids = torch.empty(tokens, dtype=torch.int64, device="cuda")
    tables = tuple(torch.empty(tokens, config.head_dim // 2, device="cuda") for _ in range(2))
    rotary = tables if config.position == "rope" else None
    encoder._rotary = lambda *_: {True: rotary, False: rotary}  # type: ignore[assignment]

    def forward_and_backward():
        encoder.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            out = encoder(hidden, position_ids, cu_seqlens, length)
        out.backward(torch.empty_like(out))

    forward_and_backward()  # finds the kinds of calls, which allocates
    known = [found for kinds in cuda_layer._kinds.values() for found in kinds.values()]
    for launcher in (x for launches in known for x in vars(launches).values() if isinstance(x, Prepared)):
        launcher._launches = []
    ordinary = launches_of(forward_and_backward)
    for _ in range(2):
        prepared = launches_of(forward_and_backward)
        assert len(prepared) == len(ordinary)
        for a, b in zip(ordinary, prepared, strict=True):
            assert a == b, (a, b)
    return len(ordinary)


CASES = [
    ("modern", 128, {}), ("classic", 128, {}), ("modern", 256, {"window": 64}), ("classic", 32, {}),
    ("modern", 64, {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
    ("classic", 512, {"hidden_dropout_prob": 0.1}),
]  # fmt: skip


def main() -> None:
    machine.start()
    for arch, length, options in CASES:
        print(json.dumps({"arch": arch, "length": length, **options, "launches": compare(arch, length, **options)}))


if __name__ == "__main__":
    sys.exit(main())
