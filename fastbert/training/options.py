"""The options of ``python -m fastbert.train``: names, units, defaults, and what is refused before anything is read."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from fastbert.system.cli import unset
from fastbert.system.errors import InputError

Preset = Literal["tiny", "mini", "small", "base", "large"]


@dataclass(frozen=True)
class TrainOptions:
    """Train a BERT on your own text: vocabulary, model, evaluation and filled masks, in one command.

    Without options it learns Portuguese from the bundled works of Machado de Assis in five minutes.
    """

    data: list[str] = field(default_factory=lambda: ["bundled:pt"])
    """Files, globs, directories, URLs, "-" (standard input), bundled:pt or bundled:en. .txt has a blank line between
    documents; .jsonl, .csv, .tsv and .parquet need --text-field; each also .gz, .xz, .bz2 or .zst. Or one directory
    that `python -m fastbert.tokenize` made: its tokens and vocabulary are taken as they are."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field that holds the text in .jsonl, .csv, .tsv and .parquet (default: "text")."""
    output: Annotated[str | None, unset("DIR")] = None
    """Directory of the run (default: the next free of runs/001, runs/002 …)."""
    resume: bool = False
    """Continue the run in --output (default: the newest in runs/) from its newest whole checkpoint."""

    preset: Annotated[Preset | None, unset("tiny|mini|small|base|large")] = None
    """Model size, layers × width: tiny 2×128, mini 4×256, small 4×512, base 12×768, large 24×1024 (default: mini on a
    CPU, base on a GPU, tiny for a text of under 50,000 tokens)."""
    arch: Annotated[Literal["classic", "roformer", "modern"] | None, unset("classic|roformer|modern")] = None
    """classic is BERT exactly; roformer is BERT with rotary positions; modern has rotary positions, pre-norm and GeGLU
    in ModernBERT's layout (default: modern; classic for mlm+nsp)."""
    objective: Literal["mlm", "mlm+nsp", "diffusion"] = "mlm"
    """Masked words; masked words and next-sentence prediction (classic only); or diffusion, for a model that writes:
    each sequence is masked at a rate of its own, from nearly none to all of it."""
    init: Annotated[str | None, unset("DIR")] = None
    """Start from this run's or Hugging Face directory's weights (and its vocabulary, unless --tokenizer is given)."""

    tokenizer: Annotated[str | None, unset("DIR")] = None
    """Directory with a vocab.txt to use instead of training a vocabulary."""
    vocab_size: int = 8192
    """Pieces of the vocabulary to be trained; a small text gives fewer."""
    min_frequency: Annotated[int | None, unset("N")] = None
    """A pair of pieces seen less often is not merged (default: 2; 1 for a text under 100 kB)."""
    lowercase: bool = False
    """Train an uncased vocabulary; accents are kept unless --strip-accents is given too."""
    strip_accents: bool = False
    """Drop accents: "é" becomes "e". It destroys words of Portuguese."""

    minutes: Annotated[float | None, unset("X")] = None
    """Minutes for the whole command, data preparation and last evaluation included (default: 5)."""
    steps: Annotated[int | None, unset("N")] = None
    """Optimizer steps, instead of minutes; such a run is repeatable bit for bit."""
    batch_tokens: Annotated[int | None, unset("N")] = None
    """Tokens in a step, of all ranks together (default: 2048 on a CPU, 65536 on a GPU)."""
    batch_ramp: Annotated[str | None, unset("FROM[:SHARE]")] = None
    """Begin with steps of FROM tokens and grow, by whole multiples of FROM, to --batch-tokens in this SHARE of the
    budget (0.5 if left out), such as 512:0.3; FROM tokens at a time go through the model (default: no ramp)."""
    micro_batch_tokens: Annotated[int | None, unset("N")] = None
    """About how many tokens go through the model at once on a device; a larger batch is taken in several passes, whose
    gradients are added up (default: a rank's whole part of the batch)."""
    max_length: int = 128
    """Tokens of the longest sequence, special tokens included."""
    window: Annotated[int | None, unset("N")] = None
    """modern: tokens to each side that a layer sees, but for every third layer, which sees all, as in ModernBERT (64
    there; default: all layers see all)."""
    mask_rate: str = "0.3"
    """Share of the tokens to be guessed in training, or FROM:TO, changing evenly over the budget (such as 0.3:0.15), or
    FROM:TO:cosine; evaluation always hides 0.15."""
    mask_unit: Literal["token", "word", "span"] = "token"
    """What is hidden: single pieces, whole words, or spans of several words."""
    heldout_fraction: float = 0.05
    """Share of the text, by document, that is kept unseen for the evaluation."""
    eval_data: list[str] = field(default_factory=list)
    """Evaluate on this held-out text instead, and train on all of --data: as --data, with the same --text-field."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the matrices of the layers and AdamW for the rest, or AdamW for everything."""
    learning_rate: Annotated[float | None, unset("X")] = None
    """Peak of AdamW (default: 0.002 for a budget of 2,000 steps, higher for a shorter and lower for a longer one, with
    its cube root; 0.002 for any with --init, --optimizer adamw and texts learned by heart)."""
    muon_learning_rate: Annotated[float | None, unset("X")] = None
    """Peak of Muon (default: 0.02, likewise)."""
    weight_decay: Annotated[float | None, unset("X")] = None
    """Decoupled weight decay of matrices and embeddings (default: so much that the matrices of a new model forget what
    they were over a tenth of the budget; 0.01 for --init, --optimizer adamw and texts learned by heart)."""
    warmup: float = 0.02
    """Share of the budget in which the learning rates rise."""
    decay: float = 0.6
    """Share of the budget, at its end, in which they fall to zero."""
    clip_norm: float = 1.0
    """Largest gradient norm (0: no limit)."""
    dropout: float = 0.0
    """Dropout of hidden states and attention weights, in training."""

    evaluations: int = 10
    """Evaluations during the run, evenly spread."""
    eval_tokens: int = 16_384
    """Tokens of an evaluation during the run, evenly over the held-out text; the last takes eight times as many."""
    checkpoint_every: Annotated[int | None, unset("N")] = None
    """Steps between checkpoints (default: 500, further apart where that would cost over 1 % of the time; 0: only at the
    end)."""
    keep_last: int = 2
    """Newest checkpoints to keep (0: all)."""
    keep_every: int = 0
    """Keep checkpoints at multiples of this step for good, too (0: none)."""
    stop_after: Annotated[int | None, unset("N")] = None
    """Save and stop after this step, as Ctrl-C does; --resume goes on."""
    seed: int = 0
    """Seed of weights, order and masks."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model (auto: bf16 where the device is quick at it)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda, cuda:1 … (default: a GPU if there is one)."""
    impl: Literal["auto", "reference", "triton", "cpp"] = "auto"
    """Implementation of the ops; see `python -m fastbert.info`."""
    shard: bool = False
    """Share weights and optimizer state out over the ranks of torchrun (FSDP2), for a model too large for one."""

    parallel: Literal["auto", "memory", "ddp"] = "auto"
    """How the ranks of torchrun that do not --shard work together: in one shared memory (CPU ranks of one machine), or
    each with a copy of everything, gradients summed over the network (auto: memory where it can)."""

    @property
    def next_sentence(self) -> bool:
        return self.objective == "mlm+nsp"


