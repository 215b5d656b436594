"""From options and a token store to the parts of a run: split, loader, model, optimizers, budget, trainer."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import fastbert
from fastbert import ops
from fastbert.batch import PackedBatch
from fastbert.config import BertConfig
from fastbert.data import BatchLoader, TokenStore, split_documents
from fastbert.data.batches.masking import RateSchedule
from fastbert.data.batches.spans import DocumentSpans
from fastbert.data.batches.split import Split
from fastbert.distributed.shared_memory import SharedMemory, SharedOptimizers, can_share
from fastbert.distributed.world import World, replicate
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import (
    USUAL_LEARNING_RATE,
    USUAL_MUON_LEARNING_RATE,
    USUAL_WEIGHT_DECAY,
    BatchRamp,
    Optimizers,
    Schedule,
    is_hidden_matrix,
)
from fastbert.runs.checkpoint import Keep
from fastbert.runs.directory import RunDirectory
from fastbert.runs.metrics_log import Monitor, clock
from fastbert.system.errors import AllRanksFail, InputError
from fastbert.text import Tokenizer
from fastbert.training import estimate, memorization
from fastbert.training.budget import Budget
from fastbert.training.options import TrainOptions
from fastbert.training.prepare_data import arch_of
from fastbert.training.trainer import LoopOptions, Trainer
from fastbert.weights.huggingface import read_config

if TYPE_CHECKING:
    from fastbert.distributed.fsdp import ShardFiles

TINY_CORPUS_TOKENS = 50_000  # below: preset tiny, one thread
DEFAULT_MINUTES = 5.0
BY_HEART_STEPS = 450  # well under a minute of CPU for the tiny preset
EVALUATION_RATE = 0.15  # BERT's, whatever the training uses, so that figures compare
EVALUATION_SEED = 20_181_011  # fixed: every run answers the same questions
FINAL_EVALUATION_SCALE = 8  # tokens of the last evaluation in units of --eval-tokens
LEAST_ENDING_S = 2.0  # for one evaluation and the model


def choose_device(asked: str | None, world: World | None = None) -> torch.device:
    """The device of ``--device``, tried; without it a GPU if there is one, with this rank's number among several."""
    name = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and world is not None and world.joined:
        name = f"cuda:{world.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not usable ({str(error).splitlines()[0]}): try --device cpu") from None
    return device


def settle(options: TrainOptions, store: TokenStore, device: torch.device) -> TrainOptions:
    """Fill in what depends on the text and the hardware."""
    small = store.num_tokens < TINY_CORPUS_TOKENS
    gpu = device.type == "cuda"
    chosen: dict[str, Any] = {
        "arch": arch_of(options),
        "preset": options.preset or ("tiny" if small else "base" if gpu else "mini"),
        "batch_tokens": options.batch_tokens or max(65_536 if gpu else 2048, options.max_length),
        # a few thousand tokens give no second core enough to do
        "threads": options.threads or (1 if small and not gpu else None),
    }
    return replace(options, **chosen)


def set_threads(options: TrainOptions, world: World) -> None:
    """--threads for each rank, or its share of the cores (torchrun gives every rank one)."""
    if options.threads or world.local_size > 1:
        torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) // world.local_size))


@dataclass
class Parts:
    """What :func:`assemble` made, for training and for the end of the run."""

    trainer: Trainer
    measured_on: str  # what the final figures are of, for a reader
    final_batches: Callable[[float], Iterable[PackedBatch]]  # of the share of the last evaluation's tokens
    sentences: list[list[int]]  # of the evaluation text, for examples
    store: TokenStore


