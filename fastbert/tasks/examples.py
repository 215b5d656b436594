"""Examples of the tasks, read from files and checked: a fault is one line with file, line number and remedy."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastbert.data.corpus.records import Record, is_table, read_lines, read_records
from fastbert.system.errors import InputError
from fastbert.tasks.tag_schemes import BIO, OUTSIDE, bio_faults, find_scheme, is_iob1

Task = Literal["classification", "regression", "tagging", "qa"]
TEXT_NAMES = ("text", "text_a", "sentence", "sentence1", "premise")
PAIR_NAMES = ("text_b", "text_pair", "sentence2", "hypothesis")
LABEL_NAMES = ("label", "score")
TAGS_NAMES = ("tags", "ner_tags", "labels")
_WORD = re.compile(r"[^\W_](?:\S*[^\W_])?|\S")


@dataclass(frozen=True)
class FieldNames:
    """What the user's records call things; None: the usual names."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class TextExample:
    """A text or a pair, with its class (a name) or its number."""

    where: str
    text: str
    pair: str | None = None
    label: str | float | None = None


@dataclass(frozen=True)
class TaggedExample:
    """Words with a tag each, in any scheme; ``text`` where the words were found in running text."""

    where: str
    tokens: list[str]
    tags: list[str] | None = None
    text: str | None = None


@dataclass(frozen=True)
class QuestionExample:
    """A question about a context; ``answers`` are (text, first character), none for an unanswerable question."""

    where: str
    id: str
    question: str
    context: str
    answers: list[tuple[str, int]] = field(default_factory=list)
    gold_texts: list[str] = field(default_factory=list)  # to compare with, those that are not in the context too


Example = TextExample | TaggedExample | QuestionExample


@dataclass
class Notes:
    """Things that were put right while reading, to be told in one line each."""

    counts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        self.counts.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        return [f"note: {len(places)} × {what} (first: {places[0]})" for what, places in self.counts.items()]


def read_examples(
    path: str, task: Task, *, fields: FieldNames | None = None, notes: Notes | None = None, labelled: bool = True
) -> list[Any]:
    """Read and check a whole file.

    Args:
        path: .jsonl, .csv, .tsv, SQuAD's .json; also compressed. Without labels also .txt, a text a line.
        task: decides the fields that are asked for.
        labelled: False: labels are neither needed nor looked at.

    Raises:
        InputError: one line with file, line number and remedy.
    """
    fields, notes = fields or FieldNames(), notes or Notes()
    if not labelled and task != "qa" and not is_table(path):
        return [plain_example(row, where, task) for where, row in read_lines(path)]
    parse: Callable[[str, Record], Any] = {
        "classification": lambda where, r: _text_example(where, r, fields, labelled, number=False),
        "regression": lambda where, r: _text_example(where, r, fields, labelled, number=True),
        "tagging": lambda where, r: _tagged_example(where, r, fields, labelled),
        "qa": lambda where, r: _question_example(where, r, fields, labelled, notes),
    }[task]
    examples = [parse(where, record) for where, record in read_records(path)]
    if task == "tagging" and labelled:
        _settle_tags(examples, notes)
    return examples


def plain_example(text: str, where: str, task: Task) -> TextExample | TaggedExample:
    """A line of plain text as an example without a label; a tab separates the two texts of a pair."""
    if task == "tagging":
        return tagged_text(text, where)
    first, _, second = text.partition("\t")
    return TextExample(where, first, second or None)


