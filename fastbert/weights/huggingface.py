"""Hugging Face layout, both ways: configurations and weights of BERT, RoFormer and ModernBERT.

Pure translation of names and shapes; :mod:`fastbert.model` does the building. Weights are read from safetensors, or
from old ``.bin`` files without executing pickles. Old ``gamma``/``beta`` names and missing prefixes
("bert.", "model.") are understood.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastbert.config import BertConfig
from fastbert.reference import rotary_tables
from fastbert.system.atomic_write import written_whole
from fastbert.system.errors import InputError
from fastbert.system.json_files import Fields, read_object

# (our name, Hugging Face's name) without ".weight"/".bias"; {} is the layer number
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
# RoFormer is BERT without learned positions and without the next-sentence head
ROFORMER = tuple(
    (ours, theirs.replace("bert.", "roformer.", 1))
    for ours, theirs in CLASSIC
    if ours not in ("embeddings.position", "pooler", "next_sentence")
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
# whole names, with no suffix to add
NAMES = {"classic": CLASSIC, "roformer": ROFORMER, "modern": MODERN}
DECODER_BIAS = {
    "classic": "cls.predictions.bias",
    "roformer": "cls.predictions.bias",
    "modern": "decoder.bias",
}
PREFIX = {"classic": "bert.", "roformer": "roformer.", "modern": "model."}
VOCABULARY_ROWS = ("embeddings.word.weight", "head.bias")
QKV_PARTS = ("query", "key", "value")


# ---- configuration ----
def config_to_hf(config: BertConfig) -> dict:
    """The ``config.json`` that stock transformers (4.48 and later, 5.x) reads as the same model."""
    common = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad_token_id,
        "tie_word_embeddings": True,
    }
    activation = "gelu" if config.gelu_approximate == "none" else "gelu_pytorch_tanh"
    if config.arch != "modern":
        bert = config.arch == "classic"
        if not bert and (config.rope_theta != 10_000.0 or config.window is not None):
            raise InputError("roformer in transformers has rope_theta 10000 and no window: change the config")
        return {
            "architectures": ["BertForPreTraining" if bert else "RoFormerForMaskedLM"],
            "model_type": "bert" if bert else "roformer",
            **common,
            "type_vocab_size": config.type_vocab_size,
            "hidden_act": activation,
            "hidden_dropout_prob": config.hidden_dropout_prob,
            "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
            "layer_norm_eps": config.layer_norm_eps,
            **({"position_embedding_type": "absolute"} if bert else {"rotary_value": False}),
        }
    every = 1 if config.window is None else config.global_attention_every
    kinds = {True: "full_attention", False: "sliding_attention"}
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        **common,
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


MAX_WIDTH, MAX_LAYERS, MAX_PIECES = 1 << 17, 1 << 10, 1 << 26  # beyond any model; a damaged file must not allocate


def config_from_hf(hf: Mapping, source: str = "config.json") -> BertConfig:
    """Read a Hugging Face configuration.

    Raises:
        InputError: a model type or a setting that has no counterpart here, or a field that is missing or senseless.
    """
    # BERT's own configurations, from before the field existed, are known by their token types
    kind = hf.get("model_type") or ("bert" if "type_vocab_size" in hf else None)
    if kind not in ("bert", "roformer", "modernbert"):
        raise InputError(f"{source}: model_type {kind!r:.40} is not supported: expected bert, roformer or modernbert")
    fields = Fields(hf, source, "copy the file again from its source")
    return _modern_config(fields) if kind == "modernbert" else _classic_config(fields)


def _gelu(fields: Fields, name: str) -> str:
    names = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
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
    }


def _classic_config(fields: Fields) -> BertConfig:
    source = fields.source
    if (kind := fields.text("position_embedding_type", "absolute")) != "absolute":
        raise InputError(f"{source}: position_embedding_type {kind!r:.40} is not supported")
    rotary = fields.values.get("model_type") == "roformer"
    common = _common(fields)
    width = common["hidden_size"]
    if rotary and (fields.flag("rotary_value", False) or fields.integer("embedding_size", width) != width):
        raise InputError(f"{source}: rotary_value and an embedding_size of its own are not supported")
    return BertConfig(
        position="rope" if rotary else "learned",
        **common,
        type_vocab_size=fields.integer("type_vocab_size", 2, low=1, high=MAX_WIDTH),
        hidden_dropout_prob=fields.number("hidden_dropout_prob", 0.1, high=1.0),
        attention_probs_dropout_prob=fields.number("attention_probs_dropout_prob", 0.1, high=1.0),
        layer_norm_eps=fields.number("layer_norm_eps", 1e-12),
        gelu_approximate=_gelu(fields, "hidden_act"),  # type: ignore[arg-type]
    )


def _modern_config(fields: Fields) -> BertConfig:
    for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"):
        if fields.flag(name, False):
            raise InputError(
                f"{fields.source}: {name}=true is not supported: ModernBERT's released models have no such bias"
            )
    thetas = fields.inner("rope_parameters", {})

    def theta(kind: str, old: str, default: float) -> float:
        here = thetas.inner(kind, {})
        return (here if "rope_theta" in here else fields).number("rope_theta" if "rope_theta" in here else old, default)

    common = _common(fields)
    layers = common["num_hidden_layers"]
    every = fields.integer("global_attn_every_n_layers", 3, low=1)
    if kinds := fields.items("layer_types", ()):
        glob = [i for i, name in enumerate(kinds) if name == "full_attention"]
        if glob != list(range(0, layers, every)):  # the list counts; where both say the same, the interval is kept
            every = 1 if len(glob) == layers else (glob[1] if len(glob) > 1 else layers)
        if glob != [i for i in range(layers) if i % every == 0]:
            raise fields.refuse("layer_types", "full_attention at every n-th layer from 0")
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


# ---- weights ----
def _pairs(config: BertConfig) -> list[tuple[str, str]]:
    """Every (our name, their name) of a model, suffixes included, the fused Q, K, V of BERT excepted."""
    pairs = []
    for ours, theirs in NAMES[config.arch]:
        numbers = range(config.num_hidden_layers) if "{}" in ours else [None]
        for number in numbers:
            for suffix in (".weight", ".bias"):
                pairs.append((ours.format(number) + suffix, theirs.format(number) + suffix))
    return [*pairs, ("head.bias", DECODER_BIAS[config.arch])]


def _qkv_names(config: BertConfig) -> list[tuple[str, list[str]]]:
    """Our fused Q, K, V parameters and the three of BERT and RoFormer each is made of."""
    if config.arch == "modern":
        return []
    layer = PREFIX[config.arch] + "encoder.layer.{}.attention.self.{}.{}"
    return [
        (f"encoder.layers.{i}.attention.qkv.{suffix}", [layer.format(i, part, suffix) for part in QKV_PARTS])
        for i in range(config.num_hidden_layers)
        for suffix in ("weight", "bias")
    ]


def _interleave(rows: Tensor, config: BertConfig, back: bool = False) -> Tensor:
    """Reorder the rows of a query or key projection between the two rotary conventions.

    We rotate rows i and i + H/2 of a head together, RoFormer rows 2i and 2i + 1.
    """
    half = config.head_dim // 2
    split = (half, 2) if back else (2, half)
    heads = rows.view(config.num_attention_heads, *split, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def state_dict_to_hf(state: Mapping[str, Tensor], config: BertConfig) -> dict[str, Tensor]:
    """Our weights under Hugging Face's names; the tied decoder is not repeated."""
    out = {theirs: state[ours] for ours, theirs in _pairs(config) if ours in state}
    for ours in VOCABULARY_ROWS:
        if ours in state:
            theirs = dict(_pairs(config))[ours]
            out[theirs] = state[ours][: config.vocab_size]
    for ours, names in _qkv_names(config):
        q, k, v = state[ours].chunk(3, 0)
        if config.arch == "roformer":
            q, k = _interleave(q, config), _interleave(k, config)
        out |= dict(zip(names, (q, k, v), strict=True))
    return out


