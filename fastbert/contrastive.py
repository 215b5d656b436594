"""``python -m fastbert.contrastive MODEL --train pairs.jsonl``: fine-tune an encoder to embed similar texts closely.

Each text of a batch must find its partner among the partners of all others and the hard negatives (InfoNCE). Partners
come from the pairs of a file; plain texts are their own partners under different dropout (SimCSE).

Legend: B pairs of a batch, N hard negatives, D hidden_size.

References: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018; Gao et al., SimCSE,
2021; Reimers & Gurevych, Sentence-BERT, 2019.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fastbert.bert import Bert
    from fastbert.inference.embedding import EmbeddingSettings
    from fastbert.tasks.examples import Notes

SIMCSE_DROPOUT = 0.1
NEGATIVE = "negative"  # field of a text that does not belong to the first
Pair = tuple[str, ...]  # two texts that belong together, and perhaps a hard negative


@dataclass(frozen=True)
class ContrastiveOptions:
    """Fine-tune an encoder so that texts with similar meaning get similar vectors.

    The output is a sentence-transformers directory, which fastbert.load reads too.
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    train: str = ""
    """JSON lines or CSV with two texts that belong together (text_a, text_b; anchor, positive; …), optionally a
    "negative" and a "label"; or plain text, one per line, each its own partner under dropout (SimCSE)."""
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
    target = Path(options.output)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"--output {target}: is not empty. Try: another directory")


def read_pairs(path: str | Path, min_score: float | None = None, notes: "Notes | None" = None) -> list[Pair]:
    """The pairs of a file, with a hard negative where there is one; a plain text is paired with itself.

    Args:
        path: JSON lines, CSV or TSV with the fields of :data:`fastbert.tasks.examples.PAIR_NAMES`, or plain text.
        min_score: pairs with a smaller label are left out; None: labels are 0 and 1, or there are none.
        notes: takes what is not used.

    Raises:
        InputError: naming file and line.
    """
    from fastbert.data.corpus.records import is_table, read_lines, read_records
    from fastbert.tasks.examples import LABEL_NAMES, Notes

    path, notes = str(path), notes or Notes()
    if not is_table(path):
        pairs: list[Pair] = [(line.strip(), line.strip()) for _, line in read_lines(path)]
    else:
        pairs = []
        for where, record in read_records(path):
            pair, used = _pair(record, where)
            label = next((name for name in LABEL_NAMES if name in record), None)
            if label is None or _belong_together(record[label], where, min_score):
                pairs.append(pair)
            else:
                notes.add(f"a pair with a {label} below {1 if min_score is None else min_score:g} is left out", where)
            for name in record:
                if name not in (*used, label):
                    notes.add(f"field {name!r} is not used", where)
    if len(pairs) < 2:
        raise InputError(f"{path}: has {len(pairs)} pairs of texts that belong together. Try: 2 or more")
    return pairs


def _pair(record: dict[str, Any], where: str) -> tuple[Pair, list[str]]:
    """The texts of a record, and the names of their fields."""
    from fastbert.tasks.examples import PAIR_NAMES

    names = next((list(pair) for pair in PAIR_NAMES if record.keys() >= set(pair)), None)
    if names is None:
        raise InputError(
            f"{where}: has no two texts; its fields: {', '.join(map(repr, record)) or 'none'}. Try: text_a and text_b"
        )
    if record.get(NEGATIVE) is not None:
        names.append(NEGATIVE)
    for name in names:
        if not isinstance(record[name], str) or not record[name].strip():
            raise InputError(f"{where}: field {name!r} is {repr(record[name])[:40]}, expected a text")
    return tuple(record[name] for name in names), names


def _belong_together(label: Any, where: str, min_score: float | None) -> bool:
    try:
        number = float(label)
    except (TypeError, ValueError):
        raise InputError(f"{where}: label {label!r} is not a number. Try: 1 for pairs that belong together") from None
    if min_score is None and number not in (0.0, 1.0):
        raise InputError(f"{where}: label {number:g} is neither 0 nor 1. Try: --min-score X for pairs from X on")
    return number >= (1.0 if min_score is None else min_score)


def info_nce(
    first: "Tensor",
    second: "Tensor",
    temperature: float,
    negatives: "Tensor | None" = None,
    same: "Tensor | None" = None,
) -> "Tensor":
    """-log softmax(cosines / temperature) at the partner, mean of both directions.

    Args:
        first, second: (B, D) of length 1, partners in the same row.
        temperature: divides the cosines.
        negatives: (N, D), further candidates for ``first``.
        same: (B, B + N), true where a candidate is no negative: it equals the partner, or belongs to an equal text.
    """
    import torch
    import torch.nn.functional as F

    candidates = second if negatives is None else torch.cat([second, negatives])
    scores = first @ candidates.T / temperature  # (B, B + N)
    if same is not None:
        scores = scores.masked_fill(same, float("-inf"))
    labels = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores[:, : len(first)].T, labels)) / 2


