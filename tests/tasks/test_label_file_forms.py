"""Label files as people have them: each form is read as its owner means it, or refused with file and line."""

import json

import pytest

from fastbert.system.errors import InputError
from fastbert.tasks.examples import read_examples
from fastbert.tasks.record_fields import FieldNames, Notes
from support import json_lines as lines

TABLE = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]


@pytest.mark.parametrize(
    "content",
    [
        {"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}},
        {"0": {"text": "a", "label": 1}, "1": {"text": "b", "label": 0}},
        {"columns": ["text", "label"], "index": [0, 1], "data": [["a", 1], ["b", 0]]},
        {"schema": {"fields": [], "pandas_version": "1.4.0"}, "data": TABLE},
        {"version": "1", "data": TABLE},
        TABLE,
    ],
    ids=["columns", "index", "split", "table", "data", "records"],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_every_form_of_pandas_json(tmp_path, content, indent):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content, indent=indent))
    assert [(e.text, e.label) for e in read_examples(str(path), "classification")] == [("a", "1"), ("b", "0")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_without_a_header_is_said(tmp_path, name):
    path = tmp_path / name
    path.write_text({"a.csv": "good film,1\nbad film,0\n", "a.tsv": "good film\t1\nbad film\t0\n"}[name])
    with pytest.raises(InputError, match=rf"{name}: line 2.*'good film', '1'.*first line"):
        read_examples(str(path), "classification")


AB = [("a", None, "1"), ("b", None, "0")]
READ = [
    # name, file, content, fields, examples, noted
    ("csv", "f.csv", "text,label\na,1\nb,0\n", {}, AB, 0),
    ("label first", "f.csv", "label,text\n1,a\n0,b\n", {}, AB, 0),
    ("crlf", "f.csv", "text,label\r\na,1\r\nb,0\r\n", {}, AB, 0),
    ("old mac", "f.csv", 'text,label\n"a\rx",1\nb,0\n', {}, [("a\nx", None, "1"), ("b", None, "0")], 0),
    ("byte order mark", "f.csv", "\ufefftext,label\na,1\nb,0\n", {}, AB, 0),
    ("quoted header with a mark", "f.csv", '\ufeff"text","label"\n"a","1"\n"b","0"\n', {}, AB, 0),
    ("semicolons", "f.csv", "text;label\na;1\nb;0\n", {}, AB, 0),
    ("tabs in csv", "f.csv", "text\tlabel\na\t1\nb\t0\n", {}, AB, 0),
    ("spaces in the header", "f.csv", " text , label \na,1\nb,0\n", {}, AB, 0),
    ("blank lines", "f.csv", "\ntext,label\n\na,1\n\nb,0\n\n", {}, AB, 0),
    ("line feed in quotes", "f.csv", 'text,label\n"a\nx",1\nb,0\n', {}, [("a\nx", None, "1"), ("b", None, "0")], 0),
    ("doubled quotes", "f.csv", 'text,label\n"a ""x""",1\nb,0\n', {}, [('a "x"', None, "1"), ("b", None, "0")], 0),
    ("delimiter in quotes", "f.csv", 'text,label\n"a,x",1\nb,0\n', {}, [("a,x", None, "1"), ("b", None, "0")], 0),
    ("no line feed at the end", "f.csv", "text,label\na,1\nb,0", {}, AB, 0),
    ("pandas index", "f.csv", ",text,label\n0,a,1\n1,b,0\n", {}, AB, 1),
    ("extra column", "f.csv", "id,text,label\n7,a,1\n8,b,0\n", {}, AB, 1),
    ("floats of pandas", "f.csv", "text,label\na,1.0\nb,0.0\n", {}, [("a", None, "1.0"), ("b", None, "0.0")], 0),
    ("floats in JSON", "f.jsonl", lines({"text": "a", "label": 1.0}, {"text": "b", "label": 0.0}), {}, AB, 0),
    ("names with spaces", "f.csv", "text,label\na, 1 \nb, 0\n", {}, AB, 0),
    ("integer names", "f.csv", "text,label\na,1\nb,0\n", {"label_names": ("no", "yes")},
     [("a", None, "yes"), ("b", None, "no")], 0),
    ("booleans", "f.jsonl", lines({"text": "a", "label": True}, {"text": "b", "label": False}), {},
     [("a", None, "true"), ("b", None, "false")], 0),
    ("other names", "f.jsonl", lines({"review": "a", "class": 1}, {"review": "b", "class": 0}), {}, AB, 0),
    ("named fields", "f.jsonl", lines({"x": "a", "y": 1}, {"x": "b", "y": 0}), {"text": "x", "label": "y"}, AB, 0),
    ("empty text", "f.csv", "text,label\n,1\nb,0\n", {}, [("", None, "1"), ("b", None, "0")], 1),
    ("equal texts", "f.csv", "text,label\na,1\na,1\n", {}, [("a", None, "1")] * 2, 0),
    ("SNLI", "f.jsonl", lines({"sentence1": "p", "sentence2": "h", "gold_label": "neutral", "pairID": "3"}), {},
     [("p", "h", "neutral")], 1),
    ("MNLI", "f.tsv", "index\tsentence1\tsentence2\tgold_label\n0\tp\th\tneutral\n", {}, [("p", "h", "neutral")], 1),
    ("QQP", "f.tsv", 'id\tquestion1\tquestion2\tlabel\n5\ta "b\tc\t1\n', {}, [('a "b', "c", "1")], 1),
    ("unquoted tsv", "f.tsv", 'text\tlabel\n"a x\t1\nb\t0\n', {}, [('"a x', None, "1"), ("b", None, "0")], 0),
    ("quoted tsv", "f.tsv", 'text\tlabel\n"a\tx"\t1\nb\t0\n', {}, [("a\tx", None, "1"), ("b", None, "0")], 0),
    ("several labels", "f.csv", "text,label\na,x|y\nb,\n", {"label_separator": "|"},
     [("a", None, ("x", "y")), ("b", None, ())], 0),
    ("one-hot", "f.jsonl", lines({"text": "a", "label": [1, 0]}, {"text": "b", "label": [1, 1]}), {},
     [("a", None, ("0",)), ("b", None, ("0", "1"))], 1),
    ("lists of names", "f.jsonl", lines({"text": "a", "label": ["x"]}, {"text": "b", "label": []}), {},
     [("a", None, ("x",)), ("b", None, ())], 0),
    ("text as JSON number label", "f.jsonl", lines({"text": "a", "label": "01"}, {"text": "b", "label": "1"}), {},
     [("a", None, "01"), ("b", None, "1")], 0),
    ("a header named twice", "f.csv", "text,text,label,,\na,x,1,,\nb,y,0,,\n", {}, AB, 3),
    ("1 and 1.0", "f.csv", "text,label\na,1.0\nb,0\nc,1\n", {}, [*AB, ("c", None, "1")], 1),
    ("floats with names", "f.csv", "text,label\na,1.0\nb,0.0\n", {"label_names": ("no", "yes")},
     [("a", None, "yes"), ("b", None, "no")], 0),
    ("names in two cases", "f.csv", "text,label\na,Pos\nb,pos\n", {}, [("a", None, "Pos"), ("b", None, "pos")], 1),
    ("fractions", "f.csv", 'text,label\na,"4,5"\nb,0.5\n', {}, [("a", None, "4,5"), ("b", None, "0.5")], 1),
    ("lists of pandas", "f.csv", "text,label\na,\"['x', 'y']\"\nb,[]\n", {},
     [("a", None, ("x", "y")), ("b", None, ())], 0),
    ("one-hot of pandas", "f.csv", 'text,label\na,"[1, 0]"\nb,"[1, 1]"\n', {},
     [("a", None, ("0",)), ("b", None, ("0", "1"))], 1),
    ("a name in brackets", "f.csv", "text,label\na,[x]\nb,[y\n", {}, [("a", None, "[x]"), ("b", None, "[y")], 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "content", "fields", "examples", "noted"), READ, ids=[case[0] for case in READ]
)
def test_read(tmp_path, name, file, content, fields, examples, noted):
    path = tmp_path / file
    path.write_bytes(content.encode())
    notes = Notes()
    found = read_examples(str(path), "classification", fields=FieldNames(**fields), notes=notes)
    assert [(e.text, e.pair, e.label) for e in found] == examples
    assert len(notes.lines()) == noted, notes.lines()


TAGGED = [
    ("lists of pandas", "f.csv", "tokens,tags\n\"['a', 'b']\",\"['O', 'B-X']\"\n", ()),
    ("words and blanks", "f.csv", "tokens,tags\na b,O B-X\n", ()),
    ("numbers in a list", "f.csv", 'tokens,tags\na b,"[0, 1]"\n', ("O", "B-X")),
    ("numbers in a string", "f.csv", "tokens,tags\na b,0 1\n", ("O", "B-X")),
    ("numbers in columns", "f.conll", "a 0\nb 1\n", ("O", "B-X")),
    ("numbers in JSON", "f.jsonl", lines({"words": ["a", "b"], "ner_tags": [0, 1]}), ("O", "B-X")),
]


@pytest.mark.parametrize(("name", "file", "content", "names"), TAGGED, ids=[case[0] for case in TAGGED])
def test_tags_in_every_spelling(tmp_path, name, file, content, names):
    (tmp_path / file).write_text(content)
    (found,) = read_examples(str(tmp_path / file), "tagging", fields=FieldNames(label_names=names))
    assert (found.tokens, found.tags) == (["a", "b"], ["O", "B-X"])


@pytest.mark.parametrize(
    ("file", "content", "task", "what"),
    [
        ("f.conll", "a 0\nb 2\n", "tagging", "label 2"),
        ("f.jsonl", lines({"tokens": ["a"], "tags": [-1]}), "tagging", "tag -1"),
        ("f.jsonl", lines({"tokens": ["a"], "tags": [-100]}), "tagging", "tag -100"),
        ("f.csv", "text,label\na,O\nb,foo\n", "classification", "'foo'.*--label-names"),
        ("f.csv", "text,label\na,2.0\n", "classification", "label 2"),
    ],
)
def test_labels_that_have_no_name(tmp_path, file, content, task, what):
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=what):
        read_examples(str(tmp_path / file), task, fields=FieldNames(label_names=("O", "B-X")))