def assemble(
    run: RunDirectory,
    options: TrainOptions,
    tokenizer: Tokenizer,
    store: TokenStore,
    monitor: Monitor,
    device: torch.device,
    world: World | None = None,
    heldout_store: TokenStore | None = None,
) -> Parts:
    """Split, loader, model, optimizers, budget: everything the loop needs."""
    world = world or World()
    torch.manual_seed(options.seed)
    split = split_documents(store, fraction=options.heldout_fraction if heldout_store is None else 0.0)
    heldout: np.ndarray | DocumentSpans = split.heldout
    questions, asked_store = None, store
    if heldout_store is None:
        questions = ask_by_heart(options, store, split, tokenizer)
    else:
        heldout, asked_store = split_documents(heldout_store, fraction=0.0).train, heldout_store
    unseen = len(heldout) > 0
    if not unseen:
        heldout = split.train
        monitor.say(f"evaluation: on the training text itself ({split.reason})")
    if options.init or not unseen:  # neither weights nor texts are to be forgotten
        options = whatever_the_budget(options)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and quick_at_bf16(device))
    memory = check_memory(options, tokenizer, device, world, bf16)
    model = build_model(options, tokenizer).to(device)
    engine, optimizers, shards = distribute(options, model, world, device)
    if world.rank:
        torch.manual_seed(options.seed + (world.rank << 40))  # dropout is each rank's own
    loader = make_loader(options, store, split.train, tokenizer)

    def batches(max_tokens: int) -> Callable[[], Iterable[PackedBatch]]:
        if questions is not None:
            return lambda: [questions]
        return lambda: evaluation_batches(options, asked_store, heldout, tokenizer, max_tokens)

    minutes, steps = options.minutes, options.steps
    free = minutes is None and steps is None
    if free and questions is not None:
        steps = BY_HEART_STEPS
    elif free:
        minutes = DEFAULT_MINUTES
    trainer = Trainer(
        run,
        model,
        optimizers,
        Schedule(options.warmup, options.decay),
        Budget(minutes=minutes, steps=steps),
        loader,
        batches(options.eval_tokens),
        monitor,
        LoopOptions(
            mask_rate=RateSchedule.parse(options.mask_rate),
            evaluations=options.evaluations * (2 if questions is not None else 1),
            checkpoint_every=options.checkpoint_every,
            keep=Keep(options.keep_last, options.keep_every),
            stop_after=options.stop_after,
            stop_when_perfect=free and questions is not None,
            bf16=bf16,
            final_evaluation_scale=1.0 if questions is not None else FINAL_EVALUATION_SCALE,
            micro_batches=micro_batches(options, world),
            batch_ramp=ramp_of(options),
            identity=" ".join([tokenizer.fingerprint(), *(file.crc32 for file in store.manifest.files)][:100]),
        ),
        device,
        world,
        engine,
        shards,
    )
    budget = f"{steps:,} steps" if steps else f"{minutes:g} minutes"
    parameters = sum(p.numel() for p in model.parameters())
    monitor.say(
        f"model: {options.arch} {options.preset}, {parameters / 1e6:.1f} million parameters; {budget} on "
        f"{device.type}{'' if device.type == 'cuda' else f', threads: {torch.get_num_threads()}'}, "
        f"{'bf16' if bf16 else 'fp32'}{_ranks(world, options)}; run directory {run.path}"
    )
    say_estimate(trainer, options, memory, world)
    if questions is not None:
        measured_on = "on the training text, every word hidden in turn"
    else:
        where = "unseen documents" if unseen else "the training text"
        measured_on = f"on {where}, {EVALUATION_RATE:.0%} of the tokens, 80/10/10"

    def final_batches(share: float) -> Iterable[PackedBatch]:
        return batches(max(int(share * FINAL_EVALUATION_SCALE * options.eval_tokens), options.max_length))()

    return Parts(trainer, measured_on, final_batches, sentences_of(asked_store, heldout, limit=2000), store)


def check_memory(
    options: TrainOptions, tokenizer: Tokenizer, device: torch.device, world: World, bf16: bool
) -> estimate.Memory:
    """Predict the memory of a step before anything of its size is allocated; refuse what cannot fit."""
    assert options.preset is not None and options.batch_tokens is not None
    config = read_config(Path(options.init)) if options.init else config_of(options, tokenizer)
    with torch.device("meta"):
        named = list(BertForPreTraining(config).named_parameters())
    tokens = math.ceil(ramp_of(options).unit / (world.size * micro_batches(options, world)))
    rate = RateSchedule.parse(options.mask_rate)
    memory = estimate.predict_memory(
        config,
        sum(p.numel() for _, p in named),
        sum(p.numel() for n, p in named if is_hidden_matrix(n, p)),
        tokens=tokens,
        masked=math.ceil(tokens * max(rate.rate(0.0), rate.rate(1.0))),
        max_length=options.max_length,
        bf16=bf16,
        optimizer=options.optimizer,
        device=device.type,
        shards=world.size if options.shard else 1,
    )
    ranks_here = 1 if device.type == "cuda" else world.local_size
    estimate.refuse_too_large(
        memory, estimate.available_bytes(device), preset=options.preset, tokens=tokens, ranks_here=ranks_here
    )
    return memory