def tagged_text(text: str, where: str = "") -> TaggedExample:
    """The words of running text, without tags."""
    return TaggedExample(where, [text[a:b] for a, b in word_spans(text)], None, text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Characters of each word: what stands between white space, marks at its ends being words of their own."""
    return [match.span() for match in _WORD.finditer(text)]


def has_pairs(examples: Sequence[TextExample]) -> bool:
    """Whether these are pairs.

    Raises:
        InputError: some are and some are not.
    """
    pairs = examples[0].pair is not None
    for example in examples:
        if (example.pair is not None) != pairs:
            what = "a second text" if pairs else "no second text"
            raise InputError(f"{example.where}: the records before it have {what}, this one differs: repair it")
    return pairs


def looks_like_numbers(path: str, fields: FieldNames) -> bool:
    """Whether the labels are numbers and not classes: all numeric, and one of them written with a decimal point."""
    pointed = False
    for where, record in read_records(path):
        value = _value(record, where, fields.label, LABEL_NAMES, "label")
        if isinstance(value, str):
            try:
                pointed |= "." in value and float(value) is not None
                float(value)
            except ValueError:
                return False
        elif isinstance(value, bool) or not isinstance(value, int | float):
            return False
        else:
            pointed |= isinstance(value, float)
    return pointed


# ---- fields ----
def _value(record: Record, where: str, named: str | None, usual: Sequence[str], option: str) -> Any:
    names = (named,) if named else usual
    for name in names:
        if name in record:
            return record[name]
    there = ", ".join(map(repr, record)) or "none"
    remedy = f"rename it, or name yours with --{option}-field" if option else "rename it"
    raise InputError(f"{where}: has no field {names[0]!r}, but {there}: {remedy}")


def _text(value: Any, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} is {_shown(value)}, expected a string: put it in quotes")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _text_example(where: str, record: Record, fields: FieldNames, labelled: bool, number: bool) -> TextExample:
    text = _text(_value(record, where, fields.text, TEXT_NAMES, "text"), where, "the text")
    pair = None
    if fields.pair or any(name in record for name in PAIR_NAMES):
        pair = _text(_value(record, where, fields.pair, PAIR_NAMES, "pair"), where, "the second text")
    elif "text_a" in record:
        _value(record, where, None, PAIR_NAMES, "pair")
    label: str | float | None = None
    if labelled:
        value = _value(record, where, fields.label, LABEL_NAMES, "label")
        label = _number(value, where) if number else _class_name(value, where)
    return TextExample(where, text, pair, label)


def _number(value: Any, where: str) -> float:
    try:
        number = float("x" if isinstance(value, bool) or value is None else value)
    except (ValueError, TypeError):
        raise InputError(f"{where}: label {_shown(value)} is no number: regression needs one") from None
    if not -1e30 < number < 1e30:
        raise InputError(f"{where}: label {_shown(value)}: expected a finite number")
    return number


def _class_name(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise InputError(f"{where}: label {value} is a number with a fraction: use --task regression, or name classes")
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: label {_shown(value)}: expected the name of a class, or a whole number")
    return value.strip()


def _words(value: Any, where: str, name: str) -> list[str]:
    if isinstance(value, str):  # of a CSV file
        value = value.split()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InputError(f'{where}: {name}: expected a list of strings, like ["O", "B-PER"], got {_shown(value)}')
    return value


def _tagged_example(where: str, record: Record, fields: FieldNames, labelled: bool) -> TaggedExample:
    if not labelled and "tokens" not in record and isinstance(record.get("text"), str):
        return tagged_text(record["text"], where)
    tokens = _words(_value(record, where, fields.text, ("tokens", "words"), "text"), where, "tokens")
    if not tokens:
        raise InputError(f"{where}: has no tokens: drop the record")
    if not labelled:
        return TaggedExample(where, tokens)
    tags = _words(_value(record, where, fields.label, TAGS_NAMES, "label"), where, "tags")
    if len(tags) != len(tokens):
        raise InputError(f"{where}: has {len(tokens)} tokens and {len(tags)} tags: give every token one tag")
    return TaggedExample(where, tokens, tags)


def _settle_tags(examples: Sequence[TaggedExample], notes: Notes) -> None:
    """Find the scheme of a file's tags: IOB1 becomes BIO, every other scheme stays as it is written.

    Raises:
        InputError: BIO in which an I- continues nothing.
    """
    sentences = [example.tags or [] for example in examples]
    if find_scheme({tag for tags in sentences for tag in tags}) != BIO:
        return
    fault = next(bio_faults(sentences), None)
    if fault is None:
        return
    if is_iob1(sentences):
        for i, example in enumerate(examples):
            if (converted := BIO.as_bio(sentences[i])) != sentences[i]:
                notes.add("a sentence with IOB1 tags: read as BIO", example.where)
                examples[i].tags[:] = converted  # type: ignore[index]
        return
    number, word = fault
    where, tags = examples[number].where, sentences[number]
    before = tags[word - 1] if word else OUTSIDE
    raise InputError(
        f"{where}: tag {word + 1} is {tags[word]!r} after {before!r}, and elsewhere entities begin with B-. "
        f"Try: B-{tags[word][2:]}"
    )


# ---- questions ----
def _question_example(where: str, record: Record, fields: FieldNames, labelled: bool, notes: Notes) -> QuestionExample:
    context = _text(_value(record, where, fields.text, ("context",), "text"), where, "context")
    question = _text(_value(record, where, None, ("question",), ""), where, "question")
    name = str(record.get("id") or where.rpartition(" ")[2])
    if not labelled:
        return QuestionExample(where, name, question, context)
    if record.get("impossible") is True or record.get("is_impossible") is True:
        return QuestionExample(where, name, question, context)
    given = list(_answers(record, where))
    found = [(text, place) for text, start in given if (place := _place(text, start, context, where, notes)) >= 0]
    if given and not found:
        text = given[0][0]
        raise InputError(
            f"{where}: the answer {_shown(text)} is not in its context: copy it from there letter by letter, "
            "or give no answer for a question that has none"
        )
    return QuestionExample(where, name, question, context, found, [text for text, _ in given])


def _answers(record: Record, where: str) -> Iterator[tuple[str, int | None]]:
    """(text, start or None) of every answer, in any of the layouts in use."""
    if "answers" not in record and "answer" in record:  # CSV
        value: Any = {"text": record["answer"], "answer_start": record.get("answer_start")}
    else:
        value = _value(record, where, None, ("answers",), "")
    if value is None:
        return
    rows: Iterable[Any]
    if isinstance(value, dict):
        if "text" not in value:
            raise InputError(f'{where}: answers has no \'text\': write {{"text": …, "answer_start": …}}')
        texts, starts = value["text"], value.get("answer_start", value.get("start"))
        if not isinstance(texts, list):
            texts, starts = ([texts], [starts]) if texts else ([], [])
        starts = [None] * len(texts) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise InputError(f"{where}: answers has {len(texts)} texts and another number of answer_start: pair them")
        rows = zip(texts, starts, strict=True)
    elif isinstance(value, list):
        if not all(isinstance(row, dict) and "text" in row for row in value):
            raise InputError(f'{where}: answers: expected a list of {{"text": …, "answer_start": …}}')
        rows = ((row["text"], row.get("answer_start", row.get("start"))) for row in value)
    else:
        raise InputError(f'{where}: answers is {_shown(value)}, expected {{"text": …, "answer_start": …}}')
    for text, start in rows:
        if isinstance(start, str) and start.strip().lstrip("-").isdigit():
            start = int(start)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: an answer's text is {_shown(text)}: for a question without one give no answers")
        if start not in (None, "") and (isinstance(start, bool) or not isinstance(start, int)):
            raise InputError(f"{where}: answer_start is {_shown(start)}, expected the answer's first character, from 0")
        yield text, start if isinstance(start, int) else None


def _place(text: str, start: int | None, context: str, where: str, notes: Notes) -> int:
    """First character of the answer: ``start`` if it stands there, else its nearest occurrence; -1: nowhere."""
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    places = [match.start() for match in re.finditer(re.escape(text), context)]
    if not places:
        notes.add("an answer that is not in its context, beside others that are: left out", where)
        return -1
    if start is not None:
        notes.add("an answer that does not stand at its answer_start: its nearest occurrence is taken", where)
    return min(places, key=lambda place: abs(place - (start or 0)))
