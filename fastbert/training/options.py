"""The options of ``python -m fastbert.train`` and their validation, before any data is read."""

import os
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from fastbert.optim.schedules import DEFAULT_BETA1, EARLIER_DECAY_TIMESCALE, BatchRamp, RateSchedule
from fastbert.runs.trackers import names_of
from fastbert.system.cli import unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import flag, require, require_positive, require_seed
from fastbert.text.word_counts import SPECIAL_TOKENS, check_special_tokens
from fastbert.training.source_files import absolute

Preset = Literal["tiny", "mini", "small", "base", "large"]


@dataclass(frozen=True)
class TrainOptions:
    """Train a BERT on your own text: vocabulary, model, evaluation and filled masks in one command.

    Without options it trains a Portuguese model on the works of Machado de Assis in five minutes.
    """

    # section of --help -> its first option
    help_sections: ClassVar[dict[str, str]] = {
        "data": "data",
        "model": "preset",
        "training_length": "minutes",
        "optimizer": "optimizer",
        "evaluation": "evaluations",
        "checkpoints": "resume",
        "machine": "log",
    }

    data: list[str] = field(default_factory=lambda: ["bundled:pt"])
    """Files, globs, directories, URLs, "-" (standard input), bundled:pt or bundled:en. Blank lines separate documents
    in .txt; records (.jsonl, .json, .csv, .tsv, .parquet, .arrow) need --text-field; all may be compressed (.gz, .xz,
    .bz2, .zst). Look first with `python -m fastbert.inspect`. Or one directory written by `python -m
    fastbert.tokenize`, used with its vocabulary."""
    output: Annotated[str | None, unset("DIR")] = None
    """Run directory (default: the next free of runs/001, runs/002 …)."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Text field of records (default: "text"). "a.b" is field b of the object in field a; "a,b" joins two fields."""
    replay: Annotated[str | None, unset("DATA:SHARE")] = None
    """With --init: mix in the old text, so that it is not forgotten: that SHARE of each batch's tokens, such as
    old.txt:0.2. A part of it is held out, and the loss there printed."""
    documents: str = "blank"
    """What ends a document of plain text: a blank line, every line (line), only the file (file), or a separator, such
    as "<|endoftext|>". Records are always documents."""
    normalize: Literal["nfc", "none"] = "nfc"
    """nfc composes letters and their accents to one character, as most texts have them; none keeps the text as it
    is."""
    max_length: int = 128
    """Maximum sequence length in tokens, special tokens included."""
    tokenizer: Annotated[str | None, unset("DIR")] = None
    """Directory with a vocab.txt, used instead of training a vocabulary."""
    vocab_size: int = 8192
    """Size of the vocabulary to train; a small text yields a smaller one."""
    add_words: Annotated[str | None, unset("FILE")] = None
    """Add the words of this file, one a line, to the vocabulary of --init or --tokenizer, as one piece each."""
    extend_vocab: Annotated[int | None, unset("N")] = None
    """Add the N pieces to the vocabulary of --init or --tokenizer that shorten the text of --data most."""
    lowercase: bool = False
    """Train an uncased vocabulary; accents are kept unless --strip-accents is given. Or read a vocab.txt as uncased
    whose directory does not say it."""
    no_lowercase: bool = False
    """Read such a vocab.txt as cased (default: as its entries are)."""
    strip_accents: bool = False
    """Strip accents: "é" becomes "e". Not for Portuguese, where accents distinguish words."""
    no_chinese_chars: bool = False
    """Chinese characters are parts of words, as other letters are; by default each is a word."""
    split: Literal["punctuation", "whitespace"] = "punctuation"
    """Where words are divided: at blanks and at punctuation, or only at blanks (whitespace), as codes and
    formulas may want it."""
    single_digits: bool = False
    """Each of the digits 0 to 9 is a word; by default "2024" can be one piece."""
    special_tokens: list[str] = field(default_factory=list)
    """Further special tokens, such as "<user>" "[CITE]": one token each wherever they stand in the text, learned as
    other tokens are. With --init or --tokenizer they are added to that vocabulary."""
    max_word_chars: Annotated[int | None, unset("N")] = None
    """Longer words become one [UNK], such as sequences of DNA without spaces (default: 100, or that of --tokenizer)."""
    allow_unknown: bool = False
    """Train although half of the tokens or more are [UNK]."""
    min_frequency: Annotated[int | None, unset("N")] = None
    """Minimum count of a pair of pieces to be merged (default: 2; 1 for a text under 100 kB)."""
    mask_rate: str = "0.3"
    """Share of tokens to mask in training; or START:END, which changes linearly during the run (such as 0.3:0.15), or
    START:END:cosine. Evaluation always masks 0.15."""
    mask_unit: Literal["token", "word", "span"] = "token"
    """Mask single pieces, whole words, or spans of several words."""

    preset: Annotated[Preset | None, unset("tiny|mini|small|base|large")] = None
    """Model size, layers × width: tiny 2×128, mini 4×256, small 4×512, base 12×768, large 24×1024 (default: base on a
    GPU; on a CPU tiny or mini, whichever learns more in the minutes at the speed measured here, mini with --steps, tiny
    for a text under 50,000 tokens)."""
    arch: Annotated[Literal["classic", "roformer", "modern"] | None, unset("classic|roformer|modern")] = None
    """classic: BERT; roformer: BERT with rotary positions; modern: ModernBERT's layout with rotary positions, pre-norm
    and GeGLU (default: modern; classic for mlm+nsp)."""
    objective: Literal["mlm", "mlm+nsp", "diffusion"] = "mlm"
    """Masked language modeling; with next-sentence prediction (classic only); or diffusion, for text generation: each
    sequence has its own masking rate, from nearly 0 to 1."""
    init: Annotated[str | None, unset("DIR")] = None
    """Start from the weights of this run or Hugging Face directory, with its vocabulary unless --tokenizer is given;
    each row then goes with its piece, and that of a new piece begins as the mean of its old pieces."""
    init_share: Annotated[float | None, unset("SHARE")] = None
    """With --init: the result is an average of the weights it began with and the trained ones, with this SHARE of the
    former (default: 0.6 with Muon, 0.3 with AdamW, which forgets less; 0 keeps the trained ones as they are)."""
    window: Annotated[int | None, unset("N")] = None
    """modern: local attention to N tokens on each side in two of three layers, as in ModernBERT (64 there; default:
    full attention in all layers)."""
    dropout: float = 0.0
    """Dropout of hidden states and attention weights."""
    seed: int = 0
    """Seed of weights, data order and masks."""

    minutes: Annotated[float | None, unset("X")] = None
    """Minutes for the whole command, data preparation and final evaluation included (default: 5)."""
    steps: Annotated[int | None, unset("N")] = None
    """Optimizer steps, instead of minutes; such a run is reproducible bit for bit."""
    batch_tokens: Annotated[int | None, unset("N")] = None
    """Tokens per step, over all ranks (default: 2048 on a CPU, 65536 on a GPU)."""
    batch_ramp: Annotated[str | None, unset("FROM[:SHARE]")] = None
    """Start with FROM tokens per step and grow, in multiples of FROM, to --batch-tokens over this SHARE of the run (0.5
    if omitted), such as 512:0.3; passes have FROM tokens (default: no ramp)."""
    micro_batch_tokens: Annotated[int | None, unset("N")] = None
    """Approximate tokens per forward pass on a device; gradients of larger batches are accumulated over several passes
    (default: the whole batch of a rank)."""

    optimizer: Annotated[Literal["muon", "adamw"] | None, unset("muon|adamw")] = None
    """Muon for the matrices of encoder layers and AdamW for the rest, or AdamW for everything (default: muon; with
    --init the one that trained its weights, adamw for those of others)."""
    learning_rate: Annotated[float | None, unset("X")] = None
    """Peak learning rate of AdamW (default: 0.002 at 2,000 steps, scaled by the cube root of 2,000 / steps; fixed with
    --optimizer adamw, for texts small enough to memorize, and with --init; 0.0005 with --init and adamw)."""
    muon_learning_rate: Annotated[float | None, unset("X")] = None
    """Peak learning rate of Muon (default: 0.02, scaled likewise; 0.01 with --init)."""
    weight_decay: Annotated[float | None, unset("X")] = None
    """Decoupled weight decay of matrices and embeddings (default: by --decay-timescale; 0.01 with --init, --optimizer
    adamw and texts small enough to memorize)."""
    decay_timescale: Annotated[float | None, unset("SHARE")] = None
    """Share of the run that 1/(learning rate × weight decay) of Muon is: matrices forget in that time what they were
    (default: 0.2; without effect for texts small enough to memorize)."""
    beta1: Annotated[float | None, unset("SHARE")] = None
    """Share of the earlier gradients in AdamW's mean (default: 0.5 beside Muon; 0.9 with --optimizer adamw, with --init
    and for texts small enough to memorize)."""
    vector_scale: Annotated[float | None, unset("X")] = None
    """Learning rate of AdamW's biases and gains, times --learning-rate (default: 8 beside Muon; 1 with --optimizer
    adamw, with --init and for texts small enough to memorize)."""
    warmup: Annotated[float | None, unset("SHARE")] = None
    """Share of the run, at its start, in which the learning rates rise (default: 0.02; 0.1 with --init)."""
    decay: Annotated[float | None, unset("SHARE")] = None
    """Share of the run, at its end, in which they fall to zero (default: AdamW's in 0.4 beside Muon; 0.6 with
    --optimizer adamw and texts small enough to memorize; 0.9 with --init)."""
    muon_decay: Annotated[float | None, unset("SHARE")] = None
    """The same of Muon's (default: --decay; 0.8 where AdamW's falls in 0.4)."""
    clip_norm: float = 1.0
    """Maximum gradient norm (0: no limit)."""

    evaluations: int = 10
    """Evaluations during the run, evenly spaced."""
    eval_tokens: int = 16_384
    """Tokens per evaluation during the run, spread over the held-out text; the final evaluation uses eight times as
    many."""
    heldout_fraction: float = 0.05
    """Share of the text, by document, that is held out for evaluation."""
    eval_data: list[str] = field(default_factory=list)
    """Evaluate on this text instead and train on all of --data; formats as for --data, with the same --text-field."""

    resume: bool = False
    """Resume the run in --output (default: the newest in runs/) from its newest complete checkpoint."""
    checkpoint_every: Annotated[int | None, unset("N")] = None
    """Steps between checkpoints (default: 500, more if that would take over 1 % of the time; 0: only at the end)."""
    keep_last: int = 2
    """Newest checkpoints to keep (0: all)."""
    keep_every: int = 0
    """Also keep checkpoints at multiples of this step (0: none)."""
    stop_after: Annotated[int | None, unset("N")] = None
    """Save and stop after this step, as Ctrl-C does; continue with --resume."""

    log: str = "tensorboard"
    """Where the curves go besides metrics.jsonl, separated by commas: tensorboard, trackio, wandb (offline unless
    WANDB_MODE says otherwise), or none. The last two are installed with pip by these names."""
    watch: bool = False
    """Show the run live in a browser, at the address that is printed (needs: pip install 'fastbert[serve]')."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda, cuda:1 … (default: a GPU if there is one)."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of the model (auto: bf16 on devices with bf16 instructions)."""
    impl: Literal["auto", "reference", "triton", "cpp"] = "auto"
    """Implementation of the ops; see `python -m fastbert.info`."""
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """Record a step on a GPU as CUDA graphs and replay them, so that the GPU does not wait for Python (auto: on a
    single GPU; on: or refuse to start)."""
    shard: bool = False
    """Shard weights and optimizer state over the ranks of torchrun (FSDP2), for models too large for one device."""

    @property
    def next_sentence(self) -> bool:
        return self.objective == "mlm+nsp"

    @cached_property
    def mask_rates(self) -> RateSchedule:
        """``mask_rate``, read."""
        return RateSchedule.parse(self.mask_rate)

    @cached_property
    def replayed(self) -> tuple[str | None, float]:
        """``replay``, read: its text and its share of a batch; (None, 0.0) without."""
        return (None, 0.0) if self.replay is None else parse_replay(self.replay)

    @cached_property
    def trackers(self) -> list[str]:
        """``log``, read."""
        return names_of(self.log)

    @property
    def case(self) -> bool | None:
        """Whether a given vocabulary is uncased, as far as the options say."""
        return False if self.no_lowercase else True if self.lowercase else None


