"""``python -m fastbert.predict MODEL "O [MASK] é azul."``: predictions of a trained model."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastbert.system.atomic_write import written_whole
from fastbert.system.cli import Positional, run, unset
from fastbert.system.errors import InputError
from fastbert.system.json_files import json_line
from fastbert.system.option_checks import flag, require_count

if TYPE_CHECKING:
    from fastbert.bert import Bert

Record = dict[str, Any]


@dataclass(frozen=True)
class PredictOptions:
    """Fill the [MASK]s of texts, or predict classes, numbers, entities or answers with a fine-tuned model.

    MODEL is a trained or fine-tuned run or a Hugging Face directory (BERT, RoFormer or ModernBERT); its head decides.
    Without a text, lines are read from standard input. A single text that is the name of a file stands for its content:
    lines of a .txt, or JSON lines and CSV with the fields of fine-tuning, without labels.
    """

    model: Positional[str]
    """Directory of the model."""
    texts: Positional[list[str]] = field(default_factory=list)
    """Texts, or one file; "-" reads lines from standard input. A tab separates the two texts of a pair."""
    top_k: Annotated[int | None, unset("N")] = None
    """Predictions for each [MASK] (default: 5), answers to each question (default: 1)."""
    next: Annotated[str | None, unset("SENTENCE")] = None
    """A sentence: print the probability that it follows each text (models trained with mlm+nsp)."""
    pair: Annotated[str | None, unset("TEXT")] = None
    """The second text of a pair, for models fine-tuned on pairs."""
    question: Annotated[str | None, unset("TEXT")] = None
    """The question; the texts are its contexts (models fine-tuned on questions)."""
    max_answer_tokens: Annotated[int | None, unset("N")] = None
    """The longest answer to a question (default: as fine-tuned, 60)."""
    unanswerable: bool = False
    """A question may have no answer, also if the model was fine-tuned elsewhere (ours know whether)."""
    windows: bool = False
    """Split single texts that are too long into windows, whose logits are averaged, instead of truncating them (a
    model that was fine-tuned so does it anyway)."""
    output: Annotated[str | None, unset("FILE")] = None
    """Write JSON lines to this file, complete or not at all."""
    json: bool = False
    """One JSON object per line instead of text."""
    device: Annotated[str | None, unset("NAME")] = None
    """cpu, cuda … (default: cpu)."""


def main(options: PredictOptions) -> int:
    require_count(options, "top_k", "max_answer_tokens")
    if options.output is not None and not (folder := Path(options.output).parent).is_dir():
        raise InputError(f"--output {options.output}: {folder} is not a directory. Try: an existing one")
    from fastbert.bert import load

    bert = load(options.model, device=options.device)
    head = bert.task_model
    records: Iterator[Record]
    if options.next is not None:
        records = (follow(bert, text, options.next) for text in texts_of(options))
    elif head is None:
        reject_extras(options, "fills masks")
        records = fill_all(bert, texts_of(options), options.top_k or 5, file_of(options))
    else:
        records = predict(bert, options)
    if options.output is not None:
        write(Path(options.output), records)
        return 0
    for record in records:
        print(json_line(record).rstrip("\n") if options.json else as_text(record), flush=True)
    return 0


def write(path: Path, records: Iterator[Record]) -> None:
    """Write JSON lines through a temporary file; a failure leaves nothing."""
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json_line(record))


def reject_extras(options: PredictOptions, what: str, *allowed: str) -> None:
    for name in ("pair", "question", "max_answer_tokens", "unanswerable", "windows"):
        if getattr(options, name) not in (None, False) and name not in allowed:
            raise InputError(f"{flag(name)}: this model {what}. Try: a model fine-tuned for it")


# ---- inputs ----
def file_of(options: PredictOptions) -> str | None:
    """The file, if a single text is the name of one."""
    single = options.texts[0] if len(options.texts) == 1 else ""
    return single if single != "-" and single and len(single) < 4096 and os.path.isfile(single) else None


def texts_of(options: PredictOptions) -> Iterator[str]:
    """The given texts, those of the file, or the non-empty lines of standard input."""
    if path := file_of(options):
        from fastbert.tasks.examples import read_examples

        yield from (example.text for example in read_examples(path, "classification", labelled=False))
    elif options.texts and options.texts != ["-"]:
        yield from options.texts
    else:
        try:
            for line in sys.stdin:
                if line.strip():
                    yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"standard input: not UTF-8 (byte {error.start} of a block). Try: iconv") from None


def predict(bert: "Bert", options: PredictOptions) -> Iterator[Record]:
    """The predictions of a fine-tuned model, in the order of the inputs."""
    from fastbert.tasks.examples import QuestionExample, TextExample, plain_example, read_examples

    assert bert.task_model is not None
    task = bert.task_model.settings.task
    allowed = {"qa": ["question", "max_answer_tokens", "unanswerable"], "tagging": []}.get(task, ["pair", "windows"])
    reject_extras(options, f"was fine-tuned for {task}", *allowed)
    examples: list[Any]
    if (path := file_of(options)) and not (task == "qa" and options.question is not None):
        examples = read_examples(path, task, labelled=False)  # type: ignore[arg-type]
    elif task == "qa":
        if options.question is None:
            raise InputError("--question: is missing, this model answers questions. Try: it and a context, or a file")
        examples = [QuestionExample("", str(i), options.question, t) for i, t in enumerate(contexts(options), start=1)]
    elif options.pair is not None:
        examples = [TextExample("", text, options.pair) for text in texts_of(options)]
    else:
        examples = [plain_example(text, "", task) for text in texts_of(options)]  # type: ignore[arg-type]
    if task == "qa":
        yield from answer(bert, examples, options)
    elif task == "tagging":
        yield from tag(bert, examples)
    else:
        yield from classify(bert, examples, options.windows or None)


def contexts(options: PredictOptions) -> Iterator[str]:
    """A text file is one context, with all its lines."""
    if path := file_of(options):
        try:
            yield Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}). Try: save it as UTF-8") from None
    else:
        yield from texts_of(options)


# ---- predictions ----
def fill_all(bert: "Bert", texts: Iterator[str], top_k: int, file: str | None = None) -> Iterator[Record]:
    """Predictions for the masks of each text (of a file); among several, one that does not fit is named and skipped."""
    refused: list[tuple[int, InputError]] = []
    number = 0
    for number, text in enumerate(texts, start=1):
        try:
            answer = bert.fill_mask(text, top_k=top_k)
        except InputError as error:
            refused.append((number, error))
            continue
        yield {"text": text, "masks": [answer] if isinstance(answer[0], dict) else answer}
    if len(refused) == number and refused:
        position, first = refused[0]
        raise InputError(f"{file}: text {position}: {first}") if file else first
    for position, reason in refused:
        print(f"warning: text {position} is skipped: {reason}", file=sys.stderr)


def follow(bert: "Bert", text: str, sentence: str) -> Record:
    return {"text": text, "next": sentence, "follows": bert.next_sentence(text, sentence)}


def classify(bert: "Bert", examples: list[Any], windows: bool | None) -> Iterator[Record]:
    from fastbert.tasks.examples import has_pairs

    pairs = [example.pair for example in examples] if examples and has_pairs(examples) else None
    answers = bert.classify([example.text for example in examples], pairs, windows)
    for example, given in zip(examples, answers, strict=True):
        record = {"text": example.text} if example.pair is None else {"text_a": example.text, "text_b": example.pair}
        yield record | (given if isinstance(given, dict) else {"predicted": given})


def tag(bert: "Bert", examples: list[Any]) -> Iterator[Record]:
    from fastbert.tasks import prediction
    from fastbert.tasks.examples import word_spans

    assert bert.task_model is not None
    tags, scores = prediction.tag_words(bert.task_model, bert.tokenizer, examples)
    for example, predicted, confidence in zip(examples, tags, scores, strict=True):
        if example.text is None:
            yield {"tokens": example.tokens, "tags": predicted, "scores": [round(score, 4) for score in confidence]}
        else:
            labels = bert.task_model.settings.labels
            found = prediction.entities(example.text, word_spans(example.text), predicted, confidence, labels)
            yield {"text": example.text, "entities": found}


def answer(bert: "Bert", examples: list[Any], options: PredictOptions) -> Iterator[Record]:
    from fastbert.tasks import prediction

    assert bert.task_model is not None
    answers = prediction.answer(
        bert.task_model, bert.tokenizer, examples, options.top_k or 1, options.max_answer_tokens,
        options.unanswerable or None,
    )  # fmt: skip
    for example, found in zip(examples, answers, strict=True):
        yield {"id": example.id, "question": example.question, "answers": found}


def as_text(record: Record) -> str:
    """A record as lines of text."""
    text = "\t".join(record[name] for name in ("text", "text_a", "text_b") if name in record)
    lines = [text] if text else []
    if "masks" in record:
        for number, predictions in enumerate(record["masks"], start=1):
            if len(record["masks"]) > 1:
                lines.append(f"  [MASK] {number} of {len(record['masks'])}")
            lines += [f"  {p['score']:6.1%}  {p['token_str']:<16}  {p['sequence']}" for p in predictions]
    elif "follows" in record:
        verdict = "follows" if record["follows"] > 0.5 else "does not follow"
        lines.append(f"  {record['follows']:6.1%}  {verdict}: {record['next']}")
    elif "scores" in record and "label" in record:
        ranked = sorted(record["scores"].items(), key=lambda item: -item[1])[:5]
        lines += [f"  {score:6.1%}  {label}" for label, score in ranked]
    elif "scores" in record and "labels" in record:
        ranked = sorted(record["scores"].items(), key=lambda item: -item[1])[: max(5, len(record["labels"]))]
        lines += [f"{'✓' if label in record['labels'] else ' ':>3}{score:6.1%}  {label}" for label, score in ranked]
    elif "predicted" in record:
        lines.append(f"  {record['predicted']:.3f}")
    elif "entities" in record:
        lines += [
            f"  {e['score']:6.1%}  {e['entity']:<16}  {e['text']}  ({e['start']}–{e['end']})"
            for e in record["entities"]
        ] or ["  (no entities)"]
    elif "tags" in record:
        lines.append("  ".join(f"{token}/{tag}" for token, tag in zip(record["tokens"], record["tags"], strict=True)))
    elif "answers" in record:
        lines.append(record["question"])
        lines += [
            f"  {a['score']:6.1%}  {a['answer'] or '(no answer)'}  ({a['start']}–{a['end']})" for a in record["answers"]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main, PredictOptions))
