"""``python -m fastbert.train``: raw text → vocabulary → packed, masked batches → encoder → checkpoint → filled masks.

The options are in :mod:`fastbert.training.options`, text and vocabulary come from
:mod:`fastbert.training.prepare_data`, the parts are put together in :mod:`fastbert.training.setup`, the loop is
:mod:`fastbert.training.trainer`; torch is imported only when there is something to do with it.
"""

import os
import shlex
import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.cli import run as run_command
from fastbert.system.errors import AllRanksFail, InputError
from fastbert.training.options import TrainOptions, check, stored_options

if TYPE_CHECKING:
    from fastbert.data import TokenStore
    from fastbert.distributed.world import World
    from fastbert.evaluation.examples import Evaluation
    from fastbert.runs.checkpoint import Checkpoint
    from fastbert.runs.directory import RunDirectory
    from fastbert.runs.metrics_log import Monitor
    from fastbert.text import Tokenizer
    from fastbert.training.setup import Parts


def main(options: TrainOptions) -> int:
    check(options)
    from fastbert.data.batches.masking import RateSchedule

    RateSchedule.parse(options.mask_rate)
    from fastbert.distributed.world import World
    from fastbert.optim.optimizers import BatchRamp
    from fastbert.runs.directory import RunDirectory

    if options.batch_tokens is not None:
        BatchRamp.parse(options.batch_ramp, options.batch_tokens, options.max_length)
    world = World.join(cuda=options.device is None or options.device.startswith("cuda"))
    if options.shard and not world.joined:
        raise InputError("--shard: shares a model out over the processes of torchrun: start it with torchrun")
    claimed: list[RunDirectory] = []

    # torchrun counts the restarts of each host for itself: one that has come back has seen none
    (restarts,) = world.highest(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)))

    def begin() -> dict[str, Any]:
        run, settled = claim(options, restarted=restarts > 0)
        claimed.append(run)
        return {"path": str(run.path), "options": asdict(settled), "description": run.description}

    begun = world.from_main(begin)
    run = claimed[0] if claimed else RunDirectory.follow(Path(begun["path"]), begun["description"])
    try:
        with run:
            code = train(run, TrainOptions(**begun["options"]), world)
    except InputError as error:
        if world.main:
            raise
        if isinstance(error, AllRanksFail):
            return 2  # rank 0 says it
        raise InputError(f"rank {world.rank} on {socket.gethostname()}: {error}") from None
    world.leave()
    return code


def claim(options: TrainOptions, restarted: bool = False) -> "tuple[RunDirectory, TrainOptions]":
    """The directory of a new run or of one to be continued, locked, and the options that hold there.

    Args:
        restarted: torchrun has started everything again after a death: go on with the run this job began.
    """
    from fastbert.runs.directory import RunDirectory

    job = os.environ.get("TORCHELASTIC_RUN_ID")
    # a host that joins or comes back is no death to torchrun: the name of the job tells that the run is ours
    named = job not in (None, "none") and options.output is not None
    if (restarted or named) and not options.resume and (path := RunDirectory.of_job(options.output, job, restarted)):
        options = replace(options, resume=True, output=str(path))
    if not options.resume:
        return RunDirectory.claim(options.output, options, job=job), options
    run = RunDirectory.reopen(options.output)
    try:
        options = stored_options(str(run.path), run.description["options"], options)
    except BaseException:
        run.release()
        raise
    run.description["resumed"] = run.description.get("resumed", 0) + 1
    run.description["options"] = asdict(replace(options, resume=False, stop_after=None))
    return run, options


def newest_checkpoint(run: "RunDirectory", world: "World") -> "Checkpoint | None":
    """The newest whole checkpoint, the same on every rank; None where a run was killed before its first."""
    from fastbert.runs import checkpoint

    found: list[Checkpoint] = []

    def look() -> int | None:
        checkpoint.remove_leftovers(run.path)
        if not checkpoint.list_steps(run.path):
            return None
        found.append(checkpoint.load_newest(run.path, warn=lambda line: print(f"warning: {line}", file=sys.stderr)))
        return found[0].step

    step = world.from_main(look)
    if step is None or found:
        return found[0] if found else None
    return checkpoint.load(checkpoint.folder(run.path) / f"step-{step}")


