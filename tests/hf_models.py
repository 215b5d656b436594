"""Small random models of transformers, one for each family that is read, and their answers."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is the peer compared with")

V, L = 130, 24
_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# model_type → the beginning of its classes' names, and its configuration
FAMILIES = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66}),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66}),
    "camembert": ("Camembert", {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66}),
    "distilbert": ("DistilBert", {}),
    "electra": ("Electra", {"embedding_size": 16}),
    "electra-wide": ("Electra", {"embedding_size": 32}),
    "roformer": ("RoFormer", {}),
    "roformer-narrow": ("RoFormer", {"embedding_size": 16}),
    "modernbert": ("ModernBert", {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "num_hidden_layers": 4}),
}


def peer(family: str, suffix: str = "ForMaskedLM", **changes):
    """A model of transformers with weights large enough that a wrong detail shows."""
    prefix, fields = FAMILIES[family]
    size = {"max_position_embeddings": 64, **_SIZE}
    if prefix == "DistilBert":
        size = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64}
    config = getattr(transformers, prefix + "Config")(**{"vocab_size": V, **size, **fields, **changes})
    torch.manual_seed(0)
    return spread(getattr(transformers, prefix + suffix)(config), 0.15)


def spread(model, scale: float = 0.1):
    """Make weights large enough that a wrong mask, pooling, scale or bias shows in the logits."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:  # RoFormer's sinusoids are no weights
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """(B, L) ids and attention mask, padded on the right."""
    ids = torch.randint(5, V, (2, L), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, L, dtype=torch.long)
    mask[0, 17:] = 0
    return ids, mask
