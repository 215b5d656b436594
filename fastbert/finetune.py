"""``python -m fastbert.finetune MODEL --task classification --train F --eval F``: teach a pretrained encoder a task."""

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
    """Fine-tune a run of yours, or any BERT, RoFormer or ModernBERT directory, for a task.

    The files are JSON lines or CSV. classification and regression: {"text", "label"} or {"text_a", "text_b", "label"};
    pairs: the latter, classes or numbers; tagging: {"tokens", "tags"} in BIO; qa: {"context", "question", "answers":
    {"text", "answer_start"}}, SQuAD's JSON too.
    """

    model: Positional[str]
    """Directory of the pretrained model."""
    task: Literal["classification", "regression", "tagging", "qa", "pairs"]
    """What to learn."""
    train: Annotated[str, unset("FILE")]
    """Training examples."""
    eval: Annotated[str | None, unset("FILE")] = None
    """Examples that choose the best checkpoint (default: a tenth of --train is held out)."""
    test: Annotated[str | None, unset("FILE")] = None
    """Examples that only the final model is measured on."""
    output: Annotated[str | None, unset("DIR")] = None
    """Where the model goes (default: the next free of finetuned/001, finetuned/002 …)."""

    epochs: float = 3.0
    """Times that the training examples are seen."""
    batch_size: Annotated[int | None, unset("N")] = None
    """Examples in a step, on average: batches are cut at equal token counts (default: 32; qa: 16 windows)."""
    learning_rate: Annotated[float | None, unset("X")] = None
    """Peak of AdamW (default: 5e-5 at width 768, more for narrower models in proportion; beside Muon 1e-3)."""
    optimizer: Literal["auto", "adamw", "muon"] = "auto"
    """muon: Muon for the matrices of the layers, AdamW for the rest (auto: what the model was pretrained with)."""
    muon_learning_rate: float = 0.01
    """Peak of Muon."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; then it falls linearly."""
    weight_decay: float = 0.01
    """Decoupled weight decay of the matrices."""
    dropout: float = 0.1
    """Dropout of hidden states, attention weights and the head."""
    class_weights: list[str] = field(default_factory=list)
    """balanced (rare classes count more), or LABEL=WEIGHT for some labels."""

    pooling: Literal["auto", "cls", "mean"] = "auto"
    """What the head of a text reads of a modern model: its first token, or the mean (auto: what config.json says, else
    the mean). The heads of the other architectures read the first token."""
    max_length: Annotated[int | None, unset("N")] = None
    """Tokens of the longest row (default: 256; qa: 384). Longer texts are cut, sentences and contexts go on in further
    rows."""
    stride: int = 128
    """qa: tokens by which two windows of a context overlap."""
    limit: Annotated[int | None, unset("N")] = None
    """Use no more training examples than this, chosen at random."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field of the text, tokens or context (default: text, text_a, tokens, context …)."""
    pair_field: Annotated[str | None, unset("NAME")] = None
    """Field of the second text (default: text_b, text_pair …)."""
    label_field: Annotated[str | None, unset("NAME")] = None
    """Field of the label or tags (default: label, score, tags)."""

    metric: Annotated[str | None, unset("NAME")] = None
    """Chooses the best checkpoint; the first of each is the default. Classes: accuracy, macro_f1, f1 (of two), mcc;
    numbers: pearson, spearman, mse; entities: f1, precision, recall, token_accuracy; answers: f1, exact_match."""
    evaluations: int = 1
    """Evaluations in an epoch; 0: only at the end, with the last weights."""
    patience: int = 0
    """Stop after so many evaluations without a better one (0: never)."""
    seed: int = 0
    """Seed of the head, the order and the dropout."""
    seeds: int = 1
    """Train with so many seeds, from --seed on; the best is kept, mean and spread are told."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the training (auto: bf16 where the device is quick at it); figures and predictions are fp32."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda, cuda:1 … (default: a GPU if there is one)."""
    impl: Literal["auto", "reference", "triton", "cpp"] = "auto"
    """Implementation of the ops; see `python -m fastbert.info`."""


