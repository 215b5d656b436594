"""``python -m fastbert.contrastive MODEL --train pairs.jsonl``: an encoder that puts like texts side by side.

Each text of a batch must find its partner among the partners of all the others (InfoNCE). Partners are the pairs of a
file, or, of plain texts, the same text encoded twice under different dropout (SimCSE).

Legend: B pairs of a batch, D hidden_size.

References: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018; Gao et al., SimCSE,
2021; Reimers & Gurevych, Sentence-BERT, 2019.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fastbert.bert import Bert
    from fastbert.inference.embedding import EmbeddingSettings

SIMCSE_DROPOUT = 0.1


@dataclass(frozen=True)
class ContrastiveOptions:
    """Fine-tune an encoder so that texts of like meaning get like vectors.

    The result is a sentence-transformers directory, which fastbert.load reads too.
    """

    model: Positional[str]
    """Directory of the model: a trained run or a Hugging Face directory."""
    train: str = ""
    """JSON-lines with "text_a" and "text_b", two texts that belong together; or plain text, one a line, each its own
    partner under dropout (SimCSE)."""
    output: str = ""
    """Directory to write; must not hold anything yet."""
    pooling: Literal["mean", "cls", "max"] = "mean"
    """How the vectors of the tokens become one."""
    epochs: int = 1
    """Passes over the file."""
    batch_size: int = 64
    """Pairs in a step; each has the others as its negatives."""
    learning_rate: float = 5e-5
    """Peak of AdamW; rises over the first tenth of the steps and falls to zero."""
    temperature: float = 0.05
    """Divides the cosines; smaller looks at the hardest negatives only."""
    max_length: Annotated[int | None, unset("N")] = None
    """Tokens of a text, the rest is cut (default: 128, or what the model takes)."""
    seed: int = 0
    """Of order and dropout."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def check(options: ContrastiveOptions) -> None:
    def refuse(option: str, expected: str) -> None:
        raise InputError(f"--{option.replace('_', '-')} {getattr(options, option)}: expected {expected}")

    for name, what in (("train", "a file of pairs or of texts"), ("output", "a directory to write")):
        if not getattr(options, name):
            raise InputError(f"--{name} is missing: give {what}")
    for name in ("epochs", "learning_rate", "temperature", "threads"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            refuse(name, "a positive number")
    if options.batch_size < 2:
        refuse("batch_size", "at least 2: the others of a batch are the negatives")
    if options.max_length is not None and options.max_length < 3:
        refuse("max_length", "at least 3 tokens, [CLS] and [SEP] included")
    target = Path(options.output)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"--output {target}: already holds something: choose another directory")


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The pairs of a file; a plain text is paired with itself.

    Raises:
        InputError: naming file and line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the name") from None
    json_lines = path.suffix in (".jsonl", ".json", ".ndjson")
    pairs = []
    for number, raw in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 (byte {error.start}): re-encode the file") from None
        if not line:
            continue
        pairs.append(_pair(line, where) if json_lines else (line, line))
    if len(pairs) < 2:
        raise InputError(f"{path}: holds {len(pairs)} pair(s) of texts: at least 2 are needed to tell apart")
    return pairs


def _pair(line: str, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}): one object a line") from None
    if not isinstance(record, dict):
        raise InputError(f'{where}: {type(record).__name__} where an object is expected: {{"text_a": …, "text_b": …}}')
    texts = []
    for name in ("text_a", "text_b"):
        value = record.get(name)
        if not isinstance(value, str) or not value.strip():
            got = "missing" if name not in record else repr(value)[:40]
            raise InputError(f"{where}: {name} is {got}, expected a text (fields here: {', '.join(record) or 'none'})")
        texts.append(value)
    return texts[0], texts[1]


def info_nce(first: "Tensor", second: "Tensor", temperature: float) -> "Tensor":
    """-log softmax(cosines / temperature) at the partner, mean of both directions; first, second (B, D) of length 1."""
    import torch
    import torch.nn.functional as F

    scores = first @ second.T / temperature  # (B, B)
    labels = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2


def batches(pairs: Sequence[tuple[str, str]], size: int, seed: int) -> Iterator[list[tuple[str, str]]]:
    """One epoch in an order that the seed decides; a last batch of one pair, without negatives, is left out."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(pairs))
    for begin in range(0, len(order), size):
        batch = [pairs[i] for i in order[begin : begin + size]]
        if len(batch) > 1:
            yield batch


def fine_tune(bert: "Bert", pairs: Sequence[tuple[str, str]], options: ContrastiveOptions) -> list[float]:
    """Train the encoder of ``bert`` in place; returns the loss of every step."""
    import torch

    from fastbert.inference.embedding import pooled

    torch.manual_seed(options.seed)
    settings = bert.embedding
    assert settings is not None and settings.normalize
    model = bert.model
    encoder = [p for name, p in model.named_parameters() if name.startswith(("embeddings.", "encoder."))]
    optimizer = torch.optim.AdamW(encoder, lr=options.learning_rate, weight_decay=0.01)
    num_steps = options.epochs * sum(1 for _ in batches(pairs, options.batch_size, 0))
    rise = max(1, num_steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (num_steps - step) / max(num_steps - rise, 1))
    )
    losses: list[float] = []
    model.train()
    for epoch in range(options.epochs):
        for batch in batches(pairs, options.batch_size, options.seed + epoch):
            # both sides in one pass: with dropout, equal texts differ
            both = _rows(bert, [a for a, _ in batch] + [b for _, b in batch], settings)
            first, second = pooled(model, both, settings).chunk(2)
            loss = info_nce(first, second, options.temperature)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if losses[-1] != losses[-1]:
                raise InputError(f"the loss is not a number after step {len(losses)}: lower --learning-rate")
        print(f"epoch {epoch + 1} of {options.epochs}: loss {sum(losses[-50:]) / len(losses[-50:]):.4f}", flush=True)
    model.eval()
    return losses


def _rows(bert: "Bert", texts: list[str], settings: "EmbeddingSettings"):
    from fastbert.batch import pack_rows

    encoded = bert.tokenizer.encode_batch(texts, truncation=True, max_length=settings.max_length)
    return pack_rows([encoded[i] for i in range(len(texts))]).to(bert.model.device)


def main(options: ContrastiveOptions) -> int:
    check(options)
    pairs = read_pairs(Path(options.train))
    import torch

    from fastbert.bert import Bert, load
    from fastbert.inference.embedding import EmbeddingSettings
    from fastbert.model import BertForPreTraining

    if options.threads:
        torch.set_num_threads(options.threads)
    source = load(options.model, device=options.device)
    config = source.model.config
    limit = config.max_position_embeddings
    length = min(limit, options.max_length or 128)
    itself = all(a == b for a, b in pairs)
    # a model without dropout would give a text and itself the same vector
    dropout = {"hidden_dropout_prob": SIMCSE_DROPOUT, "attention_probs_dropout_prob": SIMCSE_DROPOUT} if itself else {}
    model = BertForPreTraining(config.replace(**dropout)).to(source.model.device)
    model.load_state_dict(source.model.state_dict())
    tuned = Bert(model, source.tokenizer, EmbeddingSettings(options.pooling, True, length))
    kind = "texts, each paired with itself under dropout" if itself else "pairs"
    print(f"{len(pairs):,} {kind}; {options.batch_size} in a step", flush=True)
    fine_tune(tuned, pairs, options)
    source.model.load_state_dict(model.state_dict())
    source.embedding = tuned.embedding
    source.save(options.output)
    print(f"saved in {options.output}: for fastbert.load(…).embed(texts) and for sentence-transformers")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, ContrastiveOptions))
