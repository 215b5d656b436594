"""Examples of the tasks, read from files and checked.

A fault is one line with file, line number and remedy; whatever in a file is not used is counted in :class:`Notes`.
"""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from fastbert.data.corpus.records import Record, is_table, read_lines, read_records
from fastbert.system.errors import InputError
from fastbert.system.marks import mark_class
from fastbert.tasks.columns import read_columns
from fastbert.tasks.questions import QuestionExample as QuestionExample
from fastbert.tasks.questions import question_example
from fastbert.tasks.record_fields import FieldNames, Notes, note_unused, shown, text_of, value_of
from fastbert.tasks.tag_schemes import BIO, OUTSIDE, bio_faults, find_scheme, is_iob1, is_outside

Task = Literal["classification", "regression", "tagging", "qa"]
# the first pair of names that a record has, else the first single name
PAIR_NAMES = (
    ("text_a", "text_b"), ("text", "text_b"), ("text", "text_pair"), ("sentence1", "sentence2"),
    ("sentence_A", "sentence_B"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("question", "passage"), ("query", "passage"), ("anchor", "positive"),
)  # fmt: skip
TEXT_NAMES = ("text", "text_a", "sentence", "sentence1", "premise", "tweet", "review", "content")
LABEL_NAMES = ("label", "labels", "score", "class", "target", "gold_label")
TAGS_NAMES = ("tags", "ner_tags", "labels", "pos_tags")
SPANS_NAMES = ("entities", "spans", "label", "labels")  # of entities given by their characters
MISSING_LABELS = ("-1", "-")  # how GLUE and SNLI write "no label"
MAX_MISSING_SHARE = 0.05  # of the examples; above, these are classes
_POINTED = re.compile(r"-?\d+\.0+")  # a class as pandas writes the integers of a column with gaps
_FRACTION = re.compile(r"-?\d+[.,]\d*[1-9]\d*")
_WHOLE = re.compile(r"-?\d{1,9}(\.0+)?")
_ARRAY = re.compile(r"^\s*\[\s*([\d.]+\s+[\d.]|('[^']*'|\"[^\"]*\")\s+['\"])")  # without commas


@dataclass(frozen=True)
class TextExample:
    """A text or a pair, with its class, its classes (of a task with several labels) or its number."""

    where: str
    text: str
    pair: str | None = None
    label: str | tuple[str, ...] | float | None = None


@dataclass(frozen=True)
class TaggedExample:
    """Words with a tag each, in any scheme; ``text`` where the words were found in running text."""

    where: str
    tokens: list[str]
    tags: list[str] | None = None
    text: str | None = None


def read_examples(
    path: str, task: Task, *, fields: FieldNames | None = None, notes: Notes | None = None, labelled: bool = True
) -> list[Any]:
    """Read and check a whole file.

    Args:
        path: .jsonl, .csv, .tsv, SQuAD's .json, also compressed; tagging: also columns (CoNLL, BIO, CoNLL-U) in a file
            with any other ending. Without labels also .txt, a text per line.
        task: decides the fields that are read.
        labelled: False: labels are neither required nor read.

    Raises:
        InputError: one line with file, line number and remedy.
    """
    fields, notes = fields or FieldNames(), notes or Notes()
    if not labelled and task != "qa" and not is_table(path):
        return [plain_example(row, where, task) for where, row in read_lines(path)]
    parse: Callable[[str, Record], Any] = {
        "classification": lambda where, r: _text_example(where, r, fields, labelled, notes, number=False),
        "regression": lambda where, r: _text_example(where, r, fields, labelled, notes, number=True),
        "tagging": lambda where, r: _tagged_example(where, r, fields, labelled, notes),
        "qa": lambda where, r: question_example(where, r, fields, labelled, notes),
    }[task]
    records = read_columns(path) if task == "tagging" and not is_table(path) else read_records(path)
    examples = [parse(where, record) for where, record in records]
    if not examples:
        raise InputError(f"{path}: no sentences found. Try: a word and its tag on each line")
    if task == "tagging" and labelled:
        _settle_tags(examples, notes)
    if task == "classification" and labelled:
        examples = _with_one_spelling(_settle_labels(_without_missing_labels(examples, notes), fields, notes), notes)
    return examples


def _settle_labels(examples: list[TextExample], fields: FieldNames, notes: Notes) -> list[TextExample]:
    """Where some text has a list of labels, all have; rows of 0 and 1, one for each class, become names."""
    if not any(isinstance(example.label, tuple) for example in examples):
        return examples
    lists = [e.label if isinstance(e.label, tuple) else (str(e.label),) for e in examples]
    width = len(lists[0])
    if width > 1 and all(len(row) == width and set(row) <= {"0", "1"} for row in lists):
        names = fields.label_names or tuple(map(str, range(width)))
        if len(names) != width:
            raise InputError(
                f"{examples[0].where}: has {width} labels, --label-names {len(names)}. Try: a name for each"
            )
        notes.add("labels of 0 and 1: one for each class", examples[0].where)
        lists = [tuple(name for name, value in zip(names, row, strict=True) if value == "1") for row in lists]
    elif all(set(row) <= {"0", "1"} for row in lists) and any(len(row) > len(set(row)) for row in lists):
        e = next(e for e, row in zip(examples, lists, strict=True) if len(row) != width)
        raise InputError(f"{e.where}: has labels of 0 and 1, but not {width} as others. Try: one for each class")
    elif fields.label_names:
        lists = [
            tuple(_class_name(v, e.where, fields.label_names) for v in row)
            for e, row in zip(examples, lists, strict=True)
        ]
    return [replace(e, label=row) for e, row in zip(examples, lists, strict=True)]


def _with_one_spelling(examples: list[TextExample], notes: Notes) -> list[TextExample]:
    """1 and 1.0 are one class where a file writes both; a line where names differ only in case."""
    names = {example.label for example in examples if isinstance(example.label, str)}
    by_case: dict[str, str] = {}
    for example in examples:
        if isinstance(example.label, str):
            first = by_case.setdefault(example.label.casefold(), example.label)
            if first != example.label:
                notes.add(f"the labels {first!r} and {example.label!r} differ only in case", example.where)
            if _FRACTION.fullmatch(example.label):
                notes.add(
                    "a label that is a fraction is taken for a class; --task regression reads numbers", example.where
                )
    whole = {name: name.partition(".")[0] for name in names if _POINTED.fullmatch(name)}
    if not any(short in names for short in whole.values()):
        return examples
    for example in examples:
        if example.label in whole:
            notes.add(f"the label {example.label!r} is read as {whole[example.label]!r}", example.where)  # type: ignore
    return [replace(e, label=whole.get(e.label, e.label)) for e in examples]  # type: ignore[arg-type]


def _without_missing_labels(examples: list[TextExample], notes: Notes) -> list[TextExample]:
    """Leave out examples with GLUE's -1 or SNLI's "-", where these are not classes."""
    for missing in MISSING_LABELS:
        found = [example for example in examples if example.label == missing]
        if not found:
            continue
        if len(found) == len(examples):
            raise InputError(f"{found[0].where}: all examples have the label {missing!r}, no label. Try: another file")
        if len(found) <= MAX_MISSING_SHARE * len(examples):
            for example in found:
                notes.add(f"an example with the label {missing!r}, no label, is left out", example.where)
            examples = [example for example in examples if example.label != missing]
        elif missing == "-1":
            notes.add("the label '-1' is taken for a class", found[0].where)
    return examples


def plain_example(text: str, where: str, task: Task) -> TextExample | TaggedExample:
    """A line of text as an example without a label; a tab separates the two texts of a pair."""
    if task == "tagging":
        return tagged_text(text, where)
    first, _, second = text.partition("\t")
    return TextExample(where, first, second or None)


def tagged_text(text: str, where: str = "") -> TaggedExample:
    """The words of running text, without tags."""
    return TaggedExample(where, [text[a:b] for a, b in word_spans(text)], None, text)


def tagged_spans(text: str, entities: Any, where: str, notes: Notes) -> TaggedExample:
    """The words of running text, with BIO tags from entities given by their characters.

    Args:
        text: the text.
        entities: a list of ``{"start", "end", "label"}`` or ``[start, end, label]``.

    Raises:
        InputError: an entity outside of the text, without a word, or overlapping another.
    """
    example = tagged_text(text, where)
    words, tags = word_spans(text), [OUTSIDE] * len(example.tokens)
    for entity in entities if isinstance(entities, list) else [entities]:
        parts = [entity.get(n) for n in ("start", "end", "label")] if isinstance(entity, dict) else entity
        match parts:
            case [int(start), int(end), str(kind)] if 0 <= start < end <= len(text) and kind.strip():
                inside = [i for i, (a, b) in enumerate(words) if a < end and start < b]
            case _:
                raise InputError(f'{where}: entity {shown(entity)}: expected {{"start", "end", "label"}} in the text')
        if not inside or any(tags[i] != OUTSIDE for i in inside):
            raise InputError(f"{where}: entity {shown(entity)} {'overlaps another' if inside else 'has no word'}")
        if words[inside[0]][0] < start or words[inside[-1]][1] > end:
            notes.add("an entity that begins or ends within a word: the whole word is taken", where)
        for i in inside:
            tags[i] = ("B-" if i == inside[0] else "I-") + kind.strip()
    return TaggedExample(where, example.tokens, tags, text)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Characters of each word: between white space, with punctuation at its ends as separate words.

    Combining marks belong to the character before them, and an emoji is one word however many characters it has.
    """
    return [match.span() for match in _word_pattern().finditer(text)]


@cache
def _word_pattern() -> re.Pattern[str]:
    # two letters are a flag; a joiner and a skin tone make one emoji of several
    flag, joined = r"[\U0001f1e6-\U0001f1ff]{2}", r"(?<=\u200d)[\u2190-\u2bff\U0001f000-\U0001faff]"
    return re.compile(rf"(?:{flag}|[^\W_](?:\S*[^\W_])?|\S)(?:[{mark_class()}]|{joined}|[\U0001f3fb-\U0001f3ff])*")


def has_pairs(examples: Sequence[TextExample]) -> bool:
    """Whether these are pairs.

    Raises:
        InputError: some are and some are not.
    """
    pairs = examples[0].pair is not None
    for example in examples:
        if (example.pair is not None) != pairs:
            what = "a second text" if pairs else "no second text"
            raise InputError(f"{example.where}: the records before it have {what}, this one differs. Try: repair it")
    return pairs


def looks_like_numbers(path: str, fields: FieldNames) -> bool:
    """Whether the labels are numbers, not classes: all numeric, and one of them with a decimal point."""
    pointed = False
    for where, record in read_records(path):
        _, value = value_of(record, where, fields.label, LABEL_NAMES, "label")
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


def _text_example(
    where: str, record: Record, fields: FieldNames, labelled: bool, notes: Notes, number: bool
) -> TextExample:
    pair_names = next((pair for pair in PAIR_NAMES if record.keys() >= set(pair)), None)
    if fields.text or fields.pair or pair_names is None:
        used = [value_of(record, where, fields.text, TEXT_NAMES, "text")[0]]
        if fields.pair or "text_a" in record:
            used.append(value_of(record, where, fields.pair, ("text_b", "text_pair"), "pair")[0])
    else:
        used = list(pair_names)
    text = text_of(record[used[0]], where, f"field {used[0]!r}")
    pair = text_of(record[used[1]], where, f"field {used[1]!r}") if len(used) == 2 else None
    label: str | tuple[str, ...] | float | None = None
    if labelled:
        name, value = value_of(record, where, fields.label, LABEL_NAMES, "label")
        label = _number(value, where) if number else _class_names(value, where, fields)
        note_unused(record, [*used, name], where, notes)
        if not text.strip() or (pair is not None and not pair.strip()):
            notes.add("an example with an empty text", where)
    return TextExample(where, text, pair, label)


def _number(value: Any, where: str) -> float:
    try:
        number = float("x" if isinstance(value, bool) or value is None else value)
    except (ValueError, TypeError):
        raise InputError(
            f"{where}: label {shown(value)} is not a number, which regression needs. "
            "Try: a number, with a point before its decimals"
        ) from None
    if not -1e30 < number < 1e30:
        raise InputError(f"{where}: label {shown(value)}: expected a finite number")
    return number


def _class_names(value: Any, where: str, fields: FieldNames) -> str | tuple[str, ...]:
    """The class of a text, or its classes: a list, or a string with separators."""
    if fields.label_separator and (value is None or isinstance(value, str)):
        parts = [part.strip() for part in (value or "").split(fields.label_separator)]
        return tuple(dict.fromkeys(part for part in parts if part))
    value = _written_list(value, where)
    if not isinstance(value, list):
        return _class_name(value, where, fields.label_names)
    # numbers get their names when all rows are known: 0 and 1 may stand for "no" and "yes"
    return tuple(_class_name(int(v) if isinstance(v, bool) else v, where) for v in value)


def _written_list(value: Any, where: str) -> Any:
    """The list that a CSV file holds as Python or JSON writes it; any other value as it is."""
    if not isinstance(value, str) or not value.strip().startswith("["):
        return value
    if _ARRAY.search(value):
        raise InputError(f"{where}: label {shown(value)}: NumPy's spelling of an array. Try: tolist() before saving")
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _class_name(value: Any, where: str, names: Sequence[str] = ()) -> str:
    if isinstance(value, str) and value.strip().lower() == "nan":
        value = None  # pandas' word for a missing one
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # pandas writes the integers of a column with gaps so
        value = int(value)
    if names and isinstance(value, str) and _WHOLE.fullmatch(value.strip()):  # from CSV
        value = int(float(value))
    if isinstance(value, int):
        if names and not -1 <= value < len(names):
            raise InputError(f"{where}: label {value}: there are {len(names)} label names. Try: one for each, from 0")
        return names[value] if names and value >= 0 else str(value)
    if isinstance(value, float):
        raise InputError(f"{where}: label {value} is a fraction. Try: --task regression, or names of classes")
    if names and isinstance(value, str) and value.strip() and value.strip() not in (*names, *MISSING_LABELS):
        raise InputError(f"{where}: label {value!r:.40} is not among --label-names. Try: all names, or none")
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: label {shown(value)}: expected the name of a class, or an integer")
    return value.strip()


def _words(value: Any, where: str, name: str) -> list[str]:
    if isinstance(value, str):  # from a CSV file
        written = _written_list(value, where)
        value = written if isinstance(written, list) else value.split()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InputError(f'{where}: {name}: expected a list of strings, like ["O", "B-PER"], got {shown(value)}')
    return value


def _tagged_example(where: str, record: Record, fields: FieldNames, labelled: bool, notes: Notes) -> TaggedExample:
    if not labelled and "tokens" not in record and isinstance(record.get("text"), str):
        return tagged_text(record["text"], where)
    if labelled and (text := record.get(fields.text or "text")) and isinstance(text, str) and "tokens" not in record:
        name, value = value_of(record, where, fields.label, SPANS_NAMES, "label")
        note_unused(record, (fields.text or "text", name), where, notes)
        return tagged_spans(text, value, where, notes)
    tokens_name, value = value_of(record, where, fields.text, ("tokens", "words"), "text")
    tokens = _words(value, where, "tokens")
    if not tokens:
        raise InputError(f"{where}: has no tokens. Try: remove the record")
    if not labelled:
        return TaggedExample(where, tokens)
    tags_name, value = value_of(record, where, fields.label, TAGS_NAMES, "label")
    value = _written_list(value, where)
    if fields.label_names and isinstance(value, str | list):  # numbers from a CSV or CoNLL file
        parts = value.split() if isinstance(value, str) else value
        value = [int(tag) if isinstance(tag, str) and tag.isdecimal() else tag for tag in parts]
    if isinstance(value, list) and value and all(isinstance(tag, int) for tag in value):
        if min(value) < 0:
            raise InputError(f"{where}: tag {min(value)}: no number of a name. Try: the numbers of --label-names")
        if not fields.label_names:
            raise InputError(
                f"{where}: tags {shown(value)} are numbers. Try: --label-names O B-PER …, their names from 0"
            )
        value = [_class_name(tag, where, fields.label_names) for tag in value]
    tags = _words(value, where, "tags")
    if len(tags) != len(tokens):
        raise InputError(f"{where}: has {len(tokens)} tokens and {len(tags)} tags. Try: one tag for each token")
    note_unused(record, (tokens_name, tags_name), where, notes)
    return TaggedExample(where, tokens, tags)


def _settle_tags(examples: Sequence[TaggedExample], notes: Notes) -> None:
    """Find the scheme of a file's tags: IOB1 becomes BIO, every other scheme stays as it is written.

    Raises:
        InputError: BIO in which an I- continues nothing.
    """
    sentences = [example.tags or [] for example in examples]
    scheme = find_scheme({tag for tags in sentences for tag in tags})
    for example, tags in zip(examples, sentences, strict=True):
        for tag in tags:
            if not (is_outside(tag) or scheme.spells(tag)):
                notes.add(f"the tag {tag!r}, unlike the others, is a kind of entity of its own", example.where)
    if scheme != BIO:
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
