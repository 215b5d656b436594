"""From a plan and its text to a trainer: model, ranks, loader, and an estimate of what the run will take."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

import fastbert
from fastbert.batch import PackedBatch
from fastbert.distributed.choose import parallelize
from fastbert.distributed.world import World
from fastbert.model import BertForPreTraining
from fastbert.runs.directory import RunDirectory
from fastbert.runs.metrics_log import Monitor, clock
from fastbert.training import estimate
from fastbert.training.average_with_start import keep_start
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.loaders import EVALUATION_RATE, evaluation_batches, training_loader
from fastbert.training.plan import FINAL_EVAL_SCALE, TrainingPlan
from fastbert.training.prepare_data import TrainingText
from fastbert.training.trainer import Trainer
from fastbert.weights.state_dict import VOCABULARY_ROWS

MIN_FINISH_S = 2.0  # for one evaluation and the model
# cost of an evaluation relative to a training step: it has no backward pass
EVAL_COST = 0.4
MAX_SENTENCES = 2000  # to take examples from


@dataclass
class TrainingSetup:
    """What :func:`set_up` made, for training and for the end of the run."""

    trainer: Trainer
    measured_on: str  # what the final metrics are measured on
    final_batches: Callable[[float], Iterable[PackedBatch]]  # of a share of the final evaluation's tokens
    sentences: list[list[int]]  # of the evaluation text, for examples
    text: TrainingText


def set_up(
    run: RunDirectory,
    plan: TrainingPlan,
    text: TrainingText,
    evaluation: EvaluationText,
    monitor: Monitor,
    world: World | None = None,
) -> TrainingSetup:
    """Build the model and everything around it."""
    world = world or World()
    torch.manual_seed(plan.seed)
    for note in evaluation.notes(text) if world.main else ():
        monitor.log(note)
    memory = estimate.check_memory(plan, world)
    model = build_model(plan).to(plan.device)
    if plan.transfer is not None:
        monitor.log(f"vocabulary of {plan.init}: {plan.transfer}")
    if plan.init is not None and plan.init_share and world.main:
        keep_start(run.path, model)
    parallelism = parallelize(model, plan.mode, world, plan.device, plan.unused_parameters, plan.optimizer_settings)
    if world.rank:
        torch.manual_seed(plan.seed + (world.rank << 40))  # each rank has its own dropout
    loader = training_loader(plan, evaluation, text)

    def batches(max_tokens: int, of: EvaluationText = evaluation) -> Iterable[PackedBatch]:
        return evaluation_batches(plan, of, text.tokenizer, max_tokens)

    trainer = Trainer(plan, run, model, parallelism, loader, lambda: batches(plan.eval_tokens), monitor, world)
    if (replay := evaluation.replay) is not None:
        trainer.replay_batches = lambda: batches(plan.eval_tokens, replay)
    parameters = sum(p.numel() for p in model.parameters())
    monitor.log(
        f"model: {plan.arch} {plan.preset}, {parameters / 1e6:.1f} million parameters; {length_of(plan)} on "
        f"{machine_of(plan)}; run directory {run.path}"
    )
    log_estimate(trainer, memory)
    if evaluation.memorization is not None:
        measured_on = "on the training text, each word masked in turn"
    else:
        measured_on = f"on {evaluation.measured_on}, {EVALUATION_RATE:.0%} of the tokens, 80/10/10"

    def final_batches(share: float) -> Iterable[PackedBatch]:
        return batches(max(int(share * FINAL_EVAL_SCALE * plan.eval_tokens), plan.max_length))

    return TrainingSetup(trainer, measured_on, final_batches, evaluation.sentences(MAX_SENTENCES), text)


def build_model(plan: TrainingPlan) -> BertForPreTraining:
    """A new model, or one with the weights of ``--init``."""
    if plan.init is None:
        return BertForPreTraining(plan.config, impl=plan.impl)
    source = BertForPreTraining.from_pretrained(plan.init, impl=plan.impl)
    # files without the field may have a decoder of their own
    config = plan.config.replace(tie_word_embeddings=source.config.tie_word_embeddings)
    model = BertForPreTraining(config, impl=plan.impl)
    state = source.state_dict()
    if plan.transfer is not None:
        state = plan.transfer.state_dict(state, VOCABULARY_ROWS, config.padded_vocab_size)
    model.load_state_dict(state)
    return model


def length_of(plan: TrainingPlan) -> str:
    return f"{plan.steps:,} steps" if plan.steps else f"{plan.minutes:g} minutes"


def machine_of(plan: TrainingPlan) -> str:
    threads = "" if plan.device.type == "cuda" else f", threads: {torch.get_num_threads()}"
    precision = "bf16" if plan.dtype == torch.bfloat16 else "fp32"
    ranks = "" if plan.ranks == 1 else f", {plan.ranks} ranks{', sharded' if plan.mode == 'fsdp' else ''}"
    return f"{plan.device.type}{threads}, {precision}{ranks}"


def log_estimate(trainer: Trainer, memory: estimate.Memory) -> None:
    """Measure a step and log what the run will take; refuse minutes that would be over before the first step."""
    plan, world, budget, ramp = trainer.plan, trainer.world, trainer.budget, trainer.plan.batch_ramp
    (batch_s,) = world.broadcast(trainer.warm_up())
    (prepared_s,) = world.broadcast(time.monotonic() - fastbert.IMPORTED_AT_S)
    trainer.foreseen_speed = ramp.unit / batch_s
    trainer.estimated_eval_s = EVAL_COST * batch_s * plan.eval_tokens / ramp.unit
    tokens, step_s = ramp.mean * ramp.unit, ramp.mean * batch_s
    if plan.minutes is not None:
        estimate.refuse_impossible(plan.minutes, prepared_s, step_s, finish_s=MIN_FINISH_S)
        seconds = max(plan.minutes * 60.0 - prepared_s - budget.reserve_s, 1.0)
        steps = max(int(seconds / step_s), 1)
        takes = f"about {steps:,} steps in the {clock(seconds)} left for training"
    else:
        assert plan.steps is not None
        steps = plan.steps
        takes = f"{steps:,} steps in about {clock(steps * step_s)}, without evaluations"
    seen = steps * min(tokens, trainer.loader.store.num_tokens)  # a short text has less than a batch
    seen_text = f"{seen / 1e6:,.1f} million" if seen >= 1e6 else f"{seen / 1e3:,.0f} thousand"
    trainer.monitor.log(f"estimate: {memory.peak / estimate.GIB:.1f} GiB of memory; {takes}: {seen_text} tokens")
