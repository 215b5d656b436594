"""The scheme of tags is found from all labels together, and spells the same entities as seqeval and transformers."""

import json

import pytest

from fastbert.tasks import scores
from fastbert.tasks.examples import Notes, read_examples
from fastbert.tasks.labels import tag_names
from fastbert.tasks.prediction import entities
from fastbert.tasks.tag_schemes import find_scheme

# name, tags of a sentence, entities as (kind, first word, end)
SENTENCES = [
    ("BIO", ["B-PER", "I-PER", "O", "B-PER", "B-PER"], [("PER", 0, 2), ("PER", 3, 4), ("PER", 4, 5)]),
    ("IOB1", ["I-PER", "I-PER", "B-PER", "O", "I-LOC"], [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5)]),
    ("BIOES", ["B-PER", "I-PER", "E-PER", "S-LOC", "O"], [("PER", 0, 3), ("LOC", 3, 4)]),
    ("BILOU", ["B-PER", "I-PER", "L-PER", "U-LOC", "O"], [("PER", 0, 3), ("LOC", 3, 4)]),
    ("BMES", ["B-PER", "M-PER", "E-PER", "S-PER", "O"], [("PER", 0, 3), ("PER", 3, 4)]),
    ("suffix", ["PER-B", "PER-I", "O", "LOC-B"], [("PER", 0, 2), ("LOC", 3, 4)]),
    ("underscores", ["B_PER", "I_PER", "O"], [("PER", 0, 2)]),
    ("lower case", ["b-per", "i-per", "O"], [("per", 0, 2)]),
    ("kinds with dashes", ["B-date-of-birth", "I-date-of-birth"], [("date-of-birth", 0, 2)]),
    ("parts of speech", ["NOUN", "VERB", "O"], [("NOUN", 0, 1), ("VERB", 1, 2)]),
    ("default names", ["LABEL_0", "LABEL_1", "LABEL_1"], [("LABEL_0", 0, 1), ("LABEL_1", 1, 2), ("LABEL_1", 2, 3)]),
    ("names like roles", ["E-MAIL", "PHONE", "O"], [("E-MAIL", 0, 1), ("PHONE", 1, 2)]),
    ("one letter", ["V", "N"], [("V", 0, 1), ("N", 1, 2)]),
    ("nothing", ["O", "O"], []),
    ("lower case, o too", ["b-per", "i-per", "o", "o"], [("per", 0, 2)]),
    ("a word o", ["o", "det"], [("o", 0, 1), ("det", 1, 2)]),
    ("others among BIO", ["B-PER", "I-PER", "O", "B-LOC", "X"], [("PER", 0, 2), ("LOC", 3, 4), ("X", 4, 5)]),
    ("others among BIOES", ["B-PER", "E-PER", "[SEP]", "S-LOC"], [("PER", 0, 2), ("[SEP]", 2, 3), ("LOC", 3, 4)]),
    (
        "too many others",
        ["B-PER", "I-PER", "X", "Y"],
        [(t, i, i + 1) for i, t in enumerate(["B-PER", "I-PER", "X", "Y"])],
    ),
]


@pytest.mark.parametrize(("name", "tags", "expected"), SENTENCES, ids=[s[0] for s in SENTENCES])
def test_entities_of_every_scheme(name, tags, expected):
    scheme = find_scheme(tags)
    assert [(e.kind, e.start, e.end) for e in scheme.entities(tags)] == expected
    assert [(e.kind, e.start, e.end) for e in find_scheme(["B-X"]).entities(scheme.as_bio(tags))] == expected
    text = "0123456789"[: len(tags)]
    found = entities(text, [(i, i + 1) for i in range(len(tags))], tags, [0.5] * len(tags))
    assert [(e["entity"], e["start"], e["end"]) for e in found] == expected
    measured = scores.tagging_scores([tags], [tags])
    assert measured["token_accuracy"] == 1.0 and measured["f1"] == (1.0 if expected else 0.0)
    assert set(tags) <= set(tag_names(tags))


@pytest.mark.parametrize(
    ("scheme", "tags"), [("IOBES", SENTENCES[2][1]), ("BILOU", SENTENCES[3][1]), ("IOB1", SENTENCES[1][1])]
)
def test_seqeval_reads_the_same_entities(scheme, tags):
    schemes = pytest.importorskip("seqeval.scheme")
    theirs = schemes.Entities([tags], getattr(schemes, scheme)).entities[0]
    ours = find_scheme(tags).entities(tags)
    assert [(e.kind, e.start, e.end) for e in ours] == [(e.tag, e.start, e.end) for e in theirs]


def test_the_labels_of_a_checkpoint_decide_even_where_a_text_uses_few():
    labels = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    found = entities("a b", [(0, 1), (2, 3)], ["S-PER", "S-PER"], [1.0, 1.0], labels)
    assert [e["entity"] for e in found] == ["PER", "PER"]


def test_a_tag_unlike_the_others_is_said(tmp_path):
    (tmp_path / "f.conll").write_text("a B-X\nb I-X\nc 0\nd O\n\ne 0\n")
    notes = Notes()
    examples = read_examples(str(tmp_path / "f.conll"), "tagging", notes=notes)
    assert [e.tags for e in examples] == [["B-X", "I-X", "0", "O"], ["0"]]
    (line,) = notes.lines()
    assert "'0'" in line and "2 ×" in line and "line 1" in line


def test_iob1_files_become_bio_with_a_line(tmp_path):
    rows = [{"tokens": ["a", "b", "c"], "tags": tags} for tags in (["I-X", "B-X", "O"], ["O", "I-Y", "I-Y"])]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = Notes()
    examples = read_examples(str(tmp_path / "f.jsonl"), "tagging", notes=notes)
    assert [e.tags for e in examples] == [["B-X", "B-X", "O"], ["O", "B-Y", "I-Y"]]
    (line,) = notes.lines()
    assert "IOB1" in line and "2" in line