# options that may change when a run is resumed
CHANGEABLE = (
    "output", "resume", "minutes", "steps", "evaluations", "checkpoint_every", "keep_last", "keep_every", "stop_after",
    "log", "watch", "threads", "device", "impl", "cuda_graphs", "shard", "micro_batch_tokens", "init_share",
)  # fmt: skip


def check(options: TrainOptions) -> None:
    """Raise InputError for values that are wrong whatever the data."""
    if options.minutes is not None and options.steps is not None:
        raise InputError("--minutes and --steps exclude each other. Try: one of them")
    if options.arch not in (None, "classic") and options.next_sentence:
        raise InputError(f"--objective mlm+nsp: --arch {options.arch} has no next-sentence head. Try: --arch classic")
    if options.objective == "diffusion" and options.mask_unit == "span":
        raise InputError(
            "--mask-unit span: has one rate for all sequences, unlike --objective diffusion. Try: token or word"
        )
    _check_vocabulary(options)
    _check_replay(options)
    require_positive(
        options, "minutes", "steps", "extend_vocab", "batch_tokens", "micro_batch_tokens", "window", "vocab_size",
        "min_frequency", "max_word_chars", "eval_tokens", "stop_after", "threads", "vector_scale", "decay_timescale",
    )  # fmt: skip
    if options.decay_timescale and (options.weight_decay is not None or options.init or options.optimizer == "adamw"):
        raise InputError(
            "--decay-timescale: is of Muon's default weight decay. Try: without --weight-decay, --init and --optimizer "
            "adamw, or without it"
        )
    amounts = "evaluations", "keep_last", "keep_every", "checkpoint_every"
    rates = "learning_rate", "muon_learning_rate", "weight_decay", "clip_norm"
    require(options, "0 or more", lambda value: 0 <= value < float("inf"), *amounts, *rates)
    require(options, "--init with it", lambda _: bool(options.init) or options.resume, "init_share")
    shares = "dropout", "warmup", "decay", "muon_decay", "heldout_fraction", "init_share"
    require(options, "a share between 0 and 1", lambda share: 0.0 <= share <= 1.0, *shares)
    require(options, "a share from 0 to below 1", lambda share: 0.0 <= share < 1.0, "beta1")
    require_seed(options)
    require(options, "at least 8 tokens", lambda length: length >= 8, "max_length")
    for option, what in (("micro_batch_tokens", "a pass"), ("batch_tokens", "a batch")):
        longest = f"at least --max-length ({options.max_length}), because {what} has whole sequences"
        require(options, longest, lambda tokens: tokens >= options.max_length, option)
    new_modern = options.arch in (None, "modern") and not options.next_sentence and not options.init
    only_there = "a new model of --arch modern, because the others have no window and --init has its own"
    require(options, only_there, lambda _: new_modern, "window")
    _ = options.mask_rates, options.trackers  # refused where they are read
    if options.batch_tokens is not None:
        BatchRamp.parse(options.batch_ramp, options.batch_tokens, options.max_length)