def say_estimate(trainer: Trainer, options: TrainOptions, memory: estimate.Memory, world: World) -> None:
    """Try a step, and say what the run will take; refuse minutes that are over before it could do anything."""
    (step_s,) = world.agree(trainer.rehearse())
    (prepared_s,) = world.agree(time.monotonic() - fastbert.IMPORTED_AT_S)
    budget, ramp = trainer.budget, trainer.batch_ramp
    # an evaluation goes forward only, and takes longer for its loss
    trainer.foreseen_evaluation_s = 0.4 * step_s * options.eval_tokens / ramp.unit
    tokens, step_s = ramp.mean * ramp.unit, ramp.mean * step_s
    if budget.minutes is not None:
        estimate.refuse_impossible(budget.minutes, prepared_s, step_s, ending_s=LEAST_ENDING_S)
        seconds = max(budget.minutes * 60.0 - prepared_s - budget.reserve_s, 1.0)
        steps = max(int(seconds / step_s), 1)
        takes = f"about {steps:,} steps in the {clock(seconds)} left for training"
    else:
        assert budget.steps is not None
        steps = budget.steps
        takes = f"{steps:,} steps in about {clock(steps * step_s)}, evaluations aside"
    seen = steps * min(tokens, trainer.loader.store.num_tokens)  # a short text has less than a batch
    seen_text = f"{seen / 1e6:,.1f} million" if seen >= 1e6 else f"{seen / 1e3:,.0f} thousand"
    trainer.monitor.say(f"estimate: {memory.peak / estimate.GIB:.1f} GiB of memory; {takes}: {seen_text} tokens")


def _ranks(world: World, options: TrainOptions) -> str:
    return "" if world.size == 1 else f", {world.size} ranks{', sharded' if options.shard else ''}"


def whatever_the_budget(options: TrainOptions) -> TrainOptions:
    """The usual weight decay and learning rates where none was given, in place of those that go by the length."""
    usual: dict[str, Any] = {
        "weight_decay": USUAL_WEIGHT_DECAY,
        "learning_rate": USUAL_LEARNING_RATE,
        "muon_learning_rate": USUAL_MUON_LEARNING_RATE,
    }
    return replace(options, **{name: value for name, value in usual.items() if getattr(options, name) is None})


def ramp_of(options: TrainOptions) -> BatchRamp:
    """How many tokens a step has, and in what portions."""
    assert options.batch_tokens is not None
    return BatchRamp.parse(options.batch_ramp, options.batch_tokens, options.max_length)


def micro_batches(options: TrainOptions, world: World) -> int:
    """Forward passes that a rank makes for one of the batches of a step."""
    part = ramp_of(options).unit / world.size
    return 1 if options.micro_batch_tokens is None else max(1, math.ceil(part / options.micro_batch_tokens))


def distribute(
    options: TrainOptions, model: BertForPreTraining, world: World, device: torch.device
) -> "tuple[nn.Module, Optimizers, ShardFiles | None]":
    """What runs forward, its optimizers, and where sharded optimizer state is saved."""
    settings: dict[str, Any] = {
        "optimizer": options.optimizer,
        "learning_rate": options.learning_rate,
        "muon_learning_rate": options.muon_learning_rate,
        "weight_decay": options.weight_decay,
        "clip_norm": options.clip_norm,
        "muon_dtype": torch.float32 if options.precision == "fp32" else torch.bfloat16,
    }
    if options.parallel == "memory" and not can_share(world, device):
        raise AllRanksFail("--parallel memory: needs CPU ranks of one Linux machine, started by torchrun: leave it out")
    if options.shard:
        from fastbert.distributed.fsdp import ShardedOptimizers, ShardFiles, shard

        shard(model, world, device)
        return model, ShardedOptimizers(model, **settings), ShardFiles(world)
    if world.size > 1:
        unused = () if options.next_sentence else ("pooler.", "next_sentence.")
        if options.parallel == "memory" or (options.parallel == "auto" and can_share(world, device)):
            memory = SharedMemory(model, world, options.optimizer, unused)
            return memory, SharedOptimizers(model, memory, **settings), None
        return replicate(model, world, unused), Optimizers(model, **settings), None
    return model, Optimizers(model, **settings), None


def gather_model(trainer: Trainer) -> None:
    """After training with shards: give rank 0 the whole model, for all that comes after."""
    if trainer.shards is None:
        return
    from fastbert.distributed.fsdp import full_state

    state = full_state(trainer.model, keep=trainer.world.main)
    if trainer.world.main:
        model = BertForPreTraining(trainer.model.config)
        model.load_state_dict(state)
        trainer.model = model.to(trainer.device)


