"""``python -m fastbert.evaluate text | human make | human score``: evaluate texts, automatically and by people."""

import functools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastbert.system import cli
from fastbert.system.cli import Positional, UseAppendAction, run, unset
from fastbert.system.errors import InputError

if TYPE_CHECKING:
    from fastbert.metrics import Score

USAGE = """usage: python -m fastbert.evaluate COMMAND …   (COMMAND --help lists its options)

  text          BLEU, chrF, ROUGE, METEOR, CIDEr, exact match, F1, perplexity of texts
  human make    a blind, shuffled rating sheet for the texts of several systems
  human score   means, confidence intervals and agreement of the ratings"""
BY_REFERENCE = ("bleu", "chrf", "rouge", "meteor", "cider", "cider_d", "exact_match", "token_f1")
BY_MODEL = ("perplexity", "coherence")
ON_REQUEST = ("caption",)  # not in "all": other conventions under the same names
KNOWN = BY_REFERENCE + BY_MODEL + ON_REQUEST


@dataclass(frozen=True)
class TextOptions:
    """Score texts against references, and under a model.

    Files are UTF-8 with one text per line, or records (JSON lines, CSV, Parquet); text n of --ref is a reference for
    text n of --hyp.
    """

    hyp: str
    """File of the texts to score ("-" reads standard input)."""
    ref: UseAppendAction[list[str]] = field(default_factory=list)
    """File of references; repeat the option for several references per text."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field of the text in records (default: "text")."""
    metrics: list[str] = field(default_factory=lambda: ["all"])
    """all, or any of bleu chrf rouge meteor cider cider_d exact_match token_f1 perplexity coherence; also caption:
    Bleu, METEOR, ROUGE_L and CIDEr as the COCO caption tools compute them."""
    language: Literal["en", "pt", "any"] = "en"
    """Language of the texts, for words, stems, articles and synonyms; any: words of all scripts, and of those without
    spaces (Chinese, Thai …) each character."""
    model: Annotated[str | None, unset("RUN")] = None
    """Directory of a model, for perplexity (fluency) and coherence."""
    lowercase: bool = False
    """Lowercase the texts for BLEU and chrF; the other measures always do."""
    tokenize: str = "13a"
    """BLEU's tokenizer: 13a, intl, char, none …"""
    stem: bool = False
    """Compare stems in ROUGE and CIDEr."""
    stop_words: Literal["keep", "drop"] = "keep"
    """Function words in ROUGE."""
    allow_empty: bool = False
    """Score empty texts 0 instead of rejecting them."""
    json: bool = False
    """Print one JSON object with the score of each text."""


def evaluate_text(options: TextOptions) -> int:
    """Print the requested scores."""
    requested = requested_metrics(options)
    answers_only = set(requested) <= {"exact_match", "token_f1"}
    hypotheses = read_lines(options.hyp, options.allow_empty or answers_only, options.text_field)
    references = read_references(options, len(hypotheses), answers_only)
    scores: dict[str, Score] = {}
    skipped: dict[str, str] = {}
    for name, measure in measures(options, hypotheses, references).items():
        if name not in requested:
            continue
        try:
            result = measure()
        except InputError as error:
            if "all" not in options.metrics or name != "coherence":
                raise
            skipped[name] = str(error)
            continue
        scores |= result if isinstance(result, dict) else {name: result}
    if "all" in options.metrics and not options.model:
        skipped["perplexity"] = "needs --model RUN, as coherence does"
    if options.json:
        print(json.dumps(record(options, hypotheses, scores, skipped), ensure_ascii=False, indent=2))
    else:
        print_scores(options, hypotheses, scores, skipped)
    return 0


def requested_metrics(options: TextOptions) -> list[str]:
    """The requested names, checked; "all" depends on whether there are references and a model."""
    names = [name for given in options.metrics for name in given.replace(",", " ").split()]
    if "all" in names:
        return [*(BY_REFERENCE if options.ref else ()), *(BY_MODEL if options.model else ())]
    for name in names:
        if name not in KNOWN:
            raise InputError(f"--metrics {name}: expected all, or any of {', '.join(KNOWN)}")
        if name not in BY_MODEL and not options.ref:
            raise InputError(f"--metrics {name}: needs references. Try: --ref FILE")
        if name in BY_MODEL and not options.model:
            raise InputError(f"--metrics {name}: needs a model. Try: --model RUN")
    if not names:
        raise InputError("--metrics: no name given. Try: all")
    return names


