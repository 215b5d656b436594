"""``python -m fastbert.contrastive MODEL --train pairs.jsonl``: fine-tune an encoder to embed similar texts closely.

Each text of a batch must find its partner among the partners of all others and the hard negatives (InfoNCE). Partners
come from the pairs of a file; plain texts are their own partners under different dropout (SimCSE).

Legend: B pairs of a batch, N hard negatives, D hidden_size.

References: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018; Gao et al., SimCSE,
2021; Reimers & Gurevych, Sentence-BERT, 2019.
"""

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.tasks.contrastive_losses import cosent, cosine_error, info_nce, over_dimensions, same_texts
from fastbert.tasks.record_fields import Notes
from fastbert.tasks.text_pairs import GradedPair, Pair, batches, read_graded_pairs, read_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from fastbert.bert import Bert
    from fastbert.inference.embedding import EmbeddingSettings

SIMCSE_DROPOUT = 0.1
NEGATIVES = "multiple-negatives"  # the loss that needs no grades


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
    output: str = ""
    """Output directory; must be empty or not exist."""
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
    dimensions: list[int] = field(default_factory=list)
    """Train the first so many dimensions too, so that vectors may be cut to them: 64 128 (Matryoshka)."""
    seed: int = 0
    """Seed of the order and the dropout."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def check(options: ContrastiveOptions) -> None:
    def refuse(option: str, expected: str) -> None:
        raise InputError(f"--{option.replace('_', '-')} {getattr(options, option)}: expected {expected}")

    for name, what in (("train", "a file of pairs or of texts"), ("output", "a directory to write")):
        if not getattr(options, name):
            raise InputError(f"--{name}: is missing. Try: --{name} with {what}")
    for name in ("epochs", "learning_rate", "temperature", "threads"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            refuse(name, "a positive number")
    if not 0 <= options.seed < 2**63:
        refuse("seed", "0 or more, below 2^63")
    if options.batch_size < 2:
        refuse("batch_size", "at least 2, because the other pairs of a batch are the negatives")
    if options.max_length is not None and options.max_length < 3:
        refuse("max_length", "at least 3 tokens, [CLS] and [SEP] included")
    if options.loss != NEGATIVES and options.min_score is not None:
        raise InputError(f"--min-score {options.min_score:g}: --loss {options.loss} uses all pairs. Try: leave it out")
    if any(count < 1 for count in options.dimensions):
        refuse("dimensions", "numbers of dimensions from 1")
    target = Path(options.output)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"--output {target}: is not empty. Try: another directory")


def fine_tune(bert: "Bert", pairs: Sequence[Any], options: ContrastiveOptions) -> list[float]:
    """Train the encoder of ``bert`` in place; returns the loss of every step."""
    import torch

    from fastbert.optim.optimizers import build_optimizers
    from fastbert.tasks.training import run_steps

    torch.manual_seed(options.seed)
    model = bert.model
    encoder = [(n, p) for n, p in model.named_parameters() if n.startswith(("embeddings.", "encoder."))]
    peaks = {"adamw": options.learning_rate}
    optimizers = build_optimizers(encoder, model.config, "adamw", peaks, 0.01, betas=(0.9, 0.999), eps=1e-8)
    for group in optimizers["adamw"].param_groups:
        group["peak"] = group["lr"]
    steps_per_epoch = sum(1 for _ in batches(pairs, options.batch_size, 0))
    num_steps = options.epochs * steps_per_epoch
    rise = max(1, num_steps // 10)

    def factor(step: int) -> float:
        return min(step / rise, (num_steps - step + 1) / max(num_steps - rise, 1))

    epochs = (batches(pairs, options.batch_size, options.seed + epoch) for epoch in range(options.epochs))
    each = itertools.chain.from_iterable(epochs)
    losses: list[float] = []
    model.train()
    try:
        for loss in run_steps([*optimizers.values()], each, loss_function(bert, pairs, options), factor, clip_norm=1.0):
            losses.append(loss)
            if len(losses) % steps_per_epoch == 0:
                epoch, mean = len(losses) // steps_per_epoch, sum(losses[-50:]) / len(losses[-50:])
                print(f"epoch {epoch} of {options.epochs}: loss {mean:.4f}", flush=True)
    except KeyboardInterrupt:
        if not losses:
            raise
        print(f"interrupted after {len(losses):,} of {num_steps:,} steps: saving the encoder as it is", flush=True)
    model.eval()
    return losses


def loss_function(
    bert: "Bert", pairs: Sequence[Any], options: ContrastiveOptions
) -> "Callable[[Sequence[Any]], Tensor]":
    """The loss of a batch; all its texts go through the model at once (with dropout, equal texts differ)."""
    import torch

    from fastbert.inference.embedding import pooled

    settings = bert.embedding
    assert settings is not None and settings.normalize
    device, temperature = bert.model.device, options.temperature

    def vectors_of(*parts: Sequence[str]) -> "tuple[Tensor, ...]":
        rows = _rows(bert, [text for part in parts for text in part], settings)
        return pooled(bert.model, rows, settings).split([len(part) for part in parts])

    def of_pairs(batch: Sequence[Pair]) -> "Tensor":
        negatives = [text for pair in batch for text in pair[2:]]
        same = same_texts(batch).to(device)
        masked = same if same.any() else None
        vectors = vectors_of([pair[0] for pair in batch], [pair[1] for pair in batch], negatives)
        return over_dimensions(
            lambda first, second, others: info_nce(first, second, temperature, others, masked),
            options.dimensions, *vectors,
        )  # fmt: skip

    low, high = (f(pair[2] for pair in pairs) for f in (min, max)) if options.loss != NEGATIVES else (0.0, 1.0)

    def of_graded(batch: "Sequence[GradedPair]") -> "Tensor":
        grades = torch.tensor([score for _, _, score in batch], device=device)
        vectors = vectors_of([pair[0] for pair in batch], [pair[1] for pair in batch])
        if options.loss == "cosent":
            return over_dimensions(lambda a, b: cosent(a, b, grades, temperature), options.dimensions, *vectors)
        targets = (grades - low) / (high - low)
        return over_dimensions(lambda a, b: cosine_error(a, b, targets), options.dimensions, *vectors)

    return of_pairs if options.loss == NEGATIVES else of_graded


def _rows(bert: "Bert", texts: list[str], settings: "EmbeddingSettings"):
    from fastbert.batch import pack_rows

    encoded = bert.tokenizer.encode_batch(texts, truncation=True, max_length=settings.max_length)
    return pack_rows([encoded[i] for i in range(len(texts))]).to(bert.model.device)


def read(options: ContrastiveOptions) -> "tuple[list[Any], str]":
    """The pairs of --train, and what they are; prints a line for whatever is not used."""
    notes = Notes()
    if options.loss == NEGATIVES:
        pairs: list[Any] = read_pairs(options.train, options.min_score, notes)
        simcse = all(pair[0] == pair[1] for pair in pairs)
        kind = "texts, each paired with itself under dropout" if simcse else "pairs"
        negatives = sum(len(pair) - 2 for pair in pairs)
        kind += f" with {negatives:,} hard negatives" if negatives else ""
    else:
        pairs = read_graded_pairs(options.train, notes)
        scores = [score for _, _, score in pairs]
        kind = f"pairs, graded from {min(scores):g} to {max(scores):g}"
    for line in notes.lines():
        print(line)
    return pairs, kind


def main(options: ContrastiveOptions) -> int:
    check(options)
    pairs, kind = read(options)
    import numpy as np
    import torch

    from fastbert.bert import Bert, load
    from fastbert.inference.embedding import EmbeddingSettings
    from fastbert.model import BertForPreTraining
    from fastbert.runs.model_card import embedding_card, write_card
    from fastbert.system.config_file import write_options
    from fastbert.text.truncation import num_truncated

    if options.threads:
        torch.set_num_threads(options.threads)
    source = load(options.model, device=options.device)
    config = source.model.config
    if too_many := [count for count in options.dimensions if count > config.hidden_size]:
        raise InputError(f"--dimensions {too_many[0]}: the model has {config.hidden_size}. Try: fewer")
    limit = config.max_position_embeddings
    length = min(limit, options.max_length or 128)
    simcse = all(pair[0] == pair[1] for pair in pairs)
    # without dropout a text and its partner would have the same vector
    dropout = {"hidden_dropout_prob": SIMCSE_DROPOUT, "attention_probs_dropout_prob": SIMCSE_DROPOUT} if simcse else {}
    model = BertForPreTraining(config.replace(**dropout)).to(source.model.device)
    model.load_state_dict(source.model.state_dict())
    tuned = Bert(model, source.tokenizer, EmbeddingSettings(options.pooling, True, length))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair if isinstance(text, str)))
    lengths = np.diff(source.tokenizer.encode_batch(texts, truncation=True, max_length=length).offsets)
    if truncated := num_truncated(texts, lengths, source.tokenizer, length):
        print(f"note: {truncated:,} of {len(texts):,} texts are longer than {length} tokens and are truncated")
    if source.task_model is not None:
        print(f"note: the model's head, for {source.task_model.settings.task}, is not kept")
        source.task_model = None
    print(f"{len(pairs):,} {kind}; {options.batch_size} per step", flush=True)
    fine_tune(tuned, pairs, options)
    source.model.load_state_dict(model.state_dict())
    source.embedding = tuned.embedding
    source.save(options.output)
    output = Path(options.output)
    write_options(output, asdict(options), "contrastive")
    name = output.resolve().name
    write_card(output, embedding_card(name, options.model, options.train, asdict(options), config.hidden_size))
    print(f"saved in {options.output}: for fastbert.load(…).embed(texts) and for sentence-transformers")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, ContrastiveOptions))
