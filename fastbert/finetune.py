"""``python -m fastbert.finetune MODEL --task classification --train F --eval F``: fine-tune an encoder for a task."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastbert.system.cli import run
from fastbert.system.json_files import json_line
from fastbert.tasks.options import FinetuneOptions, check

if TYPE_CHECKING:
    from rich.console import Console

    from fastbert.config import BertConfig
    from fastbert.tasks.figures import Result
    from fastbert.tasks.finetuning import TaskData
    from fastbert.tasks.saved_training import SavedTraining
    from fastbert.tasks.training import Recipe

DEFAULT_OUTPUT = Path("finetuned")


def main(options: FinetuneOptions) -> int:
    check(options)
    from fastbert.runs.directory import output_directory
    from fastbert.tasks.saved_training import NAME

    with output_directory(options.output, DEFAULT_OUTPUT, NAME, options.resume) as (partial, final):
        finish = finetune(options, partial, final)
    return finish()  # saved by now


def finetune(options: FinetuneOptions, partial: Path, final: Path) -> Callable[[], int]:
    """Read, train with every seed, measure and save the best; returns what prints the summary and the exit code."""
    import torch
    from rich.console import Console

    from fastbert.runs import checkpoint
    from fastbert.tasks.examples import FieldNames
    from fastbert.tasks.finetuning import choose_pooling, previous_settings, read_data
    from fastbert.tasks.model import require_token_types
    from fastbert.tasks.report import print_header, print_summary
    from fastbert.tasks.training import Vocabulary
    from fastbert.text import Tokenizer
    from fastbert.text.vocabulary_size import check_vocabulary
    from fastbert.weights.huggingface import read_config

    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(highlight=False, soft_wrap=True)
    tokenizer = Tokenizer.load(options.model)
    config = read_config(checkpoint.resolve(Path(options.model)))
    check_vocabulary(tokenizer, config.vocab_size, options.model)
    pooling = choose_pooling(options.model, options.pooling, options.lora is not None)
    data = read_data(
        options.task,
        tokenizer,
        train=options.train,
        eval=options.eval,
        test=options.test,
        fields=FieldNames(
            options.text_field,
            options.pair_field,
            options.label_field,
            options.label_separator,
            tuple(options.label_names),
        ),
        max_length=options.max_length,
        stride=options.stride,
        positions=config.max_position_embeddings,
        limit=options.limit,
        max_answer_tokens=options.max_answer_tokens,
        windows=options.windows,
        threshold=0.5 if options.threshold == "auto" else float(options.threshold),
        previous=previous_settings(options.model),
        log=lambda line: console.print(line, markup=False),
    )
    if data.settings.pairs or data.settings.task == "qa":
        require_token_types(config)
    recipe = recipe_of(options, data, config)
    sets = [s for s in (data.train, data.eval, data.test) if s is not None]
    vocabulary = Vocabulary(*(s.rows for s in sets))
    print_header(console, options.model, data, recipe, held_out=options.eval is None)
    outcomes, best = train_seeds(options, data, recipe, vocabulary, pooling, console, partial)
    types = config.type_vocab_size > 0
    tokenizer.save(partial, token_type_ids=types, max_length=config.max_position_embeddings)
    write_results(partial, final, options, data, recipe, outcomes, best)

    def finish() -> int:
        print_summary(console, data, outcomes, best, final)
        if signal := outcomes[-1]["interrupted"]:
            return 128 + signal
        return 2 if all(outcome["diverged"] for outcome in outcomes) else 0

    return finish


def train_seeds(
    options: FinetuneOptions,
    data: "TaskData",
    recipe: "Recipe",
    vocabulary: Any,
    pooling: str,
    console: "Console",
    partial: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train with every seed and save the best model; returns the outcomes, and that of the best with its result."""
    from fastbert.tasks.saved_training import SavedTraining

    saved = SavedTraining(partial, asdict(options), options.resume)
    outcomes, best = earlier_seeds(saved)
    for seed in range(options.seed + len(outcomes), options.seed + options.seeds):
        outcome, save, result = one_seed(options, data, recipe, vocabulary, pooling, seed, console, saved)
        outcomes.append(outcome)
        # an unfinished seed does not take the place of a finished one, to which --resume comes back
        if best is None or (not outcome["interrupted"] and _beats(recipe.measure, outcome, best["outcome"])):
            best = {"outcome": outcome, "result": result}
            save(partial)
        if outcome["interrupted"]:
            break
        saved.earlier = {"outcomes": outcomes, "best": {"outcome": best["outcome"], "result": best["result"].record()}}
    else:
        saved.discard()
    assert best is not None
    return outcomes, best


