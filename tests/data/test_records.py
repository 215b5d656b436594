"""Records with fields of text: JSON lines, arrays, CSV, TSV and Parquet, and their faults."""

import csv
import io
import json

import pytest
from corpus_files import COMPRESS, fault, read, words_of, write

from fastbert.data import Corpus
from fastbert.data.corpus import records
from fastbert.data.corpus.text_blocks import MAX_LINE_BYTES

ROWS = [{"id": 1, "text": "Um.\nDois."}, {"id": 2, "text": 'Vírgula, "aspas"\ttab.'}, {"id": 3, "text": "Três."}]
LINES = [["Um.", "Dois."], ['Vírgula, "aspas"\ttab.'], ["Três."]]


def csv_bytes(delimiter, rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet_bytes(columns, **options):
    pa = pytest.importorskip("pyarrow", reason="writes the Parquet file of this test")
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue().to_pybytes()


def jsonl_bytes(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


RECORDS = {
    ".jsonl": jsonl_bytes,
    ".ndjson": jsonl_bytes,
    ".csv": lambda rows: csv_bytes(",", rows),
    ".tsv": lambda rows: csv_bytes("\t", rows),
    ".parquet": lambda rows: parquet_bytes({key: [row[key] for row in rows] for key in rows[0]}),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ending", RECORDS)
def test_records(tmp_path, ending, compression):
    path = write(tmp_path / f"a{ending}{compression}", COMPRESS[compression](RECORDS[ending](ROWS)))
    assert read(path) == LINES
    chunks = "\n".join(Corpus([str(path)]).text_chunks())
    assert chunks.split("\n") == [line for lines in LINES for line in lines]


@pytest.mark.parametrize("ending", RECORDS)
def test_text_field_and_its_absence(tmp_path, ending):
    rows = [{"title": "t", "body": "corpo"}]
    path = write(tmp_path / f"a{ending}", RECORDS[ending](rows))
    assert read(path, text_field="body") == [["corpo"]]
    message = fault(path)
    assert str(path) in message and "'text'" in message and "'title', 'body'" in message and "--text-field" in message


@pytest.mark.parametrize("ending", RECORDS)
def test_long_record_comes_in_parts(tmp_path, ending):
    text = "palavra " * (MAX_LINE_BYTES // 4) + "\n" + "linha\n" * 10
    path = write(tmp_path / f"a{ending}", RECORDS[ending]([{"text": text}, {"text": "fim"}]))
    parts = list(Corpus([str(path)]).documents())
    assert [part.continues for part in parts] == [False] + [True] * (len(parts) - 2) + [False] and len(parts) > 2
    assert words_of(path) == (text + " fim").split() and len(read(path)) == 2


def test_null_and_blank_records_are_no_documents(tmp_path):
    rows = [{"text": "a"}, {"text": None}, {"text": " \n"}, {"text": ""}, {"text": "b"}]
    assert read(write(tmp_path / "a.jsonl", jsonl_bytes(rows))) == [["a"], ["b"]]
    assert read(write(tmp_path / "a.parquet", RECORDS[".parquet"](rows))) == [["a"], ["b"]]


def test_parquet_dictionary_and_large_strings(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="writes the Parquet file of this test")
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(["a", "b", "a"]).cast(kind)
        assert read(write(tmp_path / "a.parquet", parquet_bytes({"text": column}))) == [["a"], ["b"], ["a"]]
    many = [str(i) for i in range(5000)]
    assert read(write(tmp_path / "b.parquet", parquet_bytes({"text": many}, row_group_size=700))) == [[t] for t in many]


@pytest.mark.parametrize(
    ("name", "content", "field", "documents"),
    [
        ("a.csv", "text;label\nRuim, demais;0\n\nMuito bom;1\n", None, [["Ruim, demais"], ["Muito bom"]]),
        ("a.csv", "text\tlabel\nRuim, demais\t0\n", None, [["Ruim, demais"]]),
        ("a.json", '[\n {\n  "text": "a"\n },\n {\n  "text": "b"\n }\n]', None, [["a"], ["b"]]),
        ("a.json", "[]", None, []),
        ("a.jsonl", '[{"text": "a"},{"text": "b"}]', None, [["a"], ["b"]]),
        ("a.jsonl", '{"text": "a"}\n\ufeff{"text": "b"}\n', None, [["a"], ["b"]]),
        ("a.jsonl", '{"text": ["a", "b"]}\n{"text": []}\n', None, [["a", "b"]]),
        ("a.jsonl", '{"doc": {"text": "a"}}\n', "doc.text", [["a"]]),
        ("a.jsonl", '{"doc.text": "a", "doc": {"text": "b"}}\n', "doc.text", [["a"]]),
        ("a.jsonl", '{"title": "t", "doc": {"text": "a"}}\n{"title": null, "doc": {"text": "b"}}', "title,doc.text",
         [["t", "a"], ["b"]]),
        ("a.csv", "title,body\nt,a\n", "title, body", [["t", "a"]]),
        ("a.csv", "text|label\nRuim, demais|0\n", None, [["Ruim, demais"]]),
        ("a.csv", "sep=;\ntext;label\nRuim, demais;0\n", None, [["Ruim, demais"]]),
        ("a.csv", '"sep=\t"\ntext\tlabel\na\t0\n', None, [["a"]]),
        ("a.jsonl", '"só texto"\n"a\\nb"\n', None, [["só texto"], ["a", "b"]]),
        ("a.json", '["um", "dois"]', None, [["um"], ["dois"]]),
        ("a.json", '[["um", "dois"],\n["três"]]', None, [["um", "dois"], ["três"]]),
        ("a.jsonl", '["um", "dois"]\n["três"]\n', None, [["um", "dois"], ["três"]]),
        ("a.jsonl", '{"text": "um"}\n"dois"\n["três", null, "", "quatro"]\n', None,
         [["um"], ["dois"], ["três", "quatro"]]),
        ("a.jsonl", '{"text": [["a", "b"], ["c"]]}\n', None, [["a", "b", "c"]]),
        ("a.jsonl", '{"turns": [{"say": "a"}, {"say": ["b", "c"]}]}\n', "turns.say", [["a", "b", "c"]]),
    ],
)  # fmt: skip
def test_layouts_of_records(tmp_path, name, content, field, documents):
    path = write(tmp_path / name, content)
    if documents:
        assert read(path, text_field=field) == documents
    else:
        assert "no text" in fault(path)


def test_nested_and_listed_text_in_parquet(tmp_path):
    rows = [{"doc": {"text": ["a", "b"]}, "title": "t"}, {"doc": None, "title": "u"}]
    pa = pytest.importorskip("pyarrow", reason="writes the Parquet file of this test")
    table = pa.Table.from_pylist(rows)
    path = write(tmp_path / "a.parquet", parquet_bytes({name: table.column(name) for name in table.column_names}))
    assert read(path, text_field="title") == [["t"], ["u"]]
    assert "row 2" in fault(path, text_field="doc.text") and "'doc.text'" in fault(path, text_field="doc.text")


def test_an_array_is_read_in_pieces(tmp_path):
    records = [{"text": "palavra " * (i * 997 % 5000)} for i in range(1, 300)]
    path = write(tmp_path / "a.json", json.dumps(records, indent=1))
    assert [document.lines[0] for document in Corpus([str(path)]).documents()] == [r["text"] for r in records]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n', ["line 3", "JSON"]),
        ("a.json", '[\n{"text": "a"},\n{"text": ]', ["record 2", "JSON"]),
        ("a.json", '[{"text": "a"}', ["after record 1", "not closed"]),
        ("a.json", '[{"text": "a"} {"text": "b"}]', ["after record 1", "','"]),
        ("a.json", '[{"text": "a"}]\n{"text": "b"}', ["after the end of the array"]),
        ("a.json", '[{"text": "a"}, 3]', ["record 2", "int", "object"]),
        ("a.jsonl", "true\n", ["line 1", "object", "bool"]),
        ("a.jsonl", "[1, 2]\n[3]\n", ["line 1", "int"]),
        ("a.jsonl", '{"text": [["a"], 3]}\n', ["line 1", "'text'", "int"]),
        ("a.jsonl", '{"messages": [{"content": "a"}, {"role": "b"}]}\n', ["line 1", "'text'", "'messages.content'"]),
        ("a.csv", "text^label\na^1\n", ["the header is one field", "semicolons"]),
        ("a.tsv", "text,label\na,1\n", ["the header is one field", ".csv"]),
        ("a.csv", "text,text\na,b\n", ["'text' twice"]),
        ("a.jsonl", "{}\n", ["line 1", "none"]),
        ("a.jsonl", "null\n", ["line 1", "null"]),
        ("a.csv", "Ruim demais,0\nMuito bom,1\n", ["'Ruim demais', '0'", "names of the columns"]),
        ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', ["line 2", "'text'", "int", "--text-field"]),
        ("a.jsonl", '{"text": "\\ud800"}\n', ["line 1", "surrogate"]),
        ("a.jsonl", "[" * 200_000, ["record 1", "JSON"]),
        ("a.jsonl", '{"text": "a"}\n{"title": "b"}\n', ["line 2", "'text'", "'title'", "null"]),
        ("a.csv", "id,text\n1,a\n\n2,b,c\n", ["line 4", "3 fields", "header 2"]),
        ("a.csv", "id,text\n1\n", ["line 2", "1 fields"]),
        ("a.csv", 'id,text\n1,"a\nb\n', ["line 2", "quote"]),
        ("a.csv", 'id,text\n1,"a" b\n', ["line 2", "quote"]),
        ("a.tsv", "id\tcorpo\n1\ta\n", ["'text'", "'id', 'corpo'"]),
        ("a.csv", "id,text\n", ["no text"]),
        ("a.parquet", b"PAR1 no parquet at all", ["Parquet", "damaged"]),
    ],
)
def test_bad_records(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    message = fault(path)
    assert message.startswith(str(path))
    for word in words:
        assert word in message


def test_csv_field_beyond_the_limit(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", 'text\n"' + "a\n" * 1000)
    monkeypatch.setattr(records, "MAX_FIELD_CHARS", 1000)
    before = csv.field_size_limit(1000)
    try:
        assert "field limit (1000)" in fault(path) and "quote" in fault(path) and "line 2" in fault(path)
    finally:
        csv.field_size_limit(before)


def test_parquet_of_numbers_and_cut_short(tmp_path):
    message = fault(write(tmp_path / "n.parquet", parquet_bytes({"text": [1, 2]})))
    assert "int" in message and "--text-field" in message
    whole = parquet_bytes({"text": ["a" * 1000] * 1000})
    assert "damaged" in fault(write(tmp_path / "c.parquet", whole[:-100]))


# ---- tab-separated files that do not quote ----
TSV = [
    ("GLUE", ['"It was great\t1', 'the cat\t0', 'very good" said maria\t1', '"quoted" first\t0'],
     [('"It was great', "1"), ("the cat", "0"), ('very good" said maria', "1"), ('"quoted" first', "0")]),
    ("open in two rows", ['"Good film\t1', "the cat\t0", 'bad movie"\t0'],
     [('"Good film', "1"), ("the cat", "0"), ('bad movie"', "0")]),
    ("in the last field", ['a\t"Good film', 'x\tthe cat"'], [("a", '"Good film'), ("x", 'the cat"')]),
    ("pandas", ['"a ""quoted"" word"\t1', '"with\ta tab"\t0', '"two\nlines"\t1', '1\t"two\nlines"'],
     [('a "quoted" word', "1"), ("with\ta tab", "0"), ("two\nlines", "1"), ("1", "two\nlines")]),
    ("all quoted", ['"a"\t"1"', '"b"\t"0"'], [("a", "1"), ("b", "0")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "expected"), TSV, ids=[case[0] for case in TSV])
def test_quotes_in_tab_separated_files(tmp_path, name, rows, expected):
    (tmp_path / "f.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    found = [(record["text"], record["label"]) for _, record in records.read_records(str(tmp_path / "f.tsv"))]
    assert found == expected


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_files_and_folders_of_save_to_disk(tmp_path, kind):
    pa = pytest.importorskip("pyarrow", reason="writes the Arrow file of this test")
    rows = [{"text": f"documento {i}\nlinha", "label": i, "doc": {"lines": [f"a {i}", "b"]}} for i in range(3000)]
    table = pa.Table.from_pylist(rows)
    for split in ("train", "test"):
        folder = tmp_path / "dataset" / split
        folder.mkdir(parents=True)
        path = folder / "data-00000-of-00001.arrow"
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=1500)
        for name in ("dataset_info.json", "state.json"):
            (folder / name).write_text('{"_data_files": []}')
    (tmp_path / "dataset" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    expected = [row["text"].split("\n") for row in rows]
    assert read(path) == expected and read(tmp_path / "dataset") == expected * 2
    assert read(path, text_field="doc.lines") == [row["doc"]["lines"] for row in rows]
    assert "'label'" in fault(path, text_field="body")
    path.write_bytes(path.read_bytes()[:2000])
    assert "row" in fault(path) and "Arrow" in fault(path)


@pytest.mark.parametrize(
    ("name", "word"),
    [("a.html", "markup"), ("a.XML.gz", "markup"), ("a.zip", "archive"), ("a.tar.gz", "archive"), ("a.pdf", "layout")],
)
def test_files_that_are_no_text_are_refused_by_their_ending(tmp_path, name, word):
    write(tmp_path / name, b"<p>text</p>")
    message = fault(tmp_path / name)
    assert str(tmp_path / name) in message and word in message and "Try: " in message
    write(tmp_path / "a.txt", "text")
    assert read(tmp_path) == [["text"]], "passed over in a folder"


def test_fields_within_objects_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"doc": {"body": {"en": "a"}, "id": 1}, "title": "t"}\n')
    assert "'doc.body.en', 'doc.id', 'title'" in fault(path)


def test_bare_records_have_no_fields(tmp_path):
    path = write(tmp_path / "a.jsonl", '"um"\n')
    assert "line 1" in fault(path, text_field="body") and "str" in fault(path, text_field="body")