def _check_vocabulary(options: TrainOptions) -> None:
    try:
        check_special_tokens([*SPECIAL_TOKENS, *options.special_tokens])
    except InputError as error:
        raise InputError(f"--special-tokens {error}") from None
    for option, usual in (("split", "punctuation"), ("single_digits", False), ("no_chinese_chars", False)):
        if getattr(options, option) != usual and (options.tokenizer or options.init):
            raise InputError(f"{flag(option)}: a vocabulary that is there divides words as it does. Try: leave it out")
    if options.lowercase and options.no_lowercase:
        raise InputError("--lowercase and --no-lowercase exclude each other. Try: one of them")
    if options.no_lowercase and not (options.tokenizer or options.init):
        raise InputError("--no-lowercase: a new vocabulary is cased without it. Try: leave it out")
    for option in ("add_words", "extend_vocab"):
        if getattr(options, option) is not None and not (options.tokenizer or options.init):
            name = f"{flag(option)} {getattr(options, option)}"
            raise InputError(f"{name}: extends a vocabulary that is there. Try: with --init DIR or --tokenizer DIR")


def _check_replay(options: TrainOptions) -> None:
    if options.replay is not None:
        _, share = options.replayed
        if not options.init:
            raise InputError(f"--replay {options.replay}: mixes in the text of --init. Try: without it, or --init DIR")
        if options.batch_tokens is not None:
            replay_tokens(options.batch_tokens, share, options.max_length)