def earlier_seeds(saved: "SavedTraining") -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The outcomes of the seeds that were done before an interruption, and the best of them with its result."""
    from fastbert.tasks.figures import Result

    if not saved.earlier:
        return [], None
    best = saved.earlier["best"]
    return saved.earlier["outcomes"], {"outcome": best["outcome"], "result": Result.of_record(best["result"])}


def recipe_of(options: FinetuneOptions, data: "TaskData", config: "BertConfig") -> "Recipe":
    from fastbert.runs.directory import pretraining_optimizer
    from fastbert.tasks.lora import LEARNING_RATE, check_lora
    from fastbert.tasks.scores import check_measure
    from fastbert.tasks.training import Recipe, default_learning_rate, num_frozen

    num_frozen(options.freeze, config)  # an error now, not after the data are tokenized
    optimizer = options.optimizer if options.optimizer != "auto" else pretraining_optimizer(options.model)
    usual = default_learning_rate(config.hidden_size, optimizer)
    if options.lora is not None:
        check_lora(options.lora, config)
        optimizer, usual = "adamw", LEARNING_RATE * default_learning_rate(config.hidden_size)
    return Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size or (16 if data.settings.task == "qa" else 32),
        optimizer=optimizer,
        learning_rate=options.learning_rate or usual,
        muon_learning_rate=options.muon_learning_rate,
        layer_decay=options.layer_decay,
        lora=options.lora or 0,
        freeze="all" if options.lora else options.freeze,
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        evaluations=options.evaluations,
        patience=options.patience,
        measure=check_measure(data.settings.kind, options.metric, len(data.settings.labels)),
        bf16=_bf16(options),
    )


def _bf16(options: FinetuneOptions) -> bool:
    from fastbert.system.devices import choose_device, quick_at_bf16

    device = choose_device(options.device)
    return options.precision == "bf16" or (options.precision == "auto" and quick_at_bf16(device))


def one_seed(
    options: FinetuneOptions,
    data: "TaskData",
    recipe: "Recipe",
    vocabulary: Any,
    pooling: str,
    seed: int,
    console: "Console",
    saved: "SavedTraining",
) -> tuple[dict[str, Any], Callable[[Path], None], "Result"]:
    """Train from the pretrained weights with one seed; returns its figures in fp32, what saves it, and its result."""
    from dataclasses import replace

    import torch

    from fastbert.runs import checkpoint
    from fastbert.system.devices import choose_device
    from fastbert.tasks.figures import measure, tune_thresholds
    from fastbert.tasks.finetuning import fold_scale, load_backbone, new_model, restore_head
    from fastbert.tasks.labels import class_weights
    from fastbert.tasks.lora import FOLDER, LowRank, write_adapter
    from fastbert.tasks.report import shown
    from fastbert.tasks.training import train

    device = choose_device(options.device)
    torch.manual_seed(seed)
    backbone = load_backbone(options.model, options.dropout, options.impl)
    model = new_model(backbone, data.settings, options.dropout, pooling)
    if data.keeps_head:
        restore_head(model, options.model, data.scale)
    model.to(device)
    whole = vocabulary.shrink(model)
    listed = class_weights(options.class_weights, data.settings.labels, data.class_counts)
    weights = None if listed is None else torch.tensor(listed, device=device)
    recipe = replace(recipe, seed=seed)
    lora = LowRank(model, recipe.lora) if recipe.lora else None
    with shown(console, f"seed {seed}" if options.seeds > 1 else "", recipe.measure) as report:
        progress = train(
            model,
            data.train.rows,
            recipe,
            lambda m: measure(m, data.eval, data.scale).scores,
            weights=weights,
            report=report,
            saved=saved,
        )
    adapter = None if lora is None else lora.merge(model)
    fold_scale(model, data.scale)
    if data.settings.multi_label and options.threshold == "auto":
        tune_thresholds(model, data.eval)
    results = {s.name: measure(model, s) for s in (data.eval, data.test) if s is not None}
    vocabulary.restore(model, whole)
    outcome = {"seed": seed, **asdict(progress), **{name: result.scores for name, result in results.items()}}
    model.to("cpu")

    def save(directory: Path) -> None:
        model.save_pretrained(directory)
        if adapter is not None:
            base = str(checkpoint.resolve(Path(options.model)))
            write_adapter(directory / FOLDER, adapter, model, recipe.lora, base)

    return outcome, save, results.get("test", results["eval"])


def _beats(measure: str, new: dict[str, Any], old: dict[str, Any]) -> bool:
    from fastbert.tasks.scores import better

    return better(measure, new["eval"][measure], old["eval"][measure])


def write_results(
    partial: Path,
    final: Path,
    options: FinetuneOptions,
    data: "TaskData",
    recipe: "Recipe",
    outcomes: list[dict[str, Any]],
    best: dict[str, Any],
) -> None:
    """Write ``predictions.jsonl`` of the test (or evaluation) set, ``finetune.json`` with everything else, a card."""
    from fastbert.runs.model_card import finetuned_card, write_card
    from fastbert.system.config_file import write_options
    from fastbert.system.environment import describe
    from fastbert.tasks.report import summary

    lines = map(json_line, best["result"].predictions)
    (partial / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    confusion = best["result"].confusion
    record = describe(options) | {
        "command": [Path(sys.executable).name, "-m", "fastbert.finetune", *sys.argv[1:]],
        "recipe": asdict(recipe),
        "settings": asdict(data.settings),
        "examples": {s.name: len(s.examples) for s in (data.train, data.eval, data.test) if s is not None},
        "best_seed": best["outcome"]["seed"],
        "summary": {
            name: {m: {"mean": a, "deviation": b} for m, (a, b) in summary(outcomes, name).items()}
            for name in ("eval", "test")
            if name in outcomes[0]
        },
        "by_class": best["result"].by_class,
        "seeds": outcomes,
        "confusion": None if confusion is None else confusion.tolist(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (partial / "finetune.json").write_text(text + "\n", encoding="utf-8")
    write_options(partial, asdict(options), "finetune")
    write_card(partial, finetuned_card(final.resolve().name, json.loads(text)))


if __name__ == "__main__":
    sys.exit(run(main, FinetuneOptions))
