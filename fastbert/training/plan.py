"""All decisions of a run, made once: every default filled in, every string parsed, the device known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fastbert.config import Arch, BertConfig
from fastbert.data.batches.loader import Objective
from fastbert.data.batches.masking import MaskUnit
from fastbert.distributed.choose import Mode, choose_mode
from fastbert.distributed.world import World
from fastbert.optim.schedules import (
    BETA1_BESIDE_MUON,
    CONTINUED_HYPERPARAMETERS,
    CONTINUED_SCHEDULE,
    CONTINUED_SHARE,
    DECAY_BESIDE_MUON,
    DECAY_TIMESCALE,
    DEFAULT_BETA1,
    DEFAULT_LEARNING_RATE,
    DEFAULT_MUON_LEARNING_RATE,
    DEFAULT_WEIGHT_DECAY,
    MUON_DECAY,
    VECTOR_SCALE_BESIDE_MUON,
    BatchRamp,
    RateSchedule,
    Schedule,
)
from fastbert.runs.checkpoint import RetentionPolicy
from fastbert.system.devices import quick_at_bf16
from fastbert.system.errors import InputError
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.new_model import Architecture, config_of, default_optimizer, transfer_of
from fastbert.training.options import TrainOptions
from fastbert.training.prepare_data import TrainingText
from fastbert.weights.vocabulary_transfer import VocabularyTransfer

TINY_CORPUS_TOKENS = 50_000  # below: preset tiny, one thread
DEFAULT_MINUTES = 5.0
MEMORIZATION_STEPS = 600  # under a minute for the tiny preset; most texts are memorized, and the run stopped, before
FINAL_EVAL_SCALE = 8  # tokens of the final evaluation, in units of --eval-tokens


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of a run; nothing behind it reads the options."""

    # model
    arch: Arch
    preset: str  # or "layers×width" of the weights of --init
    size_open: bool  # nothing has decided the preset: what the minutes allow may
    config: BertConfig  # with dropout
    init: Path | None  # weights to start from; None when a run resumes
    transfer: VocabularyTransfer | None  # of those weights to another vocabulary
    init_share: float  # of the weights it began with, in the result
    impl: str
    # machine
    device: torch.device
    dtype: torch.dtype  # float32, or bfloat16 through autocast
    threads: int | None
    mode: Mode
    ranks: int
    cuda_graphs: Literal["auto", "on", "off"]
    # batches
    objective: Objective
    mask_rate: RateSchedule
    mask_unit: MaskUnit
    max_length: int
    batch_tokens: int
    batch_ramp: BatchRamp
    micro_batches: int  # passes of a rank for one batch
    replay_share: float  # of the tokens of a batch, from --replay
    seed: int
    identity: str  # of vocabulary and text: checkpoints of another are refused
    # length: one of them is set
    minutes: float | None
    steps: int | None
    stop_after: int | None  # step
    stop_when_memorized: bool
    # optimizer
    optimizer: Literal["muon", "adamw"]
    learning_rate: float | None  # None: depends on the length of the run, as do the next two
    muon_learning_rate: float | None
    weight_decay: float | None
    beta1: float
    vector_scale: float  # of the rate of biases and gains, times AdamW's
    decay_timescale: float  # with weight_decay None: share of the run
    clip_norm: float
    muon_dtype: torch.dtype
    schedule: Schedule  # of AdamW
    muon_schedule: Schedule
    # evaluation
    evaluations: int  # during the run
    eval_tokens: int
    final_eval_scale: float  # cost of the final evaluation, in evaluations during the run
    # checkpoints
    checkpoint_every: int | None  # steps
    retention: RetentionPolicy

    def __post_init__(self) -> None:
        if self.cuda_graphs == "on" and self.eager_reason is not None:
            raise InputError(f"--cuda-graphs on: not possible here ({self.eager_reason}). Try: --cuda-graphs auto")

    @property
    def eager_reason(self) -> str | None:
        """Why the steps of this run cannot be CUDA graphs; None: they can."""
        if self.device.type != "cuda":
            return f"the device is {self.device.type}"
        return None if self.mode == "single" else "several ranks add their gradients and losses"

    @property
    def optimizer_settings(self) -> dict[str, Any]:
        """Keyword arguments of :class:`fastbert.optim.optimizers.Optimizers`."""
        names = (
            "optimizer", "learning_rate", "muon_learning_rate", "weight_decay", "beta1", "vector_scale",
            "decay_timescale", "clip_norm", "muon_dtype",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def unused_parameters(self) -> tuple[str, ...]:
        """Prefixes of the parameters that no loss reaches."""
        return () if self.objective == "mlm+nsp" else ("pooler.", "next_sentence.")

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass on one rank."""
        return math.ceil(self.batch_ramp.unit / (self.ranks * self.micro_batches))


def make_plan(
    options: TrainOptions,
    architecture: Architecture,
    text: TrainingText,
    evaluation: EvaluationText,
    device: torch.device,
    world: World,
    preset: str | None = None,
) -> TrainingPlan:
    """Settle all options, given what is known about text, device and ranks; ``preset`` decides an open size."""
    tiny, gpu = text.store.num_tokens < TINY_CORPUS_TOKENS, device.type == "cuda"
    decided = architecture.preset or preset or ("tiny" if tiny else "base" if gpu else None)
    preset = decided or "mini"
    batch_tokens = options.batch_tokens or max(65_536 if gpu else 2048, options.max_length)
    ramp = BatchRamp.parse(options.batch_ramp, batch_tokens, options.max_length)
    memorize = evaluation.memorization is not None
    open_ended = options.minutes is None and options.steps is None
    minutes = DEFAULT_MINUTES if open_ended and not memorize else options.minutes
    bf16 = options.precision == "bf16" or (options.precision == "auto" and quick_at_bf16(device))
    return TrainingPlan(
        arch=architecture.arch,
        preset=preset,
        size_open=decided is None and minutes is not None,
        config=config_of(options, architecture, preset, text.tokenizer),
        init=Path(options.init) if options.init and not architecture.resumed else None,
        transfer=transfer_of(options, architecture, text.tokenizer),
        init_share=init_share_of(options, evaluation),
        impl=options.impl,
        device=device,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        # a second core has nothing to do with a few thousand tokens
        threads=options.threads or (1 if tiny and not gpu else None),
        mode=choose_mode(options.shard, world),
        ranks=world.size,
        cuda_graphs=options.cuda_graphs,
        objective=options.objective,
        mask_rate=options.mask_rates,
        mask_unit=options.mask_unit,
        max_length=options.max_length,
        batch_tokens=batch_tokens,
        batch_ramp=ramp,
        micro_batches=micro_batches(ramp.unit / world.size, options.micro_batch_tokens),
        replay_share=options.replayed[1],
        seed=options.seed,
        identity=text.identity,
        minutes=minutes,
        steps=MEMORIZATION_STEPS if open_ended and memorize else options.steps,
        stop_after=options.stop_after,
        stop_when_memorized=open_ended and memorize,
        optimizer=options.optimizer or default_optimizer(options),
        clip_norm=options.clip_norm,
        muon_dtype=torch.float32 if options.precision == "fp32" else torch.bfloat16,
        **hyperparameters(options, evaluation),
        evaluations=options.evaluations * (2 if memorize else 1),
        eval_tokens=options.eval_tokens,
        final_eval_scale=1.0 if memorize else FINAL_EVAL_SCALE,
        checkpoint_every=options.checkpoint_every,
        retention=RetentionPolicy(options.keep_last, options.keep_every),
    )


def hyperparameters(options: TrainOptions, evaluation: EvaluationText) -> dict[str, Any]:
    """What a :class:`TrainingPlan` has of rates, decay and schedules: as given, else by the kind of run."""
    optimizer = options.optimizer or default_optimizer(options)
    schedule = CONTINUED_SCHEDULE if options.init else Schedule()
    settled: dict[str, Any] = {
        "learning_rate": None, "muon_learning_rate": None, "weight_decay": None, "beta1": DEFAULT_BETA1,
        "vector_scale": 1.0, "decay_timescale": DECAY_TIMESCALE,
    }  # fmt: skip
    decay = muon_decay = schedule.decay
    rates: Sequence[float] = ()
    if options.init:  # the weights should not be forgotten
        rates = CONTINUED_HYPERPARAMETERS[optimizer]
    elif not evaluation.unseen:  # nor the text
        rates = (DEFAULT_LEARNING_RATE, DEFAULT_MUON_LEARNING_RATE, DEFAULT_WEIGHT_DECAY)
    elif optimizer == "muon":
        decay, muon_decay = DECAY_BESIDE_MUON, MUON_DECAY
        settled |= {"beta1": BETA1_BESIDE_MUON, "vector_scale": VECTOR_SCALE_BESIDE_MUON}
    settled |= dict(zip(("learning_rate", "muon_learning_rate", "weight_decay"), rates, strict=False))
    settled |= {name: given for name in settled if (given := getattr(options, name)) is not None}
    if options.decay is not None:
        decay = muon_decay = options.decay
    if options.muon_decay is not None:
        muon_decay = options.muon_decay
    warmup = schedule.warmup if options.warmup is None else options.warmup
    return settled | {"schedule": Schedule(warmup, decay), "muon_schedule": Schedule(warmup, muon_decay)}


def init_share_of(options: TrainOptions, evaluation: EvaluationText) -> float:
    """The share of the weights of ``--init`` in the result; none for a text that is to be learned by heart."""
    if options.init is None or options.init_share is not None:
        return options.init_share or 0.0
    optimizer = options.optimizer or default_optimizer(options)
    return CONTINUED_SHARE[optimizer] if evaluation.memorization is None else 0.0


def micro_batches(tokens: float, micro_batch_tokens: int | None) -> int:
    """Passes of a rank for its ``tokens`` of a batch."""
    return 1 if micro_batch_tokens is None else max(1, math.ceil(tokens / micro_batch_tokens))
