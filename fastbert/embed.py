"""``python -m fastbert.embed MODEL FILE --output vectors.npy``: a vector for every line or record."""

import functools
import importlib.util
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require_count

if TYPE_CHECKING:
    from fastbert.bert import Bert
    from fastbert.inference.embedding import EmbeddingSettings

CHUNK_TEXTS = 4096  # embedded together, so that texts of similar length meet
CHUNK_CHARS = 4 << 20


@dataclass(frozen=True)
class EmbedOptions:
    """Turn texts into vectors: row n of the output belongs to line n (blank lines included) or record n of the input.

    Any number of texts in bounded memory. Repeat an interrupted command to continue it.
    """

    model: Positional[str]
    """Directory of the model: a run, or a Hugging Face or sentence-transformers directory."""
    data: Positional[tuple[str, ...]]
    """Files, folders, globs, URLs or "-" for standard input: .txt .jsonl .csv .tsv .parquet, each also compressed."""
    output: Annotated[str, unset("FILE")] = ""
    """.npy (float32, rows × dimensions) or .parquet (column "embedding")."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field of the text in records (default: "text")."""
    pooling: Annotated[Literal["mean", "cls", "max"] | None, unset("mean|cls|max")] = None
    """How a text's tokens become one vector (default: as the model's directory says, or mean)."""
    windows: bool = False
    """Pool texts that are too long over windows of them instead of truncating them."""
    unnormalized: bool = False
    """Keep the length of the vectors; otherwise as the model's directory says, or 1."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Precision of the model (auto: bf16 on CPUs with bf16 instructions)."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""
    threads: Annotated[int | None, unset("N")] = None
    """CPU threads (default: all cores)."""


def main(options: EmbedOptions) -> None:
    output = check(options)
    from fastbert.bert import load
    from fastbert.data.corpus.texts import read_texts
    from fastbert.inference.embedding import TruncatedTexts
    from fastbert.inference.vector_file import VectorFile, crc_of
    from fastbert.system.devices import set_threads
    from fastbert.system.progress import shown_progress

    set_threads(options.threads)
    bert = load(options.model, device=options.device, precision=options.precision)
    texts = read_texts(options.data, options.text_field)
    truncated: list[TruncatedTexts] = []  # in this session
    width = (bert.embedding and bert.embedding.dimensions) or bert.model.config.hidden_size
    with VectorFile(output, width, made_by(bert, options)) as file, shown_progress() as show:
        if done := file.rows:
            file.check_texts(functools.reduce(lambda crc, part: crc_of(part, crc), chunks(islice(texts, done)), 0))
            print(f"{output}: continuing after {done:,} texts", file=sys.stderr)
        started_s = time.monotonic()
        for part in chunks(texts):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", TruncatedTexts)
                vectors = bert.embed(
                    part, options.pooling, False if options.unnormalized else None, windows=options.windows
                )
            for warning in caught:
                if isinstance(warning.message, TruncatedTexts):
                    truncated.append(warning.message)
                else:
                    warnings.warn(warning.message, stacklevel=1)
            file.append(vectors, part)
            show(f"{file.rows:,} texts, {(file.rows - done) / (time.monotonic() - started_s):,.0f} a second")
        if not file.rows:
            raise InputError(f"{' '.join(options.data)}: no texts. Try: a file with a text on each line")
        file.finish()
    if truncated:
        warnings.warn(
            TruncatedTexts(sum(w.count for w in truncated), file.rows - done, truncated[0].max_length), stacklevel=1
        )
    seconds = time.monotonic() - started_s
    speed = (file.rows - done) / seconds
    print(f"{output}: {file.rows:,} vectors of {file.width} numbers; {seconds:.1f} s, {speed:,.0f} texts/s")


def check(options: EmbedOptions) -> Path:
    """The output path; raises InputError for one that cannot be written, before the model is loaded."""
    from fastbert.inference.vector_file import FORMATS

    require_count(options, "threads")
    output = Path(options.output)
    if output.suffix not in FORMATS:
        raise InputError(f"--output {options.output or 'is missing'}: expected a file name. Try: vectors{FORMATS[0]}")
    if output.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f'--output {output}: .parquet requires pyarrow. Try: pip install "fastbert[data]", or .npy')
    if output.exists():
        raise InputError(f"--output {output}: exists. Try: another name, or delete it")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: {output.parent} is not a directory. Try: an existing one")
    return output


def made_by(bert: "Bert", options: EmbedOptions) -> dict[str, Any]:
    """What the vectors depend on besides the texts, for JSON."""
    import torch

    crc = 0
    for tensor in bert.model.state_dict().values():
        crc = zlib.crc32(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy(), crc)
    return {
        "weights_crc32": crc,
        "tokenizer": bert.tokenizer.fingerprint(),
        "settings": None if bert.embedding is None else settings_of(bert.embedding),
        "pooling": options.pooling,
        "unnormalized": options.unnormalized,
        "precision": options.precision,
        **({"windows": True} if options.windows else {}),
    }


def settings_of(embedding: "EmbeddingSettings") -> dict[str, Any]:
    """What decides the vectors: prompts that are not asked for do not, nor a setting that files began without."""
    found = {name: value for name, value in asdict(embedding).items() if name != "prompts"}
    return found if found.pop("normalized_whole") is False else found | {"normalized_whole": True}


def chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    """Lists of up to CHUNK_TEXTS texts, or fewer long ones."""
    part: list[str] = []
    chars = 0
    for text in texts:
        part.append(text)
        chars += len(text)
        if len(part) == CHUNK_TEXTS or chars >= CHUNK_CHARS:
            yield part
            part, chars = [], 0
    if part:
        yield part


if __name__ == "__main__":
    sys.exit(run(main, EmbedOptions))
