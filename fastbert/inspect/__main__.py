"""``python -m fastbert.inspect``: look at a corpus before anything is trained."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastbert.data.corpus.reading import ReadingRules
from fastbert.inspect import advice, clues, vocabulary
from fastbert.inspect.report import Report
from fastbert.inspect.survey import survey
from fastbert.system import html_page
from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.option_checks import require_count
from fastbert.text import Tokenizer, TokenizerOptions

SMALL_CORPUS_BYTES = 100_000  # below: a word seen once may become a piece, as in training


@dataclass(frozen=True)
class InspectOptions:
    """Look at text before training: what is read, what is wrong with it, and which options suit it.

    Reads everything once, in bounded memory, and trains nothing but a vocabulary.
    """

    data: Positional[tuple[str, ...]]
    """Files, folders, globs, URLs, "-" for standard input, or bundled:pt and bundled:en, as for --data of
    `python -m fastbert.train`."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field with the text in records; default "text"."""
    documents: str = "blank"
    """What ends a document of plain text: a blank line, every line (line), only the file (file), or a separator."""
    normalize: Literal["nfc", "none"] = "nfc"
    """nfc composes letters and their accents to one character; none keeps the text as it is."""
    tokenizer: Annotated[Path | None, unset("DIR")] = None
    """Directory with the vocabulary to count tokens with; default: one is trained on the text."""
    vocab_size: int = 8192
    """Size of that vocabulary."""
    lowercase: bool = False
    """Train an uncased vocabulary."""
    max_word_chars: Annotated[int | None, unset("N")] = None
    """Longer words are one [UNK]; default 100, or that of the tokenizer."""
    threads: Annotated[int | None, unset("N")] = None
    """Threads for counting words; default: all CPUs of the process."""
    json: bool = False
    """Print JSON."""
    html: Annotated[Path | None, unset("FILE")] = None
    """Also write a self-contained page."""


def main(options: InspectOptions) -> None:
    if not options.data:
        raise InputError("no input. Try: a file, folder, glob, URL, '-' or 'bundled:pt'")
    require_count(options, "vocab_size", "max_word_chars", "threads")
    report = inspect(options)
    if options.html is not None:
        html_page.write(options.html, report.page())
    print(json.dumps(report.record(), ensure_ascii=False, indent=2) if options.json else report)


def inspect(options: InspectOptions) -> Report:
    """Survey the text and draw the conclusions."""
    rules = ReadingRules(options.text_field, options.documents, options.normalize)
    tokenizer = None
    if options.tokenizer is not None:
        tokenizer = Tokenizer.load(options.tokenizer, max_input_chars_per_word=options.max_word_chars)
    settings = tokenizer.options if tokenizer else TokenizerOptions(options.lowercase, strip_accents=False)
    if options.max_word_chars is not None and tokenizer is None:
        settings = TokenizerOptions(
            options.lowercase, strip_accents=False, max_input_chars_per_word=options.max_word_chars
        )
    found = survey(options.data, rules, settings, options.threads)
    assert found.corpus is not None
    with found.corpus as corpus:
        seen = clues.quick_findings(corpus, found.num_documents)
    if tokenizer is not None:
        spelling = vocabulary.spell(found, tokenizer)
    else:
        frequency = 1 if found.num_bytes < SMALL_CORPUS_BYTES else 2
        trained = vocabulary.trained_tokenizer(found, settings, options.vocab_size, frequency)
        spelling = vocabulary.spell(found, trained, room=options.vocab_size)
    findings = [*advice.problems(found, spelling), *seen]
    findings.sort(key=lambda finding: not finding.severe)
    return Report(options.data, found, spelling, findings, advice.suggestions(found, spelling))


if __name__ == "__main__":
    sys.exit(run(main, InspectOptions))
