"""Configuration of a model: one frozen dataclass, five presets, three architectures, and their relatives.

Field names are Hugging Face's where it has the field. Every architecture loads in stock ``transformers``:

* ``classic``: ``BertForPreTraining`` (Devlin et al. 2019): post-LayerNorm, learned positions, token types, erf GELU.
* ``roformer``: ``RoFormerForMaskedLM`` (Su et al. 2021): BERT with rotary instead of learned positions.
* ``modern``: ``ModernBertForMaskedLM`` (Warner et al. 2024): pre-LayerNorm, rotary positions, GeGLU, no biases.

Relatives of ``classic`` are read, fine-tuned and written back: ``roberta`` (Liu et al. 2019; XLM-RoBERTa and CamemBERT
too), ``distilbert`` (Sanh et al. 2019) and ``electra`` (Clark et al. 2020). Their encoders differ by the embeddings.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from fastbert.system.errors import InputError

Arch = Literal["classic", "roformer", "modern", "roberta", "distilbert", "electra"]
# Hugging Face's model_type of an encoder of BERT's shape
Family = Literal["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"]

# preset name -> (num_hidden_layers, hidden_size); one attention head for every 64 channels
PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape and behaviour of an encoder; :meth:`preset` makes the usual ones."""

    vocab_size: int = 8192
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    position: Literal["learned", "rope"] = "learned"
    norm: Literal["post", "pre"] = "post"
    mlp: Literal["gelu", "geglu"] = "gelu"
    # a token of a local layer sees |i - j| <= window; None: every layer is global
    window: int | None = None
    # with a window, layers 0, n, 2n … stay global
    global_attention_every: int = 3
    rope_theta: float = 10_000.0
    local_rope_theta: float = 10_000.0
    # "none" is the exact erf form, "tanh" the approximation (Hendrycks & Gimpel 2016)
    gelu_approximate: Literal["none", "tanh"] = "none"
    pad_token_id: int = 0
    # the first and the last token of a text, for readers of config.json; nothing here needs them
    cls_token_id: int | None = None
    sep_token_id: int | None = None
    # whose names and heads an encoder of BERT's shape has
    family: Family = "bert"
    # width of the embeddings before a projection to hidden_size; None: the same, and no projection
    embedding_size: int | None = None
    # False: the decoder has a matrix of its own
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise InputError(f"config {name}={getattr(self, name)}: expected a positive number")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"config hidden_size={self.hidden_size} is not divisible by "
                f"num_attention_heads={self.num_attention_heads}: choose a divisor"
            )
        if self.position == "rope" and self.head_dim % 2:
            raise InputError(f"rotary positions need an even head size, got {self.head_dim}")

    @classmethod
    def preset(cls, name: str, arch: Arch = "classic", **changes) -> "BertConfig":
        """Return a named size in an architecture; ``changes`` override single fields.

        Raises:
            InputError: unknown preset or architecture.
        """
        if name not in PRESETS:
            raise InputError(f"preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
        layers, hidden = PRESETS[name]
        fields: dict = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": hidden // 64}
        if arch in ("classic", "roformer"):
            fields |= {"intermediate_size": 4 * hidden, "position": "learned" if arch == "classic" else "rope"}
        elif arch == "modern":
            # a GLU has three matrices for two, so 2/3 of the width keeps the parameter count (Shazeer 2020)
            fields |= {
                "intermediate_size": round_up(8 * hidden // 3, 64),
                "position": "rope",
                "norm": "pre",
                "mlp": "geglu",
                "type_vocab_size": 0,
                "layer_norm_eps": 1e-5,
            }
        else:
            raise InputError(f"arch {arch!r} is unknown: choose 'classic', 'roformer' or 'modern'")
        return cls(**(fields | changes))

    @property
    def arch(self) -> Arch:
        """The Hugging Face architecture this configuration is."""
        shape = (self.position, self.norm, self.mlp)
        known: dict[tuple[str, str, str], Arch] = {
            ("learned", "post", "gelu"): "classic",
            ("rope", "post", "gelu"): "roformer",
            ("rope", "pre", "geglu"): "modern",
        }
        if shape not in known:
            raise InputError(
                f"position, norm, mlp = {shape}: only {', '.join(f'{k} ({v})' for k, v in known.items())} "
                "have a Hugging Face counterpart"
            )
        if known[shape] != "classic":
            return known[shape]
        relatives: dict[Family, Arch] = {"bert": "classic", "distilbert": "distilbert", "electra": "electra"}
        return relatives.get(self.family, "roberta")

    @property
    def embedding_width(self) -> int:
        """Channels of the embedding tables and of the masked-LM head."""
        return self.embedding_size or self.hidden_size

    @property
    def bias(self) -> bool:
        """Whether linear layers and LayerNorms carry biases: BERT's do, ModernBERT's do not."""
        return self.norm == "post"

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding inside the model: a multiple of 64 keeps matrix products aligned."""
        return round_up(self.vocab_size, 64)

    def is_global_layer(self, index: int) -> bool:
        return self.window is None or index % self.global_attention_every == 0

    def replace(self, **changes) -> "BertConfig":
        return dataclasses.replace(self, **changes)


def preset_of(config: BertConfig) -> str:
    """The name of the preset of this shape, or "layers×width"."""
    shape = config.num_hidden_layers, config.hidden_size
    return next((name for name, of_preset in PRESETS.items() if of_preset == shape), "{}×{}".format(*shape))