def parse_replay(text: str) -> tuple[str, float]:
    """Read "DATA:SHARE", such as "old.txt:0.2".

    Raises:
        InputError: anything else, or a share that is not between 0 and 1.
    """
    data, colon, share = text.rpartition(":")
    try:
        value = float(share) if colon and data else 0.0
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise InputError(f"--replay {text}: expected DATA:SHARE with a share between 0 and 1. Try: {data or text}:0.2")
    return data, value


def replay_tokens(batch_tokens: int, share: float, max_length: int) -> int:
    """Tokens of a batch that come from ``--replay``.

    Raises:
        InputError: one of the two parts is too small for a whole sequence.
    """
    tokens = round(share * batch_tokens)
    if min(tokens, batch_tokens - tokens) < max_length:
        least = max_length / batch_tokens
        raise InputError(
            f"--replay: a share of {share:g} of {batch_tokens} tokens leaves no room for a sequence of --max-length "
            f"({max_length}) in one part. Try: a share from {least:.2g} to {1 - least:.2g}, or a larger --batch-tokens"
        )
    return tokens


def in_folder(options: TrainOptions, folder: str | None) -> TrainOptions:
    """The options of a run that was started in ``folder``, with paths that are right in the current one."""
    if not folder or folder == os.getcwd():
        return options
    changes: dict[str, Any] = {
        name: [absolute(item, folder) for item in getattr(options, name)] for name in ("data", "eval_data")
    }
    changes |= {name: absolute(value, folder) for name in ("tokenizer", "init") if (value := getattr(options, name))}
    if options.replay:
        changes["replay"] = absolute(options.replay, folder)
    return replace(options, **changes)


