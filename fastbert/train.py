"""``python -m fastbert.train``: raw text → vocabulary → packed, masked batches → encoder → checkpoint → filled masks.

:mod:`fastbert.training.options` has the options, :mod:`fastbert.training.prepare_data` makes vocabulary and tokens,
:mod:`fastbert.training.plan` settles every setting, :mod:`fastbert.training.setup` builds the parts, and
:mod:`fastbert.training.trainer` has the loop. Imports are local so that bad options are refused before torch loads.
"""

import os
import shlex
import socket
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.cli import run as run_command
from fastbert.system.errors import AllRanksFail, InputError
from fastbert.training.options import TrainOptions, check, in_folder, stored_options

if TYPE_CHECKING:
    from fastbert.distributed.world import World
    from fastbert.runs.checkpoint import Checkpoint
    from fastbert.runs.directory import RunDirectory
    from fastbert.runs.metrics_log import Monitor
    from fastbert.training.setup import TrainingSetup
    from fastbert.training.validation import Evaluation


def main(options: TrainOptions) -> int:
    check(options)
    from fastbert.distributed.world import World
    from fastbert.runs.directory import RunDirectory
    from fastbert.training.live_page import check_packages, live_page

    if options.watch:
        check_packages()

    world = World.join(cuda=options.device is None or options.device.startswith("cuda"))
    if options.shard and not world.joined:
        raise InputError("--shard: shards a model over the ranks of torchrun. Try: start it with torchrun")
    claimed: list[RunDirectory] = []

    # each host's torchrun counts its own restarts: the count of a host that has just returned is 0
    (restarts,) = world.all_max(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)))

    def begin() -> dict[str, Any]:
        run, settled = claim(options, restarted=restarts > 0)
        claimed.append(run)
        return {"path": str(run.path), "options": asdict(settled), "description": run.description}

    begun = world.run_on_main(begin)
    run = claimed[0] if claimed else RunDirectory.follow(Path(begun["path"]), begun["description"])
    try:
        with run, live_page(run.path, options.watch and world.main):
            code = train(run, TrainOptions(**begun["options"]), world)
    except InputError as error:
        if world.main:
            raise
        if isinstance(error, AllRanksFail):
            return 2  # rank 0 reports it
        raise InputError(f"rank {world.rank} on {socket.gethostname()}: {error}") from None
    world.close()
    return code


def claim(options: TrainOptions, restarted: bool = False) -> "tuple[RunDirectory, TrainOptions]":
    """Lock the directory of a new or resumed run; returns it with the options of the run.

    Args:
        options: as given.
        restarted: torchrun has restarted this job after a failure: resume its run.
    """
    from fastbert.runs.directory import RunDirectory
    from fastbert.training.new_model import default_optimizer

    job = os.environ.get("TORCHELASTIC_RUN_ID")
    # a host that joins or returns is no restart to torchrun: the job's name in run.json shows that the run is ours
    named = job not in (None, "none") and options.output is not None
    if (restarted or named) and not options.resume and (path := RunDirectory.of_job(options.output, job, restarted)):
        options = replace(options, resume=True, output=str(path))
    if not options.resume:
        options = replace(options, optimizer=options.optimizer or default_optimizer(options))
        return RunDirectory.claim(options.output, options, job=job), options
    run = RunDirectory.reopen(options.output)
    try:
        options = stored_options(str(run.path), run.description["options"], options)
    except BaseException:
        run.release()
        raise
    run.description["resumed"] = run.description.get("resumed", 0) + 1
    run.description["options"] = asdict(replace(options, resume=False, stop_after=None, watch=False))
    return run, in_folder(options, run.description.get("folder"))


def newest_checkpoint(run: "RunDirectory", world: "World") -> "Checkpoint | None":
    """The newest complete checkpoint, the same on every rank; None if the run was killed before its first."""
    from fastbert.runs import checkpoint

    found: list[Checkpoint] = []

    def find() -> int | None:
        checkpoint.remove_leftovers(run.path)
        if not checkpoint.list_steps(run.path):
            return None
        found.append(checkpoint.load_newest(run.path, warn=lambda line: print(f"warning: {line}", file=sys.stderr)))
        return found[0].step

    step = world.run_on_main(find)
    if step is None or found:
        return found[0] if found else None
    return checkpoint.load(checkpoint.folder(run.path) / f"step-{step}")


