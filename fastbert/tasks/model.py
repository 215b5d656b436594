"""An encoder with the head of a task, packed, in Hugging Face layout both ways.

Legend: B rows, T packed tokens, P positions, D hidden_size, C outputs.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastbert.batch import PackedBatch
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.system.json_files import read_object
from fastbert.weights import huggingface

Head = Literal["sequence", "token", "span"]
HEAD_OF = {"classification": "sequence", "regression": "sequence", "tagging": "token", "qa": "span"}
# sequence heads of two layers: their names in Hugging Face, and what stands between
_TWO_LAYERS = {
    "roformer": ("classifier.dense", "classifier.out_proj"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "electra": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}
_BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {"roberta": torch.tanh, "electra": F.gelu, "distilbert": F.relu}
_SUFFIX = {"sequence": "ForSequenceClassification", "token": "ForTokenClassification", "span": "ForQuestionAnswering"}
SETTINGS = "fastbert"  # the field of config.json with the settings that transformers does not have


@dataclass(frozen=True)
class TaskSettings:
    """What a model was fine-tuned for; stored in ``config.json``."""

    task: str  # classification, regression, tagging, qa
    labels: tuple[str, ...] = ()  # in the order of their ids
    pairs: bool | None = None  # two texts per example; None: unknown (not our model)
    max_length: int = 256  # tokens of a row
    stride: int = 128  # tokens by which the windows of a context overlap
    unanswerable: bool = True  # whether it may answer that there is no answer
    max_answer_tokens: int = 60  # the longest answer
    multi_label: bool = False  # a text may have several labels, or none
    windows: bool = False  # whether texts longer than max_length are split into windows, not truncated
    sigmoid: bool = False  # whether a single number is the sigmoid of the head's
    thresholds: tuple[float, ...] = ()  # probability from which a text has a label, for each; none: 0.5

    @property
    def head(self) -> str:
        return HEAD_OF[self.task]

    @property
    def num_outputs(self) -> int:
        return {"regression": 1, "qa": 2}.get(self.task, len(self.labels))

    @property
    def kind(self) -> str:
        """The task, where several labels per text are one of their own."""
        return "multilabel" if self.multi_label else self.task


class TaskModel(nn.Module):
    """A pretrained encoder with a head, equal to the models of transformers.

    Sequence: classic pools by tanh(dense([CLS])), its relatives have dense → tanh, GELU or ReLU, ModernBERT its
    prediction head after [CLS] or mean pooling. Token and span: a linear layer on every token (ModernBERT: after its
    prediction head).

    Args:
        backbone: the encoder, with the pooler or prediction head that some heads use.
        settings: the task.
        dropout: before the classifier in training; the encoder's is in ``backbone.config``.
        pooling: "cls" or "mean", for ModernBERT's sequence head.
    """

    def __init__(
        self, backbone: BertForPreTraining, settings: TaskSettings, *, dropout: float = 0.0, pooling: str = "cls"
    ):
        super().__init__()
        self.backbone, self.settings, self.pooling = backbone, settings, pooling
        self.dropout_p = dropout
        width, std = backbone.config.hidden_size, backbone.config.initializer_range
        two_layers = settings.head == "sequence" and backbone.config.arch in _TWO_LAYERS
        self.dense = nn.Linear(width, width) if two_layers else None
        self.classifier = nn.Linear(width, settings.num_outputs)
        for linear in (self.dense, self.classifier):
            if linear is not None:
                nn.init.normal_(linear.weight, std=std)
                nn.init.zeros_(linear.bias)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.backbone.device

    def forward(self, batch: PackedBatch) -> Tensor:
        """Logits: (B, C) of a sequence head, (P, C) at ``batch.masked_index`` of a token head, (T, 2) of a span."""
        return self.logits_of(self._hidden_states(batch))

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Logits (…, C) of the hidden states (…, D) that the head reads."""
        backbone, sequence = self.backbone, self.settings.head == "sequence"
        if backbone.config.arch == "modern":
            hidden = backbone.head(hidden)
        elif sequence and backbone.pooler is not None:
            hidden = torch.tanh(backbone.pooler(hidden))
        if backbone.config.arch != "distilbert" or not sequence:
            hidden = F.dropout(hidden, self.dropout_p, self.training)
        if self.dense is not None:
            hidden = self._between(self.dense(hidden))
            hidden = F.dropout(hidden, self.dropout_p, self.training)
        return self.classifier(hidden).float()

    def _between(self, hidden: Tensor) -> Tensor:
        config = self.backbone.config
        if config.arch == "roformer":
            return F.gelu(hidden, approximate=config.gelu_approximate)
        return _BETWEEN[config.arch](hidden)

    def _hidden_states(self, batch: PackedBatch) -> Tensor:
        """The hidden states that the head reads; the last layer computes no others."""
        if self.settings.head == "span":
            return self.backbone.encode(batch)
        if self.settings.head == "token":
            return self.backbone.encode(batch, batch.masked_index)
        if self.pooling == "cls":
            return self.backbone.encode(batch, batch.cu_seqlens[:-1].long())
        return mean_pooled(self.backbone.encode(batch), batch.cu_seqlens)

    def loss(
        self, batch: PackedBatch, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy, squared error, or the mean of the cross-entropies of start and end.

        Args:
            batch: of rows.
            targets: (B,) or (P,) classes, (B, C) of 0 and 1 with several labels per text, (B,) numbers, (B, 2) tokens.
            weights: (C,) of the classes.
            smoothing: share of the target that all classes get.
        """
        logits = self(batch)
        if self.settings.task == "regression":
            return F.mse_loss(logits.squeeze(-1), targets)
        if self.settings.head == "span":
            return F.cross_entropy(spread_rows(logits, batch), targets)
        if self.settings.multi_label:
            smoothed = targets * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, smoothed, weights)
        return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing)

    def on(self, backbone: BertForPreTraining) -> "TaskModel":
        """A copy of the head on another copy of the encoder."""
        copied = TaskModel(backbone, self.settings, dropout=self.dropout_p, pooling=self.pooling)
        head = {name: p for name, p in self.state_dict().items() if not name.startswith("backbone.")}
        copied.load_state_dict(head, strict=False)
        return copied.eval()

    # ---- directories ----
    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` as the stock class of this head reads them."""
        huggingface.write_directory(self.hf_state(), self.hf_config(), Path(directory))

    def hf_state(self) -> dict[str, Tensor]:
        config, head = self.backbone.config, self.settings.head
        state = huggingface.state_dict_to_hf(self.backbone.state_dict(), config)
        dropped = ["cls.", "decoder.", "lm_head.", "generator_", "vocab_"]
        if head != "sequence":
            dropped.append("bert.pooler.")
        state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(dropped))}
        for ours, theirs in _head_names(config.arch, head).items():
            state |= {f"{theirs}.{n}": p.data for n, p in getattr(self, ours).named_parameters()}
        return {name: tensor.contiguous() for name, tensor in state.items()}

    def hf_config(self) -> dict[str, Any]:
        config, settings = self.backbone.config, self.settings
        labels = settings.labels or tuple(f"LABEL_{i}" for i in range(settings.num_outputs))
        hf = huggingface.config_to_hf(config) | {
            "architectures": [huggingface.class_prefix(config) + _SUFFIX[settings.head]],
            "classifier_dropout": self.dropout_p,
            "id2label": {str(i): name for i, name in enumerate(labels)},
            "label2id": {name: i for i, name in enumerate(labels)},
            SETTINGS: asdict(settings),
        }
        if settings.head == "sequence":
            kinds = {"regression": "regression", "multilabel": "multi_label_classification"}
            hf["problem_type"] = kinds.get(settings.kind, "single_label_classification")
        if config.arch == "modern":
            hf["classifier_pooling"] = self.pooling
        return hf

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, backbone: BertForPreTraining | None = None, impl: str = "auto"
    ) -> "TaskModel":
        """Read a directory with a task head, ours or Hugging Face's.

        Args:
            backbone: the encoder of that directory, if it is already loaded.

        Raises:
            InputError: no such head, or a damaged one.
        """
        directory = Path(directory)
        hf = read_object(directory / "config.json", "Try: a directory written by python -m fastbert.finetune")
        settings = settings_of(hf, str(directory))
        if settings is not None and SETTINGS not in hf:
            settings = as_their_libraries(settings, hf, directory)
        if settings is None:
            raise InputError(f"{directory}: has no task head ({hf.get('architectures')}). Try: fastbert.finetune")
        backbone = backbone or BertForPreTraining.from_pretrained(directory, impl=impl)
        if backbone.config.arch == "modern" and hf.get("classifier_activation", "gelu") != hf.get(
            "hidden_activation", "gelu"
        ):
            raise InputError(f"{directory}: classifier_activation differs from hidden_activation: not supported")
        read = {"modern": ("head.dense", "head.norm"), "classic": ("pooler",)}.get(backbone.config.arch, ())
        if settings.head != "sequence" and backbone.config.arch != "modern":
            read = ()
        if missing := [name for name in backbone.fresh if name.startswith(read) and read]:
            raise InputError(f"{directory}: the weights lack {missing[0]} of the head. Try: the complete model")
        dropout = hf.get("classifier_dropout")
        model = cls(
            backbone,
            settings,
            dropout=backbone.config.hidden_dropout_prob if dropout is None else float(dropout),
            pooling=hf.get("classifier_pooling", "cls") if backbone.config.arch == "modern" else "cls",
        )
        load_head(model, directory)
        return model.eval()


