"""Questions about contexts, read from records in any of the layouts in use."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastbert.data.corpus.records import Record
from fastbert.system.errors import InputError
from fastbert.tasks.record_fields import FieldNames, Notes, note_unused, shown, text_of, value_of

QUESTION_NAMES = ("context", "question", "id", "answers", "answer", "answer_start", "impossible", "is_impossible")


@dataclass(frozen=True)
class QuestionExample:
    """A question about a context; ``answers`` are (text, first character), empty for an unanswerable question."""

    where: str
    id: str
    question: str
    context: str
    answers: list[tuple[str, int]] = field(default_factory=list)
    gold_texts: list[str] = field(default_factory=list)  # for scoring, including those that are not in the context


def question_example(where: str, record: Record, fields: FieldNames, labelled: bool, notes: Notes) -> QuestionExample:
    context_name, context = value_of(record, where, fields.text, ("context",), "text")
    context = text_of(context, where, "context")
    question = text_of(value_of(record, where, None, ("question",), "")[1], where, "question")
    name = str(record.get("id") or where.rpartition(" ")[2])
    if not labelled:
        return QuestionExample(where, name, question, context)
    note_unused(record, (context_name, *QUESTION_NAMES), where, notes)
    if record.get("impossible") is True or record.get("is_impossible") is True:
        return QuestionExample(where, name, question, context)
    given = list(_answers(record, where))
    found = [(text, at) for text, start in given if (at := _locate(text, start, context, where, notes)) >= 0]
    if given and not found:
        text = given[0][0]
        raise InputError(
            f"{where}: the answer {shown(text)} is not in its context. Try: copy it from there, or no answer for a "
            "question that has none"
        )
    return QuestionExample(where, name, question, context, found, [text for text, _ in given])


def _answers(record: Record, where: str) -> Iterator[tuple[str, int | None]]:
    """(text, start or None) of every answer, in any of the layouts in use."""
    if "answers" not in record and "answer" in record:  # CSV
        value: Any = {"text": record["answer"], "answer_start": record.get("answer_start")}
    else:
        _, value = value_of(record, where, None, ("answers",), "")
    if value is None:
        return
    rows: Iterable[Any]
    if isinstance(value, dict):
        if "text" not in value:
            raise InputError(f'{where}: answers has no field \'text\'. Try: {{"text": …, "answer_start": …}}')
        texts, starts = value["text"], value.get("answer_start", value.get("start"))
        if not isinstance(texts, list):
            texts, starts = ([texts], [starts]) if texts else ([], [])
        starts = [None] * len(texts) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise InputError(f"{where}: answers has {len(texts)} texts. Try: the same number of answer_start")
        rows = zip(texts, starts, strict=True)
    elif isinstance(value, list):
        if not all(isinstance(row, dict) and "text" in row for row in value):
            raise InputError(f'{where}: answers: expected a list of {{"text": …, "answer_start": …}}')
        rows = ((row["text"], row.get("answer_start", row.get("start"))) for row in value)
    else:
        raise InputError(f'{where}: answers is {shown(value)}, expected {{"text": …, "answer_start": …}}')
    for text, start in rows:
        if isinstance(start, str) and start.strip().lstrip("-").isdigit():
            start = int(start)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: an answer's text is {shown(text)}. Try: no answers for a question without one")
        if start not in (None, "") and (isinstance(start, bool) or not isinstance(start, int)):
            raise InputError(f"{where}: answer_start is {shown(start)}, expected the answer's first character, from 0")
        yield text, start if isinstance(start, int) else None


def _locate(text: str, start: int | None, context: str, where: str, notes: Notes) -> int:
    """First character of the answer: ``start`` if it is there, otherwise its nearest occurrence; -1: not found."""
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    found = [match.start() for match in re.finditer(re.escape(text), context)]
    if not found:
        notes.add("an answer that is not in its context is left out; the question has others", where)
        return -1
    if start is not None:
        notes.add("an answer that is not at its answer_start: the nearest occurrence is used", where)
    return min(found, key=lambda position: abs(position - (start or 0)))