def state_dict_from_hf(hf: Mapping[str, Tensor], config: BertConfig) -> dict[str, Tensor]:
    """Hugging Face's weights under our names, the vocabulary padded; names that are not there are left out."""
    prefix = PREFIX[config.arch]
    hf = {_modern_spelling(name): tensor for name, tensor in hf.items()}
    if not any(name.startswith(prefix) for name in hf):  # a bare encoder (BertModel) has no prefix
        hf = {prefix + name: tensor for name, tensor in hf.items()}
    _check_sinusoids(hf, config)
    out = {ours: hf[theirs] for ours, theirs in _pairs(config) if theirs in hf}
    for ours, names in _qkv_names(config):
        if all(name in hf for name in names):
            q, k, v = (hf[name] for name in names)
            if config.arch == "roformer":
                q, k = _interleave(q, config, back=True), _interleave(k, config, back=True)
            out[ours] = torch.cat([q, k, v])
    for ours in VOCABULARY_ROWS:
        missing = config.padded_vocab_size - len(out[ours]) if ours in out and out[ours].ndim else 0
        if 0 < missing < 64:  # more is a configuration of another model, refused by the caller
            out[ours] = torch.cat([out[ours], out[ours].new_zeros((missing, *out[ours].shape[1:]))])
    return {name: tensor.float() for name, tensor in out.items()}


