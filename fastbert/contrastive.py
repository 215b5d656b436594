"""``python -m fastbert.contrastive MODEL --train pairs.jsonl``: fine-tune an encoder to embed similar texts closely.

Each text of a batch must find its partner among the partners of all others and the hard negatives (InfoNCE). Partners
come from the pairs of a file; plain texts are their own partners under different dropout (SimCSE).

Legend: B pairs of a batch, N hard negatives, D hidden_size.

References: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018; Gao et al., SimCSE,
2021; Reimers & Gurevych, Sentence-BERT, 2019.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require, require_positive, require_seed
from fastbert.tasks.record_fields import Notes
from fastbert.tasks.text_pairs import NEGATIVES, read_graded_pairs, read_pairs

if TYPE_CHECKING:
    from fastbert.bert import Bert

SIMCSE_DROPOUT = 0.1


@dataclass(frozen=True)
class ContrastiveOptions:
    """Fine-tune an encoder so that texts with similar meaning get similar vectors.

    The output is a sentence-transformers directory, which fastbert.load reads too.
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    train: str = ""
    """JSON lines or CSV with two texts that belong together (text_a, text_b; anchor, positive; …), optionally a
    "negative" (or several) and a "label"; or plain text, one per line, each its own partner under dropout (SimCSE)."""
    loss: Literal["multiple-negatives", "cosent", "cosine"] = "multiple-negatives"
    """multiple-negatives: the other texts of a batch are unlike (InfoNCE). The others use the number of each pair:
    cosent their order, cosine the squared difference to the cosine (the least number is 0, the greatest 1)."""
    min_score: Annotated[float | None, unset("X")] = None
    """Use only pairs whose label is at least X (default: 1 for labels 0 and 1; other labels need it)."""
    eval: Annotated[str | None, unset("FILE")] = None
    """Pairs of the same kind that are not trained on: measured after every epoch, they choose the weights that are kept
    (default: none, the last weights are kept)."""
    output: str = ""
    """Output directory; must be empty or not exist."""
    resume: bool = False
    """Go on with an interrupted training: the same command again."""
    pooling: Literal["mean", "cls", "max"] = "mean"
    """How token vectors are combined."""
    epochs: int = 1
    """Passes over the file."""
    batch_size: int = 64
    """Pairs per step; each uses the others as negatives, except equal texts."""
    learning_rate: float = 5e-5
    """Peak learning rate of AdamW; rises over the first tenth of the steps, then falls to zero."""
    temperature: float = 0.05
    """Divides the cosines; smaller values concentrate on the hardest negatives."""
    max_length: Annotated[int | None, unset("N")] = None
    """Maximum tokens per text; longer texts are truncated (default: 128, or the model's limit)."""
    windows: bool = False
    """Pool texts that are too long over windows of them instead of truncating them."""
    dimensions: list[int] = field(default_factory=list)
    """Train the first so many dimensions too, so that vectors may be cut to them: 64 128 (Matryoshka)."""
    seed: int = 0
    """Seed of the order and the dropout."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def check(options: ContrastiveOptions) -> None:
    for name, what in (("train", "a file of pairs or of texts"), ("output", "a directory to write")):
        if not getattr(options, name):
            raise InputError(f"--{name}: is missing. Try: --{name} with {what}")
    require_positive(options, "epochs", "learning_rate", "temperature", "threads")
    require_seed(options)
    negatives = "at least 2, because the other pairs of a batch are the negatives"
    require(options, negatives, lambda size: size >= 2, "batch_size")
    require(options, "at least 3 tokens, [CLS] and [SEP] included", lambda length: length >= 3, "max_length")
    if options.loss != NEGATIVES and options.min_score is not None:
        raise InputError(f"--min-score {options.min_score:g}: --loss {options.loss} uses all pairs. Try: leave it out")
    require(options, "numbers of dimensions from 1", lambda counts: all(count >= 1 for count in counts), "dimensions")


def read(options: ContrastiveOptions) -> "tuple[list[Any], list[Any], str]":
    """The pairs of --train and of --eval, and what they are; prints a line for whatever is not used."""
    notes = Notes()

    def pairs_of(path: str) -> list[Any]:
        if options.loss == NEGATIVES:
            return list(read_pairs(path, options.min_score, notes))
        return list(read_graded_pairs(path, notes))

    pairs = pairs_of(options.train)
    if options.loss == NEGATIVES:
        kind = "texts, each paired with itself under dropout" if of_themselves(pairs) else "pairs"
        negatives = sum(len(pair) - 2 for pair in pairs)
        kind += f" with {negatives:,} hard negatives" if negatives else ""
    else:
        scores = [score for _, _, score in pairs]
        kind = f"pairs, graded from {min(scores):g} to {max(scores):g}"
    held_out = pairs_of(options.eval) if options.eval else []
    if held_out and of_themselves(held_out):
        raise InputError(f"--eval {options.eval}: every text would find itself. Try: pairs of different texts")
    for line in notes.lines():
        print(line)
    return pairs, held_out, kind


def of_themselves(pairs: "Sequence[Any]") -> bool:
    return all(pair[0] == pair[1] for pair in pairs)


def main(options: ContrastiveOptions) -> int:
    check(options)
    from fastbert.runs.directory import output_directory
    from fastbert.tasks.saved_training import NAME

    with output_directory(options.output, Path("."), NAME, options.resume) as (partial, final):
        finish = train(options, partial, final)
    return finish()  # saved by now


def train(options: ContrastiveOptions, partial: Path, final: Path) -> Callable[[], int]:
    """Read, train and save; returns what prints the end of it and gives the exit code."""
    pairs, held_out, kind = read(options)
    import torch

    from fastbert.bert import load
    from fastbert.inference.embedding import EmbeddingSettings, trainable_encoder
    from fastbert.tasks.contrastive_training import ContrastiveRecipe, fine_tune
    from fastbert.tasks.saved_training import SavedTraining

    if options.threads:
        torch.set_num_threads(options.threads)
    source = load(options.model, device=options.device)
    config = source.model.config
    if too_many := [count for count in options.dimensions if count > config.hidden_size]:
        raise InputError(f"--dimensions {too_many[0]}: the model has {config.hidden_size}. Try: fewer")
    length = min(config.max_position_embeddings, options.max_length or 128)
    # without dropout a text and its partner would have the same vector
    probability = {"hidden_dropout_prob": SIMCSE_DROPOUT, "attention_probs_dropout_prob": SIMCSE_DROPOUT}
    model = type(source.model)(config.replace(**probability if of_themselves(pairs) else {})).to(source.model.device)
    model.load_state_dict(source.model.state_dict())
    settings = EmbeddingSettings(options.pooling, True, length)
    if not options.windows:
        note_truncated(source, pairs, length)
    if source.task_model is not None:
        print(f"note: the model's head, for {source.task_model.settings.task}, is not kept")
        source.task_model = None
    print(f"{len(pairs):,} {kind}; {options.batch_size} per step", flush=True)
    recipe = ContrastiveRecipe(
        options.loss, options.epochs, options.batch_size, options.learning_rate, options.temperature,
        tuple(options.dimensions), options.seed,
    )  # fmt: skip
    saved = SavedTraining(partial, asdict(options), options.resume)
    encode = trainable_encoder(model, source.tokenizer, settings, options.windows)
    progress = fine_tune(model, encode, pairs, recipe, held_out, Report(options.epochs), saved)
    if not progress.interrupted:
        saved.discard()
    source.model.load_state_dict(model.state_dict())
    source.embedding = settings
    write(source, options, partial, final)

    def finish() -> int:
        kept = f"the weights of step {progress.best_step or progress.steps:,} are kept"
        if progress.diverged:
            print(f"{progress.diverged}; {kept}")
        if progress.interrupted:
            print(f"interrupted at step {progress.steps:,}; {kept}. To go on: the same command with --resume")
        print(f"saved in {options.output}: for fastbert.load(…).embed(texts) and for sentence-transformers")
        return 128 + progress.interrupted if progress.interrupted else 2 if progress.diverged else 0

    return finish


class Report:
    """Prints a line for each epoch, and for each evaluation."""

    def __init__(self, epochs: int):
        self.epochs, self.done, self.losses = epochs, 0, deque[float](maxlen=50)

    def __call__(self, progress: Any, share: float, scores: dict[str, float] | None) -> None:
        self.losses.append(progress.loss)
        if (done := int(share * self.epochs + 1e-9)) > self.done:
            self.done = done
            figures = "".join(f"  {name} {value:.3f}" for name, value in (scores or {}).items())
            best = "  best so far" if scores and progress.best_step == progress.steps else ""
            mean = sum(self.losses) / len(self.losses)
            print(f"epoch {done} of {self.epochs}: loss {mean:.4f}{figures}{best}", flush=True)


def note_truncated(bert: "Bert", pairs: "Sequence[Any]", length: int) -> None:
    """Print how many texts are longer than ``length`` tokens."""
    import numpy as np

    from fastbert.text.truncation import num_truncated

    texts = list(dict.fromkeys(text for pair in pairs for text in pair if isinstance(text, str)))
    lengths = np.diff(bert.tokenizer.encode_batch(texts, truncation=True, max_length=length).offsets)
    if truncated := num_truncated(texts, lengths, bert.tokenizer, length):
        print(
            f"note: {truncated:,} of {len(texts):,} texts are longer than {length} tokens and are truncated "
            "(--max-length, --windows)"
        )


def write(bert: "Bert", options: ContrastiveOptions, partial: Path, final: Path) -> None:
    from fastbert.runs.model_card import embedding_card, write_card
    from fastbert.system.config_file import write_options

    bert.save(partial)
    write_options(partial, asdict(options), "contrastive")
    name = final.resolve().name
    width = bert.model.config.hidden_size
    write_card(partial, embedding_card(name, options.model, options.train, asdict(options), width))


if __name__ == "__main__":
    sys.exit(run(main, ContrastiveOptions))