def measures(options: TextOptions, hypotheses: list[str], references: list[list[str]]) -> dict[str, Callable[[], Any]]:
    """Every measure by name, with its settings from the options."""
    from fastbert import metrics

    empty, language, lowercase = options.allow_empty, options.language, options.lowercase

    @functools.cache
    def model() -> Any:
        from fastbert.bert import load

        assert options.model is not None
        return load(options.model)

    def both(measure: Callable, **settings: Any) -> Callable[[], Any]:
        return lambda: measure(hypotheses, references, **settings)

    return {
        "bleu": both(metrics.bleu, tokenize=options.tokenize, lowercase=lowercase, allow_empty=empty),
        "chrf": both(metrics.chrf, lowercase=lowercase, allow_empty=empty),
        "rouge": both(
            metrics.rouge, language=language, stem=options.stem, stop_words=options.stop_words == "keep",
            allow_empty=empty,
        ),
        "meteor": both(metrics.meteor, language=language, allow_empty=empty),
        "cider": both(metrics.cider, language=language, stem=options.stem, allow_empty=empty),
        "cider_d": both(metrics.cider_d, language=language, stem=options.stem, allow_empty=empty),
        "exact_match": both(metrics.exact_match, language=language),
        "token_f1": both(metrics.token_f1, language=language),
        "caption": both(metrics.caption_scores),
        "perplexity": lambda: metrics.perplexity(hypotheses, model()),
        "coherence": lambda: metrics.coherence(hypotheses, model()),
    }  # fmt: skip


def read_lines(path: str, allow_empty: bool, text_field: str | None = None) -> list[str]:
    """The texts of a file: its lines, or a field of its records.

    Raises:
        InputError: it cannot be read, is not UTF-8, has no texts or an empty one.
    """
    from fastbert.data.corpus.texts import read_texts

    texts = list(read_texts([path], text_field))
    if not texts:
        raise InputError(f"{path}: is empty. Try: a file with one text per line")
    for number, text in enumerate(texts, start=1):
        if not text.strip() and not allow_empty:
            raise InputError(f"{path}: line {number}: empty text. Try: --allow-empty, which scores it 0")
    return texts


def read_references(options: TextOptions, count: int, allow_empty: bool) -> list[list[str]]:
    """The references of each text, one from each file."""
    streams = []
    for path in options.ref:
        lines = read_lines(path, allow_empty, options.text_field)
        if len(lines) != count:
            raise InputError(
                f"{path}: has {len(lines)} texts, {options.hyp} {count}. Try: a reference for text n in line n"
            )
        streams.append(lines)
    return [list(texts) for texts in zip(*streams, strict=True)]


def record(options: TextOptions, hypotheses: list[str], scores: "dict[str, Score]", skipped: dict[str, str]) -> dict:
    return {
        "texts": len(hypotheses), "references": len(options.ref), "language": options.language,
        "metrics": {name: without_nan(score.record()) for name, score in scores.items()}, "skipped": skipped,
    }  # fmt: skip


def without_nan(value: Any) -> Any:
    """The value with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_scores(
    options: TextOptions, hypotheses: list[str], scores: "dict[str, Score]", skipped: dict[str, str]
) -> None:
    """Print a score per line with its signature, then the notes."""
    print(f"{len(hypotheses):,} texts, references per text: {len(options.ref)}, language {options.language}")
    for score in scores.values():
        best = f"of {score.scale:g}" if math.isfinite(score.scale) else ""
        print(f"  {score.name:<12} {score.score:10.4f} {best:<7} {score.signature}")
    for note in dict.fromkeys(note for score in scores.values() for note in score.notes):
        print(f"  note: {note}")
    for name, reason in skipped.items():
        print(f"  {name}: skipped: {reason}")


@dataclass(frozen=True)
class MakeOptions:
    """Make a blind, shuffled rating sheet for the texts of several systems.

    Writes sheet.html (for a browser, works offline), sheet.csv (for a spreadsheet) and key.json (the system of each
    text; do not show it to the raters).
    """

    system: UseAppendAction[list[str]]
    """NAME=FILE with a system's texts, one per line or record; repeat the option for each system."""
    output: Annotated[str, unset("DIR")]
    """Output directory."""
    source: Annotated[str | None, unset("FILE")] = None
    """File of the inputs, one per line or record, shown above the texts."""
    text_field: Annotated[str | None, unset("NAME")] = None
    """Field of the text in records (default: "text")."""
    criteria: list[str] = field(default_factory=lambda: ["relevance", "coherence", "fluency", "grammar"])
    """Criteria to rate."""
    points: int = 5
    """Ratings go from 1 to this (2 to 9)."""
    language: Literal["en", "pt"] = "en"
    """Language of the page."""
    title: Annotated[str | None, unset("TEXT")] = None
    """Title of the page."""
    sample: Annotated[int | None, unset("N")] = None
    """Number of inputs to rate, chosen at random (default: all)."""
    seed: int = 0
    """Seed of the order and of the sample."""