def stored_options(path: str, stored_values: dict[str, Any], given: TrainOptions) -> TrainOptions:
    """The options a run began with, updated by the given ones that may change.

    Raises:
        InputError: another option is given with another value.
    """
    known = {f.name for f in fields(TrainOptions)}
    stored = TrainOptions(**{k: v for k, v in stored_values.items() if k in known})
    if stored.init and "init_share" not in stored_values:  # begun with other rates, and without averaging
        earlier: dict[str, Any] = {"learning_rate": 2e-4, "muon_learning_rate": 2e-3}
        if "replay" not in stored_values:
            earlier = {"optimizer": "muon", "learning_rate": 2e-3, "muon_learning_rate": 0.02, "weight_decay": 0.01}
        earlier["init_share"] = 0.0
        stored = replace(stored, **{name: v for name, v in earlier.items() if getattr(stored, name) is None})
    if stored.decay is None and not stored.init and "muon_decay" not in stored_values:  # both fell as one
        stored = replace(stored, decay=0.6)
    # recipes before these were options
    before: dict[str, Any] = {"beta1": DEFAULT_BETA1, "vector_scale": 1.0, "decay_timescale": EARLIER_DECAY_TIMESCALE}
    stored = replace(stored, **{name: value for name, value in before.items() if name not in stored_values})
    default = TrainOptions()
    changes = {name: getattr(given, name) for name in known if getattr(given, name) != getattr(default, name)}
    for name, value in changes.items():
        if name not in CHANGEABLE and value != getattr(stored, name):
            raise InputError(
                f"{flag(name)} cannot change when a run is resumed (it has {getattr(stored, name)!r}). "
                "Try: leave it out, or a new run"
            )
    if changes.get("minutes"):
        changes["steps"] = None
    if changes.get("steps"):
        changes["minutes"] = None
    return replace(
        stored, **{"stop_after": None, "watch": False, "shard": False, **changes, "resume": True, "output": path}
    )