def train(run: "RunDirectory", options: TrainOptions, world: "World") -> int:
    """Prepare, train, evaluate, save, report."""
    from fastbert.runs.metrics_log import Monitor
    from fastbert.system.devices import choose_device
    from fastbert.training.average_with_start import average_with_start
    from fastbert.training.dial import with_best_size
    from fastbert.training.evaluation_data import EvaluationText
    from fastbert.training.new_model import Architecture
    from fastbert.training.plan import make_plan
    from fastbert.training.prepare_data import DataOptions, prepare, verify_in_background
    from fastbert.training.setup import set_up

    saved = newest_checkpoint(run, world) if options.resume else None
    first_step, metrics_bytes = (saved.step, saved.state.get("metrics_bytes")) if saved else (0, None)
    opened = Monitor(
        run.path,
        first_step=first_step,
        metrics_bytes=metrics_bytes,
        main=world.main,
        trackers=options.trackers,
    )
    with opened as monitor:
        if options.resume and saved is None:
            monitor.log("the run has no checkpoint yet: starting at its first step")
        device = choose_device(options.device, world.local_rank if world.joined else None)
        architecture = Architecture.of(options, saved.config if saved else None)
        positions = architecture.max_positions(options.max_length)
        data = DataOptions.of(options, token_type_ids=architecture.arch != "modern", max_positions=positions)
        text = world.run_on_main_first(lambda: prepare(run.path, data, monitor))
        check = verify_in_background(text.store, world)
        with check.explain_failures():
            evaluation = EvaluationText.choose(
                text, options.heldout_fraction, max_length=options.max_length, next_sentence=options.next_sentence
            )
            plan_of = partial(make_plan, options, architecture, text, evaluation, device, world)
            plan = with_best_size(plan_of, text, evaluation, world, monitor.log)
            setup = set_up(run, plan, text, evaluation, monitor, world)
        trainer = setup.trainer
        trainer.store_check = check
        if world.size == 1:
            trainer.after_evaluation = lambda: record_samples(run, setup)
        if saved is not None:
            trainer.restore(saved)
            monitor.log(f"continuing at step {saved.step:,} from {saved.directory}")
        used = {name: getattr(plan, name) for name in ("arch", "preset", "batch_tokens", "threads")}
        run.write_description(model=asdict(plan.config), used_options=asdict(options) | used)
        try:
            with check.explain_failures():
                trainer.train()
                if not trainer.stopped:
                    if plan.init_share:
                        average_with_start(run.path, trainer.model, plan.init_share)
                        monitor.log(f"weights: {plan.init_share:.0%} of those it began with, the rest trained")
                    (share,) = world.broadcast(trainer.evaluations.final_share)
                    result = trainer.evaluate(setup.final_batches(share))
                    trainer.evaluate_replay()
        except BaseException:
            trainer.close_after_failure()
            raise
        trainer.close()
        if trainer.stopped:
            monitor.log(
                f"stopped after step {trainer.step:,}; everything is saved. Resume with:\n"
                f"  python -m fastbert.train --resume --output {shlex.quote(str(run.path.absolute()))}"
            )
            return 128 + trainer.stop_signal if trainer.stop_signal else 0
        trainer.gather_model()
        if world.main:
            finish(run, setup, monitor, result)
        return 0


def record_samples(run: "RunDirectory", setup: "TrainingSetup") -> None:
    """Append to samples.jsonl how the model fills masks now, for those who watch the run."""
    from fastbert.bert import Bert
    from fastbert.evaluation.examples import fill_examples
    from fastbert.system.json_files import json_line

    trainer = setup.trainer
    training = trainer.model.training
    examples = fill_examples(Bert(trainer.model, setup.text.tokenizer), setup.sentences)
    trainer.model.train(training)
    line = {"step": trainer.step, "tokens": trainer.tokens, "examples": [asdict(example) for example in examples]}
    with (run.path / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json_line(line))


def finish(run: "RunDirectory", setup: "TrainingSetup", monitor: "Monitor", result: "Evaluation") -> None:
    """Save the model, log the final metrics, draw the curves, and show what the model can do."""
    from fastbert.bert import Bert
    from fastbert.data.store.token_store import token_counts
    from fastbert.evaluation import probes
    from fastbert.evaluation.examples import fill_examples
    from fastbert.runs.metrics_log import clock, draw_curves
    from fastbert.runs.model_card import run_card, write_card
    from fastbert.text import Tokenizer
    from fastbert.text.detokenize import detokenize
    from fastbert.training.trainer import PERFECT_STREAK_TO_STOP

    trainer = setup.trainer
    trainer.model.save_pretrained(run.path)
    run.write_description(result=result.record() | {"steps": trainer.step, "tokens": trainer.tokens})
    curves = draw_curves(run.path)
    if trainer.perfect_streak >= PERFECT_STREAK_TO_STOP:
        monitor.log("training text memorized: all masked tokens and sentence pairs predicted correctly")
    monitor.log(
        f"\ntrained {trainer.step:,} steps on {trainer.tokens:,} tokens in {clock(trainer.budget.training_s)}\n"
        f"{setup.measured_on} ({result.masked_tokens:,} masked tokens): {result}\n"
    )
    bert = Bert(trainer.model, Tokenizer.load(run.path))
    examples = fill_examples(bert, setup.sentences)
    for example in examples:
        monitor.log(str(example))
    found = probes.probe(
        bert,
        setup.final_batches(min(probes.MAX_PROBE_TOKENS_SHARE, trainer.evaluations.final_share)),
        setup.sentences,
        token_counts(setup.text.store, len(bert.tokenizer)),
        ends_in_s=trainer.budget.ends_in_s,
        autocast=trainer.autocast(),
    )
    monitor.record("probe", trainer.step, tokens=trainer.tokens, **found.scalars())
    run.write_description(probes=found.record(), examples=[asdict(example) for example in examples])
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    write_card(run.path, run_card(run.path.resolve().name, run.description, parameters))
    monitor.log(f"\n{found}" if str(found) else "")
    to_try = detokenize(examples[0].text) if examples else "[MASK]"
    monitor.log(
        f"\nsaved in {run.path} (Hugging Face layout; curves: {curves}). Try it:\n"
        f"  python -m fastbert.predict {shlex.quote(str(run.path))} {shlex.quote(to_try)}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main, TrainOptions))