def build_model(options: TrainOptions, tokenizer: Tokenizer) -> BertForPreTraining:
    dropout = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    if options.init:
        return initialised_model(options, tokenizer, dropout)
    return BertForPreTraining(config_of(options, tokenizer).replace(**dropout), impl=options.impl)


def config_of(options: TrainOptions, tokenizer: Tokenizer) -> BertConfig:
    """The configuration of a new model."""
    assert options.preset is not None and options.arch is not None
    return BertConfig.preset(
        options.preset,
        options.arch,
        vocab_size=len(tokenizer),
        max_position_embeddings=max(512, options.max_length),
        pad_token_id=tokenizer.pad_id,
        window=options.window,
    )


def initialised_model(options: TrainOptions, tokenizer: Tokenizer, dropout: dict) -> BertForPreTraining:
    """``--init``: weights from elsewhere, checked against the options."""
    assert options.init is not None
    source = BertForPreTraining.from_pretrained(options.init, impl=options.impl)
    config = source.config
    if options.max_length > config.max_position_embeddings:
        raise InputError(
            f"--max-length {options.max_length}: {options.init} has {config.max_position_embeddings} positions: "
            "choose no more"
        )
    if len(tokenizer) != config.vocab_size:
        raise InputError(
            f"--init {options.init} has {config.vocab_size:,} pieces and the vocabulary {len(tokenizer):,}: "
            "leave out --tokenizer to use the vocabulary it was trained with"
        )
    if config.arch != "classic" and options.next_sentence:
        raise InputError(
            f"--objective mlm+nsp: {options.init} is a {config.arch} model, which has no next-sentence head"
        )
    model = BertForPreTraining(config.replace(**dropout), impl=options.impl)
    model.load_state_dict(source.state_dict())
    return model


def make_loader(
    options: TrainOptions,
    store: TokenStore,
    spans: np.ndarray | DocumentSpans,
    tokenizer: Tokenizer,
    shuffle: bool = True,
) -> BatchLoader:
    return BatchLoader(
        store,
        spans,
        tokenizer,
        batch_tokens=ramp_of(options).unit,
        max_length=options.max_length,
        objective=options.objective,
        seed=options.seed,
        shuffle=shuffle,
        mask_unit=options.mask_unit if shuffle else "token",
    )


def evaluation_batches(
    options: TrainOptions, store: TokenStore, spans: np.ndarray | DocumentSpans, tokenizer: Tokenizer, max_tokens: int
) -> Iterator[PackedBatch]:
    """BERT's questions, the same for every objective; of diffusion half of the tokens are masked as in training."""
    diffusion = options.objective == "diffusion"
    for asked in (replace(options, objective="mlm"), options) if diffusion else (options,):
        loader = make_loader(asked, store, spans, tokenizer, shuffle=False)
        share = max(max_tokens // 2, options.max_length) if diffusion else max_tokens
        yield from loader.evaluation_batches(EVALUATION_RATE, seed=EVALUATION_SEED, max_tokens=share)


def quick_at_bf16(device: torch.device) -> bool:
    """GPUs from Ampere on, and CPUs with bf16 dot products; elsewhere bf16 is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and ops.bf16_is_quick()


def ask_by_heart(options: TrainOptions, store: TokenStore, split: Split, tokenizer: Tokenizer) -> PackedBatch | None:
    """Exhaustive questions for a text of a few lines, None for any other."""
    if len(split.heldout) or not memorization.small_enough(store.num_sentences, store.num_tokens):
        return None
    documents = [
        [store.gather([start], [stop - start]).tolist() for start, stop in bounds]
        for bounds in (sentence_bounds(store, span) for span in split.train)
    ]
    return memorization.questions(
        documents, tokenizer, max_length=options.max_length, next_sentence=options.next_sentence
    )


def sentence_bounds(store: TokenStore, span) -> list[tuple[int, int]]:
    """Token ranges of the sentences first … last-exclusive."""
    offsets = store.sentence_offsets[int(span[0]) : int(span[1]) + 1]
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))


def sentences_of(store: TokenStore, spans, limit: int) -> list[list[int]]:
    """Up to ``limit`` sentences of the spans, as token ids."""
    found: list[list[int]] = []
    for span in spans:
        for start, stop in sentence_bounds(store, span):
            found.append(store.gather([start], [stop - start]).tolist())
            if len(found) == limit:
                return found
    return found