REFUSED = [
    # name, file, content, task, where, what
    ("a field too many", "f.csv", "text,label\na,1\nb,0,x\n", "classification", "line 3", "fields"),
    ("a field too few", "f.csv", "text,label\na,1\nb\n", "classification", "line 3", "fields"),
    ("open quote", "f.csv", 'text,label\n"a,1\nb,0\n', "classification", "line 2", "quotes"),
    ("no label", "f.jsonl", lines({"text": "a", "label": 1}, {"text": "b"}), "classification", "line 2", "label"),
    ("empty label", "f.csv", "text,label\na,1\nb,\n", "classification", "line 3", "label"),
    ("nan label", "f.jsonl", '{"text": "a", "label": NaN}\n', "classification", "line 1", "label nan"),
    ("decimal comma", "f.csv", 'text;label\na;"3,5"\n', "regression", "line 2", "label"),
    ("infinite", "f.csv", "text,label\na,inf\n", "regression", "line 2", "finite"),
    ("truth as number", "f.jsonl", lines({"text": "a", "label": True}), "regression", "line 1", "label True"),
    ("cut JSON", "f.jsonl", '{"text": "a", "label": 1}\n{"text": "b', "classification", "line 2", "JSON"),
    ("windows-1252", "f.csv", "text,label\nação,1\n".encode("cp1252"), "classification", "line 2", "windows-1252"),
    ("utf-16", "f.csv", "text,label\na,1\n".encode("utf-16"), "classification", "f.csv", "UTF-16|not UTF-8|NUL"),
    ("header alone", "f.csv", "text,label\n", "classification", "f.csv", "no records"),
    ("tag numbers", "f.jsonl", lines({"tokens": ["a"], "tags": [3]}), "tagging", "line 1", "--label-names"),
    ("columns", "f.conll", "a O\nb X O\n\n", "tagging", "line 2", "columns"),
    ("words of NumPy", "f.csv", "tokens,tags\n['a' 'b'],O O\n", "tagging", "line 2", "tolist"),
    ("one column", "f.conll", "a\nb\n\n", "tagging", "line 1", "columns"),
    ("nan of pandas", "f.csv", "text,label\na,1\nb,nan\n", "classification", "line 3", "label"),
    ("an array of NumPy", "f.csv", "text,label\na,[0 1]\nb,[1 1]\n", "classification", "line 2", "tolist"),
    ("one-hot of two widths", "f.jsonl", lines({"text": "a", "label": [1, 0]}, {"text": "b", "label": [1, 0, 1]}),
     "classification", "line 2", "2"),
    ("names of NumPy", "f.csv", "text,label\na,['x' 'y']\n", "classification", "line 2", "tolist"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "task", "where", "what"), REFUSED, ids=[c[0] for c in REFUSED])
def test_refused_with_file_and_line(tmp_path, name, file, content, task, where, what):
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=what) as error:
        read_examples(str(path), task)
    assert where in str(error.value) and file in str(error.value) and "\n" not in str(error.value)
