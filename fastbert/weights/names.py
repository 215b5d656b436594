"""What the tensors of each architecture are called in Hugging Face's files.

A pair is (our module, theirs), without ".weight" and ".bias"; {} is the layer number.
"""

from fastbert.config import Arch, BertConfig

CLASSIC = (
    ("embeddings.word", "bert.embeddings.word_embeddings"),
    ("embeddings.position", "bert.embeddings.position_embeddings"),
    ("embeddings.token_type", "bert.embeddings.token_type_embeddings"),
    ("embeddings.norm", "bert.embeddings.LayerNorm"),
    ("encoder.layers.{}.attention.out", "bert.encoder.layer.{}.attention.output.dense"),
    ("encoder.layers.{}.attention_norm", "bert.encoder.layer.{}.attention.output.LayerNorm"),
    ("encoder.layers.{}.feed_forward.up", "bert.encoder.layer.{}.intermediate.dense"),
    ("encoder.layers.{}.feed_forward.down", "bert.encoder.layer.{}.output.dense"),
    ("encoder.layers.{}.feed_forward_norm", "bert.encoder.layer.{}.output.LayerNorm"),
    ("pooler", "bert.pooler.dense"),
    ("head.dense", "cls.predictions.transform.dense"),
    ("head.norm", "cls.predictions.transform.LayerNorm"),
    ("next_sentence", "cls.seq_relationship"),
)
_ENCODER = tuple((ours, theirs) for ours, theirs in CLASSIC if ours.startswith(("embeddings.", "encoder.")))


def _encoder(prefix: str) -> tuple[tuple[str, str], ...]:
    """BERT's embeddings and encoder under another prefix."""
    return tuple((ours, theirs.replace("bert.", prefix, 1)) for ours, theirs in _ENCODER)


# BERT without learned positions and without the next-sentence head
ROFORMER = (
    *(pair for pair in _encoder("roformer.") if pair[0] != "embeddings.position"),
    ("embeddings.project", "roformer.embeddings_project"),
    ("head.dense", "cls.predictions.transform.dense"),
    ("head.norm", "cls.predictions.transform.LayerNorm"),
)
ROBERTA = (*_encoder("roberta."), ("head.dense", "lm_head.dense"), ("head.norm", "lm_head.layer_norm"))
ELECTRA = (
    *_encoder("electra."),
    ("embeddings.project", "electra.embeddings_project"),
    ("head.dense", "generator_predictions.dense"),
    ("head.norm", "generator_predictions.LayerNorm"),
)
DISTILBERT = (
    ("embeddings.word", "distilbert.embeddings.word_embeddings"),
    ("embeddings.position", "distilbert.embeddings.position_embeddings"),
    ("embeddings.norm", "distilbert.embeddings.LayerNorm"),
    ("encoder.layers.{}.attention.out", "distilbert.transformer.layer.{}.attention.out_lin"),
    ("encoder.layers.{}.attention_norm", "distilbert.transformer.layer.{}.sa_layer_norm"),
    ("encoder.layers.{}.feed_forward.up", "distilbert.transformer.layer.{}.ffn.lin1"),
    ("encoder.layers.{}.feed_forward.down", "distilbert.transformer.layer.{}.ffn.lin2"),
    ("encoder.layers.{}.feed_forward_norm", "distilbert.transformer.layer.{}.output_layer_norm"),
    ("head.dense", "vocab_transform"),
    ("head.norm", "vocab_layer_norm"),
)
MODERN = (
    ("embeddings.word", "model.embeddings.tok_embeddings"),
    ("embeddings.norm", "model.embeddings.norm"),
    ("encoder.layers.{}.attention_norm", "model.layers.{}.attn_norm"),
    ("encoder.layers.{}.attention.qkv", "model.layers.{}.attn.Wqkv"),
    ("encoder.layers.{}.attention.out", "model.layers.{}.attn.Wo"),
    ("encoder.layers.{}.feed_forward_norm", "model.layers.{}.mlp_norm"),
    ("encoder.layers.{}.feed_forward.up", "model.layers.{}.mlp.Wi"),
    ("encoder.layers.{}.feed_forward.down", "model.layers.{}.mlp.Wo"),
    ("encoder.norm", "model.final_norm"),
    ("head.dense", "head.dense"),
    ("head.norm", "head.norm"),
)
NAMES: dict[Arch, tuple[tuple[str, str], ...]] = {
    "classic": CLASSIC,
    "roformer": ROFORMER,
    "modern": MODERN,
    "roberta": ROBERTA,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
}
PREFIX: dict[Arch, str] = {
    "classic": "bert.",
    "roformer": "roformer.",
    "modern": "model.",
    "roberta": "roberta.",
    "electra": "electra.",
    "distilbert": "distilbert.",
}
# where the queries, keys and values of a layer stand that are not fused; {} layer, part, suffix
_BERT_QKV = "encoder.layer.{}.attention.self.{}.{}", ("query", "key", "value")
QKV: dict[Arch, tuple[str, tuple[str, str, str]]] = {
    "classic": _BERT_QKV,
    "roformer": _BERT_QKV,
    "roberta": _BERT_QKV,
    "electra": _BERT_QKV,
    "distilbert": ("transformer.layer.{}.attention.{}.{}", ("q_lin", "k_lin", "v_lin")),
}
# the decoder's weight, where it is not the word embedding, and the names of its bias: the first that is there counts
DECODER: dict[Arch, tuple[str, tuple[str, ...]]] = {
    "classic": ("cls.predictions.decoder.weight", ("cls.predictions.decoder.bias", "cls.predictions.bias")),
    "roformer": ("cls.predictions.decoder.weight", ("cls.predictions.decoder.bias", "cls.predictions.bias")),
    "modern": ("decoder.weight", ("decoder.bias",)),
    "roberta": ("lm_head.decoder.weight", ("lm_head.decoder.bias", "lm_head.bias")),
    "electra": ("generator_lm_head.weight", ("generator_lm_head.bias",)),
    "distilbert": ("vocab_projector.weight", ("vocab_projector.bias",)),
}


def pairs(config: BertConfig) -> list[tuple[str, str]]:
    """Every (our name, their name) of a model, suffixes included, the decoder and a split Q, K, V excepted."""
    found = []
    for ours, theirs in NAMES[config.arch]:
        for number in range(config.num_hidden_layers) if "{}" in ours else [None]:
            for suffix in (".weight", ".bias"):
                found.append((ours.format(number) + suffix, theirs.format(number) + suffix))
    return found


def qkv_names(config: BertConfig) -> list[tuple[str, list[str]]]:
    """Our fused Q, K, V parameters and the three that each is made of; none where they are fused there too."""
    if config.arch not in QKV:
        return []
    place, parts = QKV[config.arch]
    return [
        (
            f"encoder.layers.{i}.attention.qkv.{suffix}",
            [PREFIX[config.arch] + place.format(i, part, suffix) for part in parts],
        )
        for i in range(config.num_hidden_layers)
        for suffix in ("weight", "bias")
    ]
