"""Every op's C++ implementation under the name that ``fastbert.ops`` gives it."""

import torch

from fastbert.cpu_kernels import loss
from fastbert.cpu_kernels.attention import attention, qkv_attention

# torch.compile cannot look into it; it calls it between two graphs
masked_lm_loss = torch.compiler.disable(loss.masked_lm_loss)

__all__ = ["attention", "masked_lm_loss", "qkv_attention"]
