"""What ``python -m fastbert.info`` says of a machine with a GPU: Triton only where a kernel would run."""

import pytest
import torch

from fastbert import ops
from fastbert.kernels import dispatch


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one CUDA device: ``gpu(capability, triton=True)``."""

    def gpu(capability, triton=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(dispatch, "_capability", lambda index: capability)
        monkeypatch.setattr(dispatch, "_has_triton", lambda: triton)

    return gpu


def test_a_new_gpu_runs_every_op_that_has_a_kernel(gpu):
    gpu((9, 0))
    found = {op: ops.choose(op)[0] for op in ops.OPS}
    assert found == {op: "triton" if op in dispatch.OPS else "reference" for op in ops.OPS}
    assert "no Triton kernel" in ops.choose("self_attention")[1]


def test_an_old_gpu_runs_none(gpu):
    gpu((7, 5))
    for op in dispatch.OPS:
        chosen, why = ops.choose(op)
        assert chosen == "reference" and "7.5" in why


def test_nor_does_one_without_triton(gpu):
    gpu((9, 0), triton=False)
    for op in dispatch.OPS:
        chosen, why = ops.choose(op)
        assert chosen == "reference" and "pip install triton" in why
