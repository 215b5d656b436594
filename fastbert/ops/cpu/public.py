"""Every op's C++ implementation under the name that ``fastbert.ops`` gives it."""

import torch

from fastbert.ops.cpu import dropout, embed, loss, rows
from fastbert.ops.cpu import feed_forward as _feed_forward
from fastbert.ops.cpu import self_attention as _self_attention
from fastbert.ops.cpu.attention import attention, qkv_attention
from fastbert.ops.cpu.embed import tie_embedding

# torch.compile cannot look into these; it calls them between two graphs
add_layer_norm = torch.compiler.disable(dropout.add_layer_norm)
bias_gelu = torch.compiler.disable(rows.bias_gelu)
geglu = torch.compiler.disable(rows.geglu)
embed_layer_norm = torch.compiler.disable(embed.embed_layer_norm)
label_log_probs = torch.compiler.disable(loss.label_log_probs)
masked_lm_loss = torch.compiler.disable(loss.masked_lm_loss)
feed_forward = torch.compiler.disable(_feed_forward.feed_forward)
self_attention = torch.compiler.disable(_self_attention.self_attention)

__all__ = [
    "add_layer_norm",
    "attention",
    "bias_gelu",
    "embed_layer_norm",
    "feed_forward",
    "geglu",
    "label_log_probs",
    "masked_lm_loss",
    "qkv_attention",
    "self_attention",
    "tie_embedding",
]
