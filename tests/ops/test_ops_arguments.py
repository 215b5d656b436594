"""Arguments of attention that do not fit together are refused in one line that names them."""

import pytest
import torch

from fastbert import ops

Q = torch.randn(6, 2, 16)


@pytest.mark.parametrize(("ends", "longest", "words"), [
    ([0, 4, 7], 4, r"cu_seqlens goes from 0 to 7: expected 0 to q's 6 tokens"),
    ([1, 4, 6], 4, "cu_seqlens goes from 1 to 6"),
    ([0, 4, 6], 3, "sequences of 2 to 4 tokens: expected 0 to max_seqlen=3"),
    ([0, 5, 3, 6], 6, "sequences of -2 to 5 tokens"),
])  # fmt: skip
def test_lengths(ends, longest, words):
    with pytest.raises(ValueError, match=words):
        ops.attention(Q, Q, Q, torch.tensor(ends, dtype=torch.int32), longest)


def test_types_and_shapes():
    with pytest.raises(ValueError, match=r"cu_seqlens is torch\.float32 of shape \(2,\): expected torch\.int32"):
        ops.attention(Q, Q, Q, torch.tensor([0.0, 6.0]), 6)
    with pytest.raises(ValueError, match=r"bias has shape \(2, 5, 5\): expected .* 2 heads, 6, 6"):
        ops.attention(Q, Q, Q, torch.tensor([0, 6], dtype=torch.int32), 6, bias=torch.zeros(2, 5, 5))
    long = ops.attention(Q, Q, Q, torch.tensor([0, 6]), 6)  # int64 is taken too
    assert torch.equal(long, ops.attention(Q, Q, Q, torch.tensor([0, 6], dtype=torch.int32), 6))