def check(options: FinetuneOptions) -> None:
    """Refuse what can be seen to be wrong before anything is read."""
    positive = (
        "epochs",
        "batch_size",
        "learning_rate",
        "muon_learning_rate",
        "max_length",
        "limit",
        "threads",
        "seeds",
    )
    for name in positive:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a positive number")
    for name in ("evaluations", "patience", "stride", "seed", "weight_decay"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: expected 0 or more")
    for name in ("warmup", "dropout"):
        if not 0.0 <= getattr(options, name) < 1.0:
            raise InputError(f"--{name} {getattr(options, name)}: expected a share from 0, below 1")
    if options.max_length is not None and options.max_length < 8:
        raise InputError(f"--max-length {options.max_length}: expected at least 8 tokens")
    if options.class_weights and options.task not in ("classification", "tagging", "pairs"):
        raise InputError(f"--class-weights: {options.task} has no classes: leave it out")
    if options.patience and not options.evaluations:
        raise InputError("--patience needs evaluations on the way: leave out --evaluations 0")


def main(options: FinetuneOptions) -> int:
    check(options)
    from fastbert.runs.directory import output_directory

    with output_directory(options.output, DEFAULT_OUTPUT) as (partial, final):
        tell_all = finetune(options, partial, final)
    tell_all()  # it is saved now
    return 0


def finetune(options: FinetuneOptions, partial: Path, final: Path) -> Callable[[], None]:
    """Read, train with every seed, measure and save the best; returns what tells the user about it."""
    import torch
    from rich.console import Console

    from fastbert.runs import checkpoint
    from fastbert.tasks.examples import FieldNames
    from fastbert.tasks.finetuning import choose_pooling, read_data
    from fastbert.tasks.report import introduce, tell
    from fastbert.tasks.training import Vocabulary
    from fastbert.text import Tokenizer
    from fastbert.weights.huggingface import read_config

    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(highlight=False, soft_wrap=True)
    say = lambda line: console.print(line, markup=False)  # noqa: E731
    tokenizer = Tokenizer.load(options.model)
    config = read_config(checkpoint.resolve(Path(options.model)))
    if len(tokenizer) > config.padded_vocab_size:
        raise InputError(
            f"{options.model}: the vocabulary has {len(tokenizer)} pieces and the model {config.vocab_size}: "
            "vocabulary and weights do not belong together"
        )
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
        say=say,
    )
    recipe = recipe_of(options, data, config.hidden_size)
    sets = [s for s in (data.train, data.eval, data.test) if s is not None]
    vocabulary = Vocabulary(*(s.rows for s in sets))
    introduce(console, options.model, data, recipe, held_out=options.eval is None)
    outcomes: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    for seed in range(options.seed, options.seed + options.seeds):
        outcome, model, result = one_seed(options, data, recipe, vocabulary, pooling, seed, console)
        outcomes.append(outcome)
        if best is None or _beats(recipe.measure, outcome, best["outcome"]):
            best = {"outcome": outcome, "result": result}
            model.save_pretrained(partial)
    assert best is not None
    tokenizer.save(partial, token_type_ids=config.arch != "modern")
    write_results(partial, options, data, recipe, outcomes, best)
    return lambda: tell(console, data, outcomes, best, final)


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
    """Train from the pretrained weights with one seed; the model that comes back is whole and measured in fp32."""
    from dataclasses import replace

    import torch

    from fastbert.system.devices import choose_device
    from fastbert.tasks.finetuning import fold_scale, load_backbone, measure, new_model
    from fastbert.tasks.labels import class_weights
    from fastbert.tasks.report import shown
    from fastbert.tasks.training import train

    device = choose_device(options.device)
    torch.manual_seed(seed)
    backbone = load_backbone(options.model, options.dropout, options.impl)
    model = new_model(backbone, data.settings, options.dropout, pooling)
    model.to(device)
    whole = vocabulary.shrink(model)
    listed = class_weights(options.class_weights, data.settings.labels, data.class_counts)
    weights = None if listed is None else torch.tensor(listed, device=device)
    recipe = replace(recipe, seed=seed)
    with shown(console, f"seed {seed}" if options.seeds > 1 else "", recipe.measure) as say:
        progress = train(
            model,
            data.train.rows,
            recipe,
            lambda m: measure(m, data.eval, data.scale).scores,
            weights=weights,
            say=say,
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
    """``predictions.jsonl`` of the test (or evaluation) set, and ``finetune.json`` with everything else."""
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