# a resumed run may change these; everything else belongs to what the run is
CHANGEABLE = (
    "output", "resume", "minutes", "steps", "evaluations", "checkpoint_every", "keep_last", "keep_every", "stop_after",
    "threads", "device", "impl", "shard", "parallel", "micro_batch_tokens",
)  # fmt: skip


def check(options: TrainOptions) -> None:
    """Refuse what can be seen to be wrong before anything is read."""

    def refuse(option: str, expected: str) -> None:
        value = getattr(options, option)
        raise InputError(f"--{option.replace('_', '-')} {value}: expected {expected}")

    if options.minutes is not None and options.steps is not None:
        raise InputError("--minutes and --steps exclude each other: give one")
    if options.arch not in (None, "classic") and options.next_sentence:
        raise InputError(f"--objective mlm+nsp needs --arch classic: {options.arch} has no next-sentence head")
    if options.objective == "diffusion" and options.mask_unit == "span":
        raise InputError("--objective diffusion needs --mask-unit token or word: spans have one rate for all sequences")
    for option in (
        "minutes",
        "steps",
        "batch_tokens",
        "micro_batch_tokens",
        "window",
        "vocab_size",
        "min_frequency",
        "eval_tokens",
        "threads",
        "stop_after",
    ):
        value = getattr(options, option)
        if value is not None and value <= 0:
            refuse(option, "a positive number")
    for option in (
        "evaluations",
        "keep_last",
        "keep_every",
        "checkpoint_every",
        "learning_rate",
        "muon_learning_rate",
        "weight_decay",
        "clip_norm",
    ):
        if (getattr(options, option) or 0) < 0:
            refuse(option, "0 or more")
    for option in ("dropout", "warmup", "decay", "heldout_fraction"):
        if not 0.0 <= getattr(options, option) <= 1.0:
            refuse(option, "a share between 0 and 1")
    if not 0 <= options.seed < 2**63:
        refuse("seed", "0 or more, below 2^63")
    if options.max_length < 8:
        refuse("max_length", "at least 8 tokens")
    if options.micro_batch_tokens is not None and options.micro_batch_tokens < options.max_length:
        refuse(
            "micro_batch_tokens", f"at least --max-length ({options.max_length}): whole sequences go through the model"
        )
    if options.window is not None and (options.arch not in (None, "modern") or options.next_sentence or options.init):
        refuse("window", "a new model of --arch modern: the others have no window, and --init brings its own")
    if options.batch_tokens is not None and options.batch_tokens < options.max_length:
        refuse("batch_tokens", f"at least --max-length ({options.max_length}): a batch holds whole sequences")


def stored_options(path: str, stored_values: dict[str, Any], given: TrainOptions) -> TrainOptions:
    """The options the run began with, and of the given ones those that may change.

    Raises:
        InputError: an option was given that would make it another run.
    """
    known = {f.name for f in fields(TrainOptions)}
    stored = TrainOptions(**{k: v for k, v in stored_values.items() if k in known})
    default = TrainOptions()
    changes = {name: getattr(given, name) for name in known if getattr(given, name) != getattr(default, name)}
    for name, value in changes.items():
        if name not in CHANGEABLE and value != getattr(stored, name):
            raise InputError(
                f"--{name.replace('_', '-')} cannot change when a run is resumed "
                f"(it has {getattr(stored, name)!r}): leave it out, or start a new run"
            )
    if changes.get("minutes"):
        changes["steps"] = None
    if changes.get("steps"):
        changes["minutes"] = None
    return replace(
        stored, **{"stop_after": None, "shard": False, "parallel": "auto", **changes, "resume": True, "output": path}
    )
