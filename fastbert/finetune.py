"""``python -m fastbert.finetune MODEL --task classification --train F --eval F``: fine-tune an encoder for a task."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from fastbert.tasks.finetuning import Result, TaskData
    from fastbert.tasks.model import TaskModel
    from fastbert.tasks.training import Recipe

DEFAULT_OUTPUT = Path("finetuned")


@dataclass(frozen=True)
class FinetuneOptions:
    """Fine-tune a pretrained model for a task: a run of fastbert, or any BERT, RoFormer or ModernBERT directory.

    Files are JSON lines or CSV. classification and regression: {"text", "label"} or {"text_a", "text_b", "label"};
    pairs: the latter, with classes or numbers; tagging: {"tokens", "tags"}; qa: {"context", "question", "answers":
    {"text", "answer_start"}} or SQuAD's JSON.
    """

    model: Positional[str]
    """Directory of the pretrained model. If it is fine-tuned for the same task and labels, its head is kept."""
    task: Literal["classification", "regression", "tagging", "qa", "pairs"]
    """The task to learn."""
    train: Annotated[str, unset("FILE")]
    """Training examples."""
    eval: Annotated[str | None, unset("FILE")] = None
    """Examples that choose the best checkpoint (default: a tenth of --train is held out)."""
    test: Annotated[str | None, unset("FILE")] = None
    """Examples for the final figures only."""
    output: Annotated[str | None, unset("DIR")] = None
    """Output directory (default: the next free of finetuned/001, finetuned/002 …)."""

    # ---- data ----
    max_length: Annotated[int | None, unset("N")] = None
    """Maximum tokens per row (default: 256; qa: 384). Longer texts are truncated, which is reported; longer sentences
    and contexts are split over several rows."""
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

    # ---- training ----
    epochs: float = 3.0
    """Passes over the training examples."""
    batch_size: Annotated[int | None, unset("N")] = None
    """Mean number of examples per step; batches are cut at equal token counts (default: 32; qa: 16 windows)."""
    learning_rate: Annotated[float | None, unset("X")] = None
    """Peak learning rate of AdamW (default: 5e-5 at width 768, more for narrower models; 1e-3 with Muon)."""
    optimizer: Literal["auto", "adamw", "muon"] = "auto"
    """muon: Muon for the matrices of the layers, AdamW for the rest (auto: the optimizer of the pretraining)."""
    muon_learning_rate: float = 0.01
    """Peak learning rate of Muon."""
    warmup: float = 0.1
    """Fraction of the steps with a rising learning rate; then it falls linearly."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the matrices."""
    dropout: float = 0.1
    """Dropout of hidden states, attention weights and the head."""
    class_weights: list[str] = field(default_factory=list)
    """balanced (rare classes count more), or LABEL=WEIGHT for some labels."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """Modern models only: what a sequence head reads, the first token or the mean of all (auto: as in config.json, or
    the mean). Heads of other architectures read the first token."""
    seed: int = 0
    """Seed of the head, the order and the dropout."""
    seeds: int = 1
    """Number of trainings with consecutive seeds; the best is kept, and mean and deviation are printed."""

    # ---- evaluation ----
    metric: Annotated[str | None, unset("NAME")] = None
    """Measure that chooses the best checkpoint; the default is the first. Classes: accuracy, macro_f1, f1 (two
    classes), mcc; numbers: pearson, spearman, mse; entities: f1, precision, recall, token_accuracy; answers: f1,
    exact_match."""
    evaluations: int = 1
    """Evaluations per epoch; 0: only at the end, with the last weights."""
    patience: int = 0
    """Stop after this many evaluations without improvement (0: never)."""

    # ---- machine ----
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Precision of training (auto: bf16 where the device is fast at it). Final figures are computed in fp32."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda, cuda:1 … (default: a GPU if available)."""
    impl: Literal["auto", "reference", "triton", "cpp"] = "auto"
    """Implementation of the ops; see `python -m fastbert.info`."""


def check(options: FinetuneOptions) -> None:
    """Reject bad options before reading anything."""
    positive = ("epochs", "batch_size", "learning_rate", "muon_learning_rate", "max_length", "max_answer_tokens",
                "limit", "threads", "seeds")  # fmt: skip
    for name in positive:
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a positive number")
    for name in ("evaluations", "patience", "stride", "seed", "weight_decay"):
        if not 0 <= getattr(options, name) < 2**63:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 0 or more, below 2^63")
    for name in ("warmup", "dropout"):
        if not 0.0 <= getattr(options, name) < 1.0:
            raise InputError(f"--{name} {getattr(options, name)}: expected a fraction from 0, below 1")
    if options.max_length is not None and options.max_length < 8:
        raise InputError(f"--max-length {options.max_length}: expected at least 8 tokens")
    if options.class_weights and options.task not in ("classification", "tagging", "pairs"):
        raise InputError(f"--class-weights: {options.task} has no classes. Try: leave it out")
    if options.patience and not options.evaluations:
        raise InputError("--patience: needs evaluations during training. Try: leave out --evaluations 0")