def same_texts(batch: Sequence[Pair]) -> "Tensor":
    """(B, B + N) for :func:`info_nce`: candidates other than the partner that equal it, or share the first text."""
    import torch

    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(text, len(numbers)) for text in pair] for pair in batch]
    first, second = torch.tensor([i[0] for i in ids]), torch.tensor([i[1] for i in ids])
    negatives = torch.tensor([i[2] for i in ids if len(i) > 2], dtype=torch.int64)
    same = (second[:, None] == second) | (first[:, None] == first)
    same.fill_diagonal_(False)
    return torch.cat([same, (second[:, None] == negatives) | (first[:, None] == negatives)], dim=1)


def batches(pairs: Sequence[Pair], size: int, seed: int) -> Iterator[list[Pair]]:
    """One epoch in an order that the seed decides; a last batch of one pair, without negatives, is left out."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(pairs))
    for begin in range(0, len(order), size):
        batch = [pairs[i] for i in order[begin : begin + size]]
        if len(batch) > 1:
            yield batch


def fine_tune(bert: "Bert", pairs: Sequence[Pair], options: ContrastiveOptions) -> list[float]:
    """Train the encoder of ``bert`` in place; returns the loss of every step."""
    import torch

    from fastbert.inference.embedding import pooled
    from fastbert.tasks.training import run_steps

    torch.manual_seed(options.seed)
    settings = bert.embedding
    assert settings is not None and settings.normalize
    model = bert.model
    encoder = [p for name, p in model.named_parameters() if name.startswith(("embeddings.", "encoder."))]
    groups = [{"params": encoder, "peak": options.learning_rate}]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=0.01)
    steps_per_epoch = sum(1 for _ in batches(pairs, options.batch_size, 0))
    num_steps = options.epochs * steps_per_epoch
    rise = max(1, num_steps // 10)

    def loss_of(batch: list[Pair]) -> "Tensor":
        # all texts in one pass: with dropout, equal texts differ
        negatives = [pair[2] for pair in batch if len(pair) > 2]
        rows = _rows(bert, [pair[0] for pair in batch] + [pair[1] for pair in batch] + negatives, settings)
        vectors = pooled(model, rows, settings)
        first, second, others = vectors.split([len(batch), len(batch), len(negatives)])
        same = same_texts(batch).to(vectors.device)
        return info_nce(first, second, options.temperature, others, same if same.any() else None)

    def factor(step: int) -> float:
        return min(step / rise, (num_steps - step + 1) / max(num_steps - rise, 1))

    epochs = (batches(pairs, options.batch_size, options.seed + epoch) for epoch in range(options.epochs))
    losses: list[float] = []
    model.train()
    try:
        for loss in run_steps([optimizer], itertools.chain.from_iterable(epochs), loss_of, factor, clip_norm=1.0):
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


def _rows(bert: "Bert", texts: list[str], settings: "EmbeddingSettings"):
    from fastbert.batch import pack_rows

    encoded = bert.tokenizer.encode_batch(texts, truncation=True, max_length=settings.max_length)
    return pack_rows([encoded[i] for i in range(len(texts))]).to(bert.model.device)


def main(options: ContrastiveOptions) -> int:
    check(options)
    from fastbert.tasks.examples import Notes

    notes = Notes()
    pairs = read_pairs(options.train, options.min_score, notes)
    for line in notes.lines():
        print(line)
    import numpy as np
    import torch

    from fastbert.bert import Bert, load
    from fastbert.inference.embedding import EmbeddingSettings
    from fastbert.model import BertForPreTraining
    from fastbert.runs.model_card import embedding_card, write_card
    from fastbert.system.config_file import write_options
    from fastbert.tasks.features import num_truncated

    if options.threads:
        torch.set_num_threads(options.threads)
    source = load(options.model, device=options.device)
    config = source.model.config
    limit = config.max_position_embeddings
    length = min(limit, options.max_length or 128)
    simcse = all(pair[0] == pair[1] for pair in pairs)
    # without dropout a text and its partner would have the same vector
    dropout = {"hidden_dropout_prob": SIMCSE_DROPOUT, "attention_probs_dropout_prob": SIMCSE_DROPOUT} if simcse else {}
    model = BertForPreTraining(config.replace(**dropout)).to(source.model.device)
    model.load_state_dict(source.model.state_dict())
    tuned = Bert(model, source.tokenizer, EmbeddingSettings(options.pooling, True, length))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    lengths = np.diff(source.tokenizer.encode_batch(texts, truncation=True, max_length=length).offsets)
    if truncated := num_truncated(texts, lengths, source.tokenizer, length):
        print(f"note: {truncated:,} of {len(texts):,} texts are longer than {length} tokens and are truncated")
    if source.task_model is not None:
        print(f"note: the model's head, for {source.task_model.settings.task}, is not kept")
        source.task_model = None
    kind = "texts, each paired with itself under dropout" if simcse else "pairs"
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