def human_make(options: MakeOptions) -> int:
    """Write the sheet."""
    from fastbert.evaluation.human import make_sheet

    systems: dict[str, list[str]] = {}
    for given in options.system:
        name, equals, path = given.partition("=")
        if not equals or not name or not path:
            raise InputError(f"--system {given}: expected NAME=FILE")
        if name in systems:
            raise InputError(f"--system {name}: given twice. Try: a different name for each system")
        systems[name] = read_lines(path, False, options.text_field)
    sources = read_lines(options.source, True, options.text_field) if options.source else None
    sheet = make_sheet(
        systems, sources, criteria=options.criteria,
        points=options.points, language=options.language, title=options.title, sample=options.sample, seed=options.seed,
    )  # fmt: skip
    html = sheet.write(options.output)
    print(
        f"{len(sheet.items)} texts of {len(systems)} systems, {len(sheet.criteria)} criteria, 1 to {sheet.points}\n"
        f"  for the raters: {html} (a browser) or {html.with_suffix('.csv')} (a spreadsheet)\n"
        f"  for you alone:  {html.with_name('key.json')}\n"
        f"then: python -m fastbert.evaluate human score {options.output} answers-*.json"
    )
    return 0


@dataclass(frozen=True)
class ScoreOptions:
    """Means with confidence intervals, inter-rater agreement, and differences between systems."""

    key: Positional[str]
    """Directory of the sheet, or its key.json."""
    answers: Positional[list[str]]
    """Files saved by the raters (.json), or completed sheets (.csv)."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: bool = False
    """Print one JSON object."""


def human_score(options: ScoreOptions) -> int:
    """Print a summary of the ratings."""
    from fastbert.evaluation.human import read_answers, read_key, summarize

    key = read_key(options.key)
    summary = summarize(read_answers(options.answers, key), key, seed=options.seed)
    if options.json:
        print(json.dumps(without_nan(summary.record()), ensure_ascii=False, indent=2))
        return 0
    print(
        f"{summary.ratings:,} of {summary.expected_ratings:,} ratings by {len(summary.raters)} raters "
        f"({', '.join(summary.raters)})"
    )
    for mean in summary.means:
        interval = f"[{mean.low:.2f}, {mean.high:.2f}]" if math.isfinite(mean.low) else "[needs two inputs]"
        print(f"  {mean.criterion:<12} {mean.system:<16} {mean.mean:.2f}  {interval}  {mean.ratings} ratings")
    print("agreement (Krippendorff's alpha)")
    for agreement in summary.agreements:
        print(f"  {agreement.criterion:<12} {agreement.reason or format(agreement.alpha, '.3f')}")
    if summary.differences:
        print("differences")
    for d in summary.differences:
        verdict = "differ" if d.significant else "no significant difference"
        print(
            f"  {d.criterion:<12} {d.first} − {d.second} = {d.difference:+.2f}  [{d.low:+.2f}, {d.high:+.2f}]  "
            f"p = {d.p:.4f}  {verdict}"
        )
    print(summary.settings)
    return 0


COMMANDS: dict[str, tuple[Callable[[Any], int], type]] = {
    "text": (evaluate_text, TextOptions),
    "human make": (human_make, MakeOptions),
    "human score": (human_score, ScoreOptions),
}


def main(argv: list[str]) -> int:
    """Run the command named by the first arguments with the rest."""
    words = 2 if argv[:1] == ["human"] else 1
    name = " ".join(argv[:words])
    if name in ("-h", "--help"):
        print(USAGE)
        return 0
    if name == "--version":
        return run(evaluate_text, TextOptions, [name])
    if name not in COMMANDS:
        print(f"error: {name or 'no command'}: expected text, human make, or human score", file=sys.stderr)
        return 2
    command, options = COMMANDS[name]
    return run(command, options, argv[words:], prog=f"{cli.LAUNCHER}evaluate {name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