def main(options: FinetuneOptions) -> int:
    check(options)
    from fastbert.runs.directory import output_directory

    with output_directory(options.output, DEFAULT_OUTPUT) as (partial, final):
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
    pooling = choose_pooling(options.model, options.pooling)
    data = read_data(
        options.task,
        tokenizer,
        train=options.train,
        eval=options.eval,
        test=options.test,
        fields=FieldNames(options.text_field, options.pair_field, options.label_field),
        max_length=options.max_length,
        stride=options.stride,
        positions=config.max_position_embeddings,
        limit=options.limit,
        max_answer_tokens=options.max_answer_tokens,
        previous=previous_settings(options.model),
        log=lambda line: console.print(line, markup=False),
    )
    if data.settings.pairs or data.settings.task == "qa":
        require_token_types(config)
    recipe = recipe_of(options, data, config.hidden_size)
    sets = [s for s in (data.train, data.eval, data.test) if s is not None]
    vocabulary = Vocabulary(*(s.rows for s in sets))
    print_header(console, options.model, data, recipe, held_out=options.eval is None)
    outcomes: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    for seed in range(options.seed, options.seed + options.seeds):
        outcome, model, result = one_seed(options, data, recipe, vocabulary, pooling, seed, console)
        outcomes.append(outcome)
        if best is None or _beats(recipe.measure, outcome, best["outcome"]):
            best = {"outcome": outcome, "result": result}
            model.save_pretrained(partial)
        if outcome["interrupted"]:
            break
    assert best is not None
    tokenizer.save(partial, token_type_ids=config.type_vocab_size > 0)
    write_results(partial, options, data, recipe, outcomes, best)

    def finish() -> int:
        print_summary(console, data, outcomes, best, final)
        return 130 if outcomes[-1]["interrupted"] else 2 if all(outcome["diverged"] for outcome in outcomes) else 0

    return finish


def recipe_of(options: FinetuneOptions, data: "TaskData", hidden_size: int) -> "Recipe":
    from fastbert.tasks.scores import check_measure
    from fastbert.tasks.training import Recipe, default_learning_rate, pretraining_optimizer

    optimizer = options.optimizer if options.optimizer != "auto" else pretraining_optimizer(options.model)
    return Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size or (16 if data.settings.task == "qa" else 32),
        optimizer=optimizer,
        learning_rate=options.learning_rate or default_learning_rate(hidden_size, optimizer),
        muon_learning_rate=options.muon_learning_rate,
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        evaluations=options.evaluations,
        patience=options.patience,
        measure=check_measure(data.settings.task, options.metric, len(data.settings.labels)),
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
) -> tuple[dict[str, Any], "TaskModel", "Result"]:
    """Train from the pretrained weights with one seed; returns its figures in fp32, the whole model and its result."""
    from dataclasses import replace

    import torch

    from fastbert.system.devices import choose_device
    from fastbert.tasks.finetuning import fold_scale, load_backbone, measure, new_model, restore_head
    from fastbert.tasks.labels import class_weights
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
    with shown(console, f"seed {seed}" if options.seeds > 1 else "", recipe.measure) as report:
        progress = train(
            model,
            data.train.rows,
            recipe,
            lambda m: measure(m, data.eval, data.scale).scores,
            weights=weights,
            report=report,
        )
    fold_scale(model, data.scale)
    results = {s.name: measure(model, s) for s in (data.eval, data.test) if s is not None}
    vocabulary.restore(model, whole)
    outcome = {"seed": seed, **asdict(progress), **{name: result.scores for name, result in results.items()}}
    return outcome, model.to("cpu"), results.get("test", results["eval"])


def _beats(measure: str, new: dict[str, Any], old: dict[str, Any]) -> bool:
    from fastbert.tasks.scores import better

    return better(measure, new["eval"][measure], old["eval"][measure])


def write_results(
    partial: Path,
    options: FinetuneOptions,
    data: "TaskData",
    recipe: "Recipe",
    outcomes: list[dict[str, Any]],
    best: dict[str, Any],
) -> None:
    """Write ``predictions.jsonl`` of the test (or evaluation) set, and ``finetune.json`` with everything else."""
    from fastbert.system.environment import describe
    from fastbert.tasks.report import summary

    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in best["result"].predictions)
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
        "seeds": outcomes,
        "confusion": None if confusion is None else confusion.tolist(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (partial / "finetune.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run(main, FinetuneOptions))
