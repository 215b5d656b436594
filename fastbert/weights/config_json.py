"""``config.json``, both ways: which fields a model is read from, and how one is written.

:mod:`fastbert.weights.config_fields` says of every other field whether it may be ignored.
"""

from collections.abc import Mapping

from fastbert.config import BertConfig, Family
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields
from fastbert.weights.config_fields import check_fields

MAX_WIDTH, MAX_LAYERS, MAX_PIECES = 1 << 17, 1 << 10, 1 << 26  # beyond any model; a damaged file must not allocate
REMEDY = "copy the file again from its source"
# family → the beginning of its classes' names in transformers
CLASSES: dict[Family, str] = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
}
FAMILIES = tuple(CLASSES)
MODEL_TYPES = (*FAMILIES, "roformer", "modernbert")


def class_prefix(config: BertConfig) -> str:
    """The beginning of the names of a model's classes in transformers."""
    return {"roformer": "RoFormer", "modern": "ModernBert"}.get(config.arch) or CLASSES[config.family]


# ---- writing ----
def config_to_hf(config: BertConfig) -> dict:
    """The ``config.json`` that stock transformers (4.48 and later, 5.x) reads as the same model."""
    if config.arch == "modern":
        return _modern_to_hf(config)
    activation = "gelu" if config.gelu_approximate == "none" else "gelu_pytorch_tanh"
    if config.arch == "distilbert":
        return {
            "architectures": ["DistilBertForMaskedLM"],
            "model_type": "distilbert",
            "vocab_size": config.vocab_size,
            "dim": config.hidden_size,
            "n_layers": config.num_hidden_layers,
            "n_heads": config.num_attention_heads,
            "hidden_dim": config.intermediate_size,
            "max_position_embeddings": config.max_position_embeddings,
            "activation": activation,
            "dropout": config.hidden_dropout_prob,
            "attention_dropout": config.attention_probs_dropout_prob,
            "initializer_range": config.initializer_range,
            "pad_token_id": config.pad_token_id,
            "sinusoidal_pos_embds": False,
            "tie_word_embeddings": config.tie_word_embeddings,
        }
    if config.arch == "roformer" and (config.rope_theta != 10_000.0 or config.window is not None):
        raise InputError("roformer in transformers has rope_theta 10000 and no window: change the config")
    return {
        "architectures": [class_prefix(config) + ("ForPreTraining" if config.arch == "classic" else "ForMaskedLM")],
        "model_type": "roformer" if config.arch == "roformer" else config.family,
        **_common_to_hf(config),
        **({"embedding_size": config.embedding_width} if config.arch == "electra" or config.embedding_size else {}),
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": activation,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "layer_norm_eps": config.layer_norm_eps,
        **({"rotary_value": False} if config.arch == "roformer" else {"position_embedding_type": "absolute"}),
        **_roberta_to_hf(config),
    }


def _common_to_hf(config: BertConfig) -> dict:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _roberta_to_hf(config: BertConfig) -> dict:
    """RoBERTa counts the positions before the first one, and has a token type even where it tells none apart."""
    if config.arch != "roberta":
        return {}
    return {
        "max_position_embeddings": config.max_position_embeddings + config.pad_token_id + 1,
        "type_vocab_size": max(config.type_vocab_size, 1),
    }


def _modern_to_hf(config: BertConfig) -> dict:
    activation = "gelu" if config.gelu_approximate == "none" else "gelu_pytorch_tanh"
    every = 1 if config.window is None else config.global_attention_every
    kinds = {True: "full_attention", False: "sliding_attention"}
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        **_common_to_hf(config),
        "bos_token_id": config.cls_token_id,
        "cls_token_id": config.cls_token_id,
        "eos_token_id": config.sep_token_id,
        "sep_token_id": config.sep_token_id,
        "hidden_activation": activation,
        "classifier_activation": activation,
        "embedding_dropout": config.hidden_dropout_prob,
        "mlp_dropout": config.hidden_dropout_prob,
        "attention_dropout": config.attention_probs_dropout_prob,
        "norm_eps": config.layer_norm_eps,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "local_attention": 128 if config.window is None else 2 * config.window,
        # 4.x reads the interval and the two thetas, 5.x the lists
        "global_attn_every_n_layers": every,
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_rope_theta,
        "layer_types": [kinds[config.is_global_layer(i)] for i in range(config.num_hidden_layers)],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": config.rope_theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_theta},
        },
    }


# ---- reading ----
def config_from_hf(hf: Mapping, source: str = "config.json") -> BertConfig:
    """Read a Hugging Face configuration.

    Raises:
        InputError: a model type or a setting that has no counterpart here, or a field that is missing or senseless.
    """
    # BERT's own configurations, from before the field existed, are known by their token types
    kind = hf.get("model_type") or ("bert" if "type_vocab_size" in hf else None)
    if kind not in MODEL_TYPES:
        raise InputError(
            f"{source}: model_type {kind!r:.40} is not supported: expected one of {', '.join(MODEL_TYPES)}"
        )
    check_fields(hf, kind, source)
    fields = Fields(hf, source, REMEDY)
    if kind == "distilbert":
        return _distilbert_config(fields)
    return _modern_config(fields) if kind == "modernbert" else _classic_config(fields, kind)


