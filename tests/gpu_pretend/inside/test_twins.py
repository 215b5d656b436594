"""The quick twins against Triton's interpreter, on the very launches of a training step."""

import pytest
import torch
from pretended import kernels
from pretended.steps import one_step
from pretended.tensors import inner_of


@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_every_launch_of_a_step_computes_what_the_interpreter_computes(monkeypatch, arch):
    seen = {}
    stock = kernels.compute

    def compute(kernel, grid, config, arguments, **options):
        name = kernel.fn.__name__
        if name in seen or arguments.get("DROPOUT"):
            return stock(kernel, grid, config, arguments, **options)
        theirs = {key: x.clone() if isinstance(x, torch.Tensor) else x for key, x in arguments.items()}
        # clones lose the strides of views, which the kernel was told
        theirs = {
            key: x
            if not isinstance(x, torch.Tensor)
            else torch.empty_strided(y.shape, y.stride(), dtype=y.dtype).copy_(x)
            for (key, x), y in zip(theirs.items(), map(inner_of, arguments.values()), strict=True)
        }
        stock(kernel, grid, config, arguments, **options)
        stock(kernel, grid, config, theirs, interpreter=True)
        seen[name] = [
            (key, arguments[key].clone(), theirs[key])
            for key, x in theirs.items()
            if isinstance(x, torch.Tensor) and key in OUTPUTS
        ]
        return None

    monkeypatch.setattr(kernels, "compute", compute)
    # in float32: the kernel rounds O to bfloat16 before it subtracts, and small differences are all rounding
    one_step("tiny", arch, autocast=False)
    assert len(seen) >= 8
    for name, outputs in seen.items():
        assert outputs, name
        for key, ours, theirs in outputs:
            if key.startswith("PART"):  # partial sums lie elsewhere
                ours, theirs = ours.sum(-2), theirs.sum(-2)
            scale = theirs.float().abs().max().clamp(min=1e-6)
            error = (ours.float() - theirs.float()).abs().max() / scale
            assert error <= 1e-4, f"{name}: {key} {error}"


OUTPUTS = {"OUT", "LSE", "DQ", "DK", "DV", "DELTA", "Y", "NARROW", "SUM", "MEAN", "RSTD", "DX", "DRESIDUAL", "LOSS",
           "LOGITS", "PARTS", "PART_BIAS"}  # fmt: skip
