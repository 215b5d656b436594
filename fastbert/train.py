"""``python -m fastbert.train``: raw text → vocabulary → packed, masked batches → encoder → checkpoint → filled masks.

The options are in :mod:`fastbert.options`, the parts are put together in :mod:`fastbert.assembly`, the loop is
:mod:`fastbert.trainer`; torch is imported only when there is something to do with it.
"""

import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastbert.cli import run as run_command
from fastbert.options import TrainOptions, check, stored_options

if TYPE_CHECKING:
    from fastbert.assembly import Parts
    from fastbert.monitor import Monitor
    from fastbert.run_directory import RunDirectory


def main(options: TrainOptions) -> int:
    check(options)
    from fastbert.masking import RateSchedule
    from fastbert.run_directory import RunDirectory

    RateSchedule.parse(options.mask_rate)

    if options.resume:
        run = RunDirectory.reopen(options.output)
        options = stored_options(str(run.path), run.description["options"], options)
        run.description["resumed"] = run.description.get("resumed", 0) + 1
    else:
        run = RunDirectory.claim(options.output, options)
    with run:
        return train(run, options)


def train(run: "RunDirectory", options: TrainOptions) -> int:
    """Prepare, train, evaluate, save, show."""
    from fastbert import assembly, checkpoint
    from fastbert.monitor import Monitor

    saved = None
    if options.resume:
        saved = checkpoint.load_newest(run.path, warn=lambda line: print(f"warning: {line}", file=sys.stderr))
    with Monitor(run.path, first_step=saved.step if saved else 0) as monitor:
        device = assembly.choose_device(options)
        corpus = assembly.open_corpus(options)
        tokenizer = assembly.get_tokenizer(run.path, options, corpus, monitor)
        store = assembly.get_store(run.path, options, corpus, tokenizer, monitor)
        options = assembly.settle(options, store, device)
        assembly.set_threads(options)
        parts = assembly.assemble(run, options, tokenizer, store, monitor, device)
        trainer = parts.trainer
        if saved is not None:
            trainer.restore(saved)
            monitor.say(f"continuing at step {saved.step:,} from {saved.directory}")
        run.write_description(model=asdict(trainer.model.config), used_options=asdict(options))
        try:
            trainer.train()
        finally:
            trainer.loader.close()
        if trainer.stopped:
            monitor.say(
                f"stopped after step {trainer.step:,}; everything is saved. Go on with:\n"
                f"  python -m fastbert.train --resume --output {run.path}"
            )
            return 128 + trainer.stop_signal if trainer.stop_signal else 0
        finish(run, parts, monitor)
        return 0


def finish(run: "RunDirectory", parts: "Parts", monitor: "Monitor") -> None:
    """The last evaluation, the model in the run directory, the picture, and what it can do."""
    from fastbert import probes
    from fastbert.bert import Bert
    from fastbert.evaluation import fill_examples, readable
    from fastbert.monitor import clock, draw_curves
    from fastbert.text import Tokenizer
    from fastbert.trainer import PERFECT_ENOUGH

    trainer = parts.trainer
    result = trainer.evaluate(parts.final_batches(trainer.final_evaluation_share))
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
        parts.final_batches(min(probes.SHARE, trainer.final_evaluation_share)),
        parts.sentences,
        probes.token_counts(parts.store, len(bert.tokenizer)),
        seconds=probes.seconds_allowed(trainer.budget.minutes),
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