def _gelu(fields: Fields, name: str) -> str:
    names = {
        "gelu": "none",
        "gelu_python": "none",
        "gelu_new": "tanh",
        "gelu_fast": "tanh",
        "gelu_pytorch_tanh": "tanh",
    }
    if (activation := fields.text(name, "gelu")) not in names:
        raise InputError(
            f"{fields.source}: activation {activation!r:.40} is not supported: expected one of {', '.join(names)}"
        )
    return names[activation]


def _common(fields: Fields) -> dict:
    pieces = fields.integer("vocab_size", low=1, high=MAX_PIECES)
    return {
        "vocab_size": pieces,
        "hidden_size": fields.integer("hidden_size", low=1, high=MAX_WIDTH),
        "num_hidden_layers": fields.integer("num_hidden_layers", low=1, high=MAX_LAYERS),
        "num_attention_heads": fields.integer("num_attention_heads", low=1, high=MAX_WIDTH),
        "intermediate_size": fields.integer("intermediate_size", low=1, high=MAX_WIDTH),
        "max_position_embeddings": fields.integer("max_position_embeddings", low=1, high=MAX_PIECES),
        "initializer_range": fields.number("initializer_range", 0.02),
        "pad_token_id": fields.integer("pad_token_id", 0, high=pieces - 1),
        "tie_word_embeddings": fields.flag("tie_word_embeddings", True),
    }


def _classic_config(fields: Fields, kind: str) -> BertConfig:
    common = _common(fields)
    width = common["hidden_size"]
    # what transformers takes where the field is missing
    default = {"electra": 128, "roformer": width}.get(kind)
    embedding = width if default is None else fields.integer("embedding_size", default, low=1, high=MAX_WIDTH)
    types = fields.integer("type_vocab_size", 2, low=1, high=MAX_WIDTH)
    if roberta := kind in ("roberta", "xlm-roberta", "camembert"):
        if fields.values.get("pad_token_id") is None:
            common["pad_token_id"] = 1
        common["max_position_embeddings"] -= common["pad_token_id"] + 1
        if common["max_position_embeddings"] < 1:
            raise fields.refuse("max_position_embeddings", f"more than pad_token_id + 1 = {common['pad_token_id'] + 1}")
    return BertConfig(
        position="rope" if kind == "roformer" else "learned",
        family="bert" if kind == "roformer" else kind,  # type: ignore[arg-type]
        embedding_size=None if embedding == width else embedding,
        **common,
        # RoBERTa's single type tells nothing apart: it is added to the positions
        type_vocab_size=0 if roberta and types == 1 else types,
        hidden_dropout_prob=fields.number("hidden_dropout_prob", 0.1, high=1.0),
        attention_probs_dropout_prob=fields.number("attention_probs_dropout_prob", 0.1, high=1.0),
        layer_norm_eps=fields.number("layer_norm_eps", 1e-12),
        gelu_approximate=_gelu(fields, "hidden_act"),  # type: ignore[arg-type]
    )


def _distilbert_config(fields: Fields) -> BertConfig:
    ours = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
    renamed = {name: fields.values.get(old, fields.values.get(name)) for name, old in ours.items()}
    return BertConfig(
        **_common(Fields({**fields.values, **renamed}, fields.source, fields.remedy)),
        family="distilbert",
        type_vocab_size=0,
        hidden_dropout_prob=fields.number("dropout", 0.1, high=1.0),
        attention_probs_dropout_prob=fields.number("attention_dropout", 0.1, high=1.0),
        gelu_approximate=_gelu(fields, "activation"),  # type: ignore[arg-type]
    )


def _modern_config(fields: Fields) -> BertConfig:
    thetas = fields.inner("rope_parameters", {})

    def theta(kind: str, old: str, default: float) -> float:
        here = thetas.inner(kind, {})
        return (here if "rope_theta" in here else fields).number("rope_theta" if "rope_theta" in here else old, default)

    common = _common(fields)
    layers = common["num_hidden_layers"]
    every = fields.integer("global_attn_every_n_layers", 3, low=1)
    if kinds := fields.items("layer_types", ()):
        if len(kinds) != layers or not set(map(str, kinds)) <= {"full_attention", "sliding_attention"}:
            raise fields.refuse("layer_types", f"full_attention or sliding_attention for each of {layers} layers")
        glob = [i for i, name in enumerate(kinds) if name == "full_attention"]
        if glob != list(range(0, layers, every)):  # the list counts; where both say the same, the interval is kept
            every = 1 if len(glob) == layers else (glob[1] if len(glob) > 1 else layers)
        if glob != [i for i in range(layers) if i % every == 0]:
            raise fields.refuse("layer_types", "full_attention at every n-th layer from 0")
    # other ids may be those of another vocabulary, which transformers writes without being told
    common |= {
        name: value
        for name in ("cls_token_id", "sep_token_id")
        if isinstance(value := fields.values.get(name), int) and 0 <= value < common["vocab_size"]
    }
    return BertConfig(
        **common,
        type_vocab_size=0,
        hidden_dropout_prob=fields.number("mlp_dropout", 0.0, high=1.0),
        attention_probs_dropout_prob=fields.number("attention_dropout", 0.0, high=1.0),
        layer_norm_eps=fields.number("norm_eps", 1e-5),
        position="rope",
        norm="pre",
        mlp="geglu",
        window=None if every == 1 else fields.integer("local_attention", 128) // 2,
        global_attention_every=every,
        rope_theta=theta("full_attention", "global_rope_theta", 160_000.0),
        local_rope_theta=theta("sliding_attention", "local_rope_theta", 10_000.0),
        gelu_approximate=_gelu(fields, "hidden_activation"),  # type: ignore[arg-type]
    )
