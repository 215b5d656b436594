"""The options of ``python -m fastbert.finetune`` and their validation, before any file is read."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from fastbert.system.cli import Positional, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require, require_positive


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tune a pretrained model for a task: a run of fastbert, or any BERT, RoFormer or ModernBERT directory.

    Files are JSON lines or CSV. classification and regression: {"text", "label"} or {"text_a", "text_b", "label"};
    where "label" is a list, a text may have several; pairs: two texts, with classes or numbers; tagging: {"tokens",
    "tags"}, CoNLL or BIO files; qa: {"context", "question", "answers": {"text", "answer_start"}} or SQuAD's JSON.
    """

    # section of --help -> its first option
    help_sections: ClassVar[dict[str, str]] = {
        "model_and_files": "model",
        "data": "max_length",
        "training": "epochs",
        "optimizer": "optimizer",
        "evaluation": "metric",
        "machine": "threads",
    }

    model: Positional[str]
    """Directory of the pretrained model. If it is fine-tuned for the same task and labels, its head is kept."""
    task: Literal["classification", "regression", "tagging", "qa", "pairs"]
    """The task to learn."""
    train: Annotated[str, unset("FILE")]
    """Training examples."""
    eval: Annotated[str | None, unset("FILE")] = None
    """Examples that choose the best checkpoint (default: a tenth of --train is held out, with the same shares of the
    classes)."""
    test: Annotated[str | None, unset("FILE")] = None
    """Examples for the final figures only."""
    output: Annotated[str | None, unset("DIR")] = None
    """Output directory (default: the next free of finetuned/001, finetuned/002 …)."""
    resume: bool = False
    """Go on with an interrupted training: the same command again, with --output."""

    max_length: Annotated[int | None, unset("N")] = None
    """Maximum tokens per row (default: 256; qa: 384). Longer texts are truncated, which is reported; longer sentences
    and contexts are split over several rows."""
    windows: bool = False
    """Split single texts that are longer into windows of that length: each is trained on, and the logits of a text's
    windows are averaged, here and in later predictions."""
    stride: int = 128
    """qa: tokens by which two windows of a context overlap."""
    max_answer_tokens: int = 60
    """qa: the longest answer that the model gives, in tokens."""
    limit: Annotated[int | None, unset("N")] = None
    """Maximum number of training examples, chosen at random."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field of the text, tokens or context (default: text, text_a, tokens, context …)."""
    pair_field: Annotated[str | None, unset("NAME")] = None
    """Field of the second text (default: text_b, text_pair …)."""
    label_field: Annotated[str | None, unset("NAME")] = None
    """Field of the label or tags (default: label, score, tags)."""
    label_separator: Annotated[str | None, unset("TEXT")] = None
    """classification: what separates the labels of a text that may have several, where they are one string (in CSV)."""
    label_names: list[str] = field(default_factory=list)
    """Names of integer labels or tags, from 0: O B-PER I-PER …"""

    epochs: float = 3.0
    """Passes over the training examples."""
    batch_size: Annotated[int | None, unset("N")] = None
    """Mean number of examples per step; batches are cut at equal token counts (default: 32; qa: 16 windows)."""
    dropout: float = 0.1
    """Dropout of hidden states, attention weights and the head."""
    class_weights: list[str] = field(default_factory=list)
    """balanced (rare classes count more), or LABEL=WEIGHT for some labels."""
    label_smoothing: float = 0.0
    """Share of the target that all classes get, against overconfidence."""
    freeze: Annotated[str, unset("embeddings|N|all")] = ""
    """Weights to keep as they are: embeddings, or N of the lowest layers with them, or all (only the head learns)."""
    lora: Annotated[int | None, unset("R")] = None
    """Train updates of rank R of the attention's projections instead of the encoder, and the head (needs: pip install
    'fastbert[lora]'). The output has them added, and in adapter/ by themselves, as peft reads them."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """Modern models only: what a sequence head reads, the first token or the mean of all (auto: as in config.json, or
    the mean). Heads of other architectures read the first token."""
    seed: int = 0
    """Seed of the head, the order and the dropout."""
    seeds: int = 1
    """Number of trainings with consecutive seeds; the best is kept, and mean and deviation are printed."""

    optimizer: Literal["auto", "adamw", "muon"] = "auto"
    """muon: Muon for the matrices of the layers, AdamW for the rest (auto: the optimizer of the pretraining)."""
    learning_rate: Annotated[float | None, unset("X")] = None
    """Peak learning rate of AdamW (default: 5e-5 at width 768, more for narrower models; 1e-3 with Muon)."""
    muon_learning_rate: float = 0.01
    """Peak learning rate of Muon."""
    layer_decay: float = 1.0
    """Factor of the learning rates from each layer to the one below it, such as 0.9."""
    warmup: float = 0.1
    """Fraction of the steps with a rising learning rate; then it falls linearly."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the matrices."""

    metric: Annotated[str | None, unset("NAME")] = None
    """Measure that chooses the best checkpoint; the default is the first. Classes: accuracy, macro_f1, f1 (two
    classes), mcc; several labels: micro_f1, macro_f1, exact_match, label_accuracy; numbers: pearson, spearman, mse;
    entities: f1, precision, recall, token_accuracy; answers: f1, exact_match."""
    evaluations: int = 1
    """Evaluations per epoch; 0: only at the end, with the last weights."""
    patience: int = 0
    """Stop after this many evaluations without improvement (0: never)."""
    threshold: str = "0.5"
    """Several labels per text: probability from which a text has a label; auto: for each label the one with the best F1
    on --eval."""

    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of training (auto: bf16 where the device is fast at it). Final figures are computed in fp32."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda, cuda:1 … (default: a GPU if available)."""
    impl: Literal["auto", "reference", "triton", "cpp"] = "auto"
    """Implementation of the ops; see `python -m fastbert.info`."""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def check(options: FinetuneOptions) -> None:
    """Reject bad options before reading anything."""
    require_positive(
        options, "epochs", "batch_size", "learning_rate", "muon_learning_rate", "max_length", "max_answer_tokens",
        "limit", "threads", "seeds",
    )  # fmt: skip
    counts = "evaluations", "patience", "stride", "seed", "weight_decay"
    require(options, "0 or more, below 2^63", lambda value: 0 <= value < 2**63, *counts)
    shares = "warmup", "dropout", "label_smoothing"
    require(options, "a fraction from 0, below 1", lambda share: 0.0 <= share < 1.0, *shares)
    require(options, "a factor above 0, up to 1", lambda factor: 0.0 < factor <= 1.0, "layer_decay")
    if options.threshold != "auto" and not 0.0 < _number(options.threshold) < 1.0:
        raise InputError(f"--threshold {options.threshold}: expected a probability between 0 and 1, or auto")
    if options.label_smoothing and options.task in ("regression", "qa"):
        raise InputError(f"--label-smoothing: {options.task} has no classes. Try: leave it out")
    require(options, "at least 8 tokens", lambda length: length >= 8, "max_length")
    if options.lora is not None and (options.optimizer == "muon" or options.freeze):
        other = "--optimizer muon" if options.optimizer == "muon" else f"--freeze {options.freeze}"
        raise InputError(f"--lora: trains its updates and the head, with AdamW, not {other}. Try: leave that out")
    if options.windows and options.task not in ("classification", "regression"):
        raise InputError(f"--windows: for single texts, not for {options.task}. Try: leave it out")
    if options.class_weights and options.task not in ("classification", "tagging", "pairs"):
        raise InputError(f"--class-weights: {options.task} has no classes. Try: leave it out")
    if options.resume and not options.output:
        raise InputError("--resume: needs the --output of the interrupted training. Try: --output DIR")
    if options.patience and not options.evaluations:
        raise InputError("--patience: needs evaluations during training. Try: leave out --evaluations 0")