class PaddedHead(nn.Module):
    """The head of a model on padded hidden states, as ONNX files have it."""

    def __init__(self, model: TaskModel):
        super().__init__()
        self.model = model

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("start_logits", "end_logits") if self.model.settings.head == "span" else ("logits",)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """(B, C) of a sequence head, (B, L, C) of a token head, two (B, L) of a span head; from (B, L, D)."""
        if self.model.settings.head == "sequence":
            real = (attention_mask != 0).unsqueeze(-1)
            mean = self.model.pooling == "mean"
            hidden = (hidden * real).sum(1) / real.sum(1).clamp(min=1) if mean else hidden[:, 0]
        logits = self.model.logits_of(hidden)
        return logits.unbind(-1) if self.model.settings.head == "span" else (logits,)


def settings_of(hf: dict[str, Any], source: str = "config.json") -> TaskSettings | None:
    """The task of a Hugging Face configuration; None without a task head.

    Raises:
        InputError: a head that is not supported, or labels that are invalid.
    """
    architecture = (hf.get("architectures") or [""])[0]
    head = next((name for name, suffix in _SUFFIX.items() if str(architecture).endswith(suffix)), None)
    if head is None:
        return None
    named = hf.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(hf.get("num_labels", 2)))}
    try:
        labels = tuple(str(named[key]) for key in sorted(named, key=int))
        whole = sorted(map(int, named)) == list(range(len(named)))
    except (ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{source}: id2label does not map numbers from 0 to names. Try: copy the file again")
    problem = hf.get("problem_type")
    multi_label = head == "sequence" and problem == "multi_label_classification"
    one = len(labels) == 1 and not multi_label
    if head == "sequence":
        if len(labels) > 1 and problem not in (None, "single_label_classification", "multi_label_classification"):
            raise InputError(
                f"{source}: problem_type is {problem!r:.40} with {len(labels)} labels, not supported. "
                "Try: single_label_classification, if one of the labels is right"
            )
        if twice := [name for name in labels if labels.count(name) > 1]:
            raise InputError(f"{source}: id2label has {twice[0]!r:.40} twice. Try: names that differ")
    task = {"token": "tagging", "span": "qa"}.get(head, "regression" if one else "classification")
    longest = int(hf.get("max_position_embeddings", 512))
    if task == "qa":  # a context is read in windows
        longest = min(longest, 512)
    kept = hf.get(SETTINGS)
    kept = kept if isinstance(kept, dict) and kept.get("task") == task else {}
    known = {f.name for f in fields(TaskSettings)} - {"task", "labels", "multi_label"}
    # transformers answers every question, unless it is told otherwise
    chosen = {"max_length": longest, "unanswerable": task != "qa" or bool(kept)} | {
        name: value for name, value in kept.items() if name in known
    }
    chosen["thresholds"] = tuple(chosen.get("thresholds", ()))
    if len(chosen["thresholds"]) not in (0, len(labels)):
        raise InputError(
            f"{source}: {len(chosen['thresholds'])} thresholds for {len(labels)} labels. Try: {source} again"
        )
    return TaskSettings(task, () if task in ("regression", "qa") else labels, multi_label=multi_label, **chosen)


def as_their_libraries(settings: TaskSettings, hf: dict[str, Any], directory: Path) -> TaskSettings:
    """The settings of a head of transformers or sentence-transformers, with what other files of its directory say.

    Texts are truncated to ``model_max_length``. A single number is a sigmoid, unless ``problem_type`` is regression or
    a cross-encoder names another activation.

    Raises:
        InputError: an activation that is not supported.
    """

    def read(name: str) -> dict[str, Any]:
        path = directory / name
        return read_object(path, "copy the file again from its source") if path.is_file() else {}

    length = read("tokenizer_config.json").get("model_max_length")
    if isinstance(length, int | float) and 8 <= length < settings.max_length:
        settings = replace(settings, max_length=int(length))
    if settings.task != "regression":
        return settings
    inner = hf.get("sentence_transformers")
    named = [
        read("config_sentence_transformers.json").get("activation_fn"),
        inner.get("activation_fn") if isinstance(inner, dict) else None,
        hf.get("sbert_ce_default_activation_function"),
    ]
    usual = "Identity" if hf.get("problem_type") == "regression" else "Sigmoid"
    kind = str(next((name for name in named if name), usual)).rpartition(".")[2]
    if kind not in ("Identity", "Sigmoid"):
        raise InputError(f"{directory}: activation_fn is {kind!r:.40}, not supported. Try: Identity or Sigmoid")
    return replace(settings, sigmoid=kind == "Sigmoid")


def require_token_types(config: BertConfig) -> None:
    """Check that a model can tell two texts of a row apart, if it has token types at all.

    Raises:
        InputError: it has a single token type.
    """
    if config.type_vocab_size == 1:
        raise InputError("the model has one token type (type_vocab_size 1), pairs need two. Try: single texts")


def load_head(model: TaskModel, directory: Path) -> None:
    """Read the weights of a head of the same task and labels.

    Raises:
        InputError: missing, or of another shape.
    """
    weights = huggingface.canonical_names(huggingface.read_weights(directory), model.backbone.config, str(directory))
    for ours, theirs in _head_names(model.backbone.config.arch, model.settings.head).items():
        _load_linear(getattr(model, ours), weights, theirs, directory)


def _head_names(arch: str, head: str) -> dict[str, str]:
    """Our module → its name in Hugging Face."""
    if head == "sequence" and arch in _TWO_LAYERS:
        return dict(zip(("dense", "classifier"), _TWO_LAYERS[arch], strict=True))
    return {"classifier": "qa_outputs" if head == "span" and arch != "modern" else "classifier"}


def _load_linear(linear: nn.Linear, weights: dict[str, Tensor], name: str, directory: Path) -> None:
    for part in ("weight", "bias"):
        tensor, own = weights.get(f"{name}.{part}"), getattr(linear, part)
        if tensor is None or tensor.shape != own.shape:
            got = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise InputError(f"{directory}: {name}.{part} is {got}, expected {tuple(own.shape)}. Try: the whole model")
        own.data.copy_(tensor)


def spread_rows(logits: Tensor, batch: PackedBatch) -> Tensor:
    """(T, 2) → (B, L, 2), minus infinity after the end of a row."""
    lengths = batch.cu_seqlens.diff().long()
    row = torch.arange(len(lengths), device=logits.device).repeat_interleave(lengths)
    padded = logits.new_full((len(lengths) * batch.max_seqlen, logits.shape[-1]), float("-inf"))
    padded = padded.index_copy(0, row * batch.max_seqlen + batch.position_ids, logits)
    return padded.view(len(lengths), batch.max_seqlen, -1)


def mean_pooled(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T, D) → (B, D): the mean of each sequence's tokens, in float32."""
    lengths = cu_seqlens.diff().long()
    row = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
    total = torch.zeros(len(lengths), hidden.shape[-1], dtype=torch.float32, device=hidden.device)
    return total.index_add(0, row, hidden.float()) / lengths.clamp(min=1)[:, None]