def train(run: "RunDirectory", options: TrainOptions, world: "World") -> int:
    """Prepare, train, evaluate, save, show."""
    from fastbert.runs.metrics_log import Monitor
    from fastbert.training import prepare_data, setup

    saved = None
    if options.resume:
        saved = newest_checkpoint(run, world)
    first_step, metrics_bytes = (saved.step, saved.state.get("metrics_bytes")) if saved else (0, None)
    with Monitor(run.path, first_step=first_step, metrics_bytes=metrics_bytes, main=world.main) as monitor:
        if options.resume and saved is None:
            monitor.say("the run has no checkpoint yet: it begins at its first step")
        device = setup.choose_device(options.device, world)

        def prepare() -> "tuple[Tokenizer, TokenStore, TokenStore | None]":
            corpus = prepare_data.open_corpus(options)
            tokenizer = prepare_data.get_tokenizer(run.path, options, corpus, monitor)
            store = prepare_data.get_store(run.path, options, corpus, tokenizer, monitor)
            return tokenizer, store, prepare_data.get_heldout_store(run.path, options, tokenizer, monitor)

        tokenizer, store, heldout_store = world.main_first(prepare)
        check = prepare_data.verify_beside(store, world)
        options = setup.settle(options, store, device)
        setup.set_threads(options, world)
        with check.to_blame():
            parts = setup.assemble(run, options, tokenizer, store, monitor, device, world, heldout_store)
        trainer = parts.trainer
        trainer.store_check = check
        if saved is not None:
            trainer.restore(saved)
            monitor.say(f"continuing at step {saved.step:,} from {saved.directory}")
        run.write_description(model=asdict(trainer.model.config), used_options=asdict(options))
        try:
            with check.to_blame():
                trainer.train()
                if not trainer.stopped:
                    (share,) = world.agree(trainer.final_evaluation_share)
                    result = trainer.evaluate(parts.final_batches(share))
        except BaseException:
            trainer.abandon()
            raise
        trainer.close()
        if trainer.stopped:
            monitor.say(
                f"stopped after step {trainer.step:,}; everything is saved. Go on with:\n"
                f"  python -m fastbert.train --resume --output {run.path}"
            )
            return 128 + trainer.stop_signal if trainer.stop_signal else 0
        setup.gather_model(trainer)
        if world.main:
            finish(run, parts, monitor, result)
        return 0


def finish(run: "RunDirectory", parts: "Parts", monitor: "Monitor", result: "Evaluation") -> None:
    """The model in the run directory, the last evaluation's result, the picture, and what the model can do."""
    from fastbert.bert import Bert
    from fastbert.evaluation import probes
    from fastbert.evaluation.examples import fill_examples, readable
    from fastbert.runs.metrics_log import clock, draw_curves
    from fastbert.text import Tokenizer
    from fastbert.training.trainer import PERFECT_ENOUGH

    trainer = parts.trainer
    trainer.model.save_pretrained(run.path)
    run.write_description(result=result.record() | {"steps": trainer.step, "tokens": trainer.tokens})
    curves = draw_curves(run.path)
    if trainer.perfect_evaluations >= PERFECT_ENOUGH:
        monitor.say("the whole text is known by heart: every hidden word and every question answered right")
    monitor.say(
        f"\ntrained {trainer.step:,} steps on {trainer.tokens:,} tokens in {clock(trainer.budget.training_s)}\n"
        f"{parts.measured_on} ({result.masked_tokens:,} hidden tokens): {result}\n"
    )
    bert = Bert(trainer.model, Tokenizer.load(run.path))
    examples = fill_examples(bert, parts.sentences)
    for example in examples:
        monitor.say(str(example))
    found = probes.probe(
        bert,
        parts.final_batches(min(probes.MAX_PROBE_TOKENS_SHARE, trainer.final_evaluation_share)),
        parts.sentences,
        probes.token_counts(parts.store, len(bert.tokenizer)),
        ends_in_s=trainer.budget.ends_in_s,
        autocast=trainer.autocast(),
    )
    monitor.record("probe", trainer.step, tokens=trainer.tokens, **found.scalars())
    run.write_description(probes=found.record(), examples=[asdict(example) for example in examples])
    monitor.say(f"\n{found}" if str(found) else "")
    to_try = readable(examples[0].text) if examples else "[MASK]"
    monitor.say(
        f"\nsaved in {run.path} (Hugging Face layout; curves: {curves}). Try it:\n"
        f"  python -m fastbert.predict {run.path} {shlex.quote(to_try)}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main, TrainOptions))