def _check_sinusoids(hf: Mapping[str, Tensor], config: BertConfig) -> None:
    """RoFormer's rotation angles stand among its weights, and transformers lets them be trained: ours are fixed."""
    name = "roformer.encoder.embed_positions.weight"
    if name not in hf:
        return
    positions = torch.arange(hf[name].shape[0])
    cos, sin = rotary_tables(positions, config.head_dim, config.rope_theta, torch.float32)
    if not torch.allclose(hf[name].float(), torch.cat((sin, cos), -1), atol=1e-2):
        raise InputError(
            f"{name} is not the table of sines and cosines: a RoFormer with trained angles is not supported"
        )


def _modern_spelling(name: str) -> str:
    """TensorFlow's gamma and beta, in checkpoints from before 2019, are weight and bias."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


# ---- directories ----
def read_config(directory: Path) -> BertConfig:
    """The configuration in ``directory/config.json``."""
    path = directory / "config.json"
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory: give a trained run or a Hugging Face model directory")
    if not path.is_file():
        raise InputError(f"{directory}: holds no config.json: give a trained run or a Hugging Face model directory")
    hf = read_object(path, "copy the file again from its source")
    return config_from_hf(hf, str(path))


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory under Hugging Face's names, on the CPU."""
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    old = directory / "pytorch_model.bin"
    if single.is_file():
        return read_safetensors(single)
    if index.is_file():
        fields = Fields(read_object(index, "copy it again"), str(index), "copy it again").inner("weight_map")
        files = sorted({fields.text(name) for name in fields.values})
        if bad := [name for name in files if Path(name).name != name]:
            raise InputError(f"{index}: file name {bad[0]!r} leaves the directory: do not use this checkpoint")
        return {name: tensor for file in files for name, tensor in read_safetensors(directory / file).items()}
    if old.is_file():
        try:
            return torch.load(old, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"{old}: cannot be read safely ({type(error).__name__}): convert it to safetensors"
            ) from None
    raise InputError(f"{directory}: holds no model.safetensors (nor pytorch_model.bin): the model is not complete")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of one file; a file cut short or damaged raises :class:`InputError`."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: damaged or cut short ({error}): restore the file or use another checkpoint"
        ) from None


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, on any device, to one file.

    Raises:
        OSError: with its number, also where the library hides it in a message.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    # the library makes the file readable for its owner only; a run is as readable as the rest of its directory
    path.chmod(path.parent.stat().st_mode & 0o666)


def write_model(state: Mapping[str, Tensor], config: BertConfig, directory: Path) -> None:
    """Write a pretrained model's ``config.json`` and ``model.safetensors``."""
    write_directory(state_dict_to_hf(state, config), config_to_hf(config), directory)


def write_directory(tensors: Mapping[str, Tensor], config: Mapping[str, object], directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, in Hugging Face's names already: both or neither."""
    directory.mkdir(parents=True, exist_ok=True)
    # both are written before either takes its place
    with written_whole(directory / "config.json") as text, written_whole(directory / "model.safetensors") as weights:
        write_safetensors(tensors, weights)
        text.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
