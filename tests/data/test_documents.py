"""fastbert.data.corpus.documents: every kind of source and format, and one clear line for every kind of bad input."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import subprocess
import sys
import tracemalloc
from itertools import chain

import pytest

from fastbert.data import Corpus, Document
from fastbert.data.corpus import records
from fastbert.data.corpus.formats import PART_CHARS
from fastbert.data.corpus.text_blocks import BLOCK_BYTES, MAX_LINE_BYTES
from fastbert.system.errors import InputError

TWO_DOCUMENTS = "Era uma vez.\nO gato dormiu.\n\nOutra história.\n"


def zstd(data):
    return pytest.importorskip("zstandard", reason="writes the .zst file of this test").compress(data)


COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd, ".zstd": zstd}


def read(*sources, text_field=None):
    """The documents' lines, the parts of a document joined."""
    documents = []
    for document in Corpus([str(s) for s in sources], text_field).documents():
        if document.continues:
            documents[-1] += document.lines
        else:
            documents.append(list(document.lines))
    return documents


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(*sources, text_field=None):
    """The one line about a bad input, the same from both ways of reading."""
    lines = []
    for way in ("documents", "text_chunks"):
        with pytest.raises(InputError) as caught:
            for _ in getattr(Corpus([str(s) for s in sources], text_field), way)():
                pass
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]
    return lines[0]


def words_of(*sources, **options):
    return [w for document in read(*sources, **options) for line in document for w in line.split()]


# ---- plain text ----


@pytest.mark.parametrize("ending", COMPRESS)
def test_text_plain_and_compressed(tmp_path, ending):
    path = write(tmp_path / f"a.txt{ending}", COMPRESS[ending](TWO_DOCUMENTS.encode()))
    assert read(path) == [["Era uma vez.", "O gato dormiu."], ["Outra história."]]
    chunks = list(Corpus([str(path)]).text_chunks())
    assert "".join(chunks) == TWO_DOCUMENTS and all(isinstance(chunk, str) for chunk in chunks)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_several_compressed_streams_in_one_file(tmp_path, ending):
    data = COMPRESS[ending](b"um\n") + COMPRESS[ending](b"dois\n")
    assert read(write(tmp_path / f"a.txt{ending}", data)) == [["um", "dois"]]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("a\nb\nc", [["a", "b", "c"]]),
        ("\n\n a \n \t\n\n\nb\n\n", [[" a "], ["b"]]),
        ("a\r\nb\r\n\r\nc\r\n", [["a", "b"], ["c"]]),
        ("a\rb\r\rc", [["a", "b"], ["c"]]),
        ("\ufeffa\nb", [["a", "b"]]),
        ("a\u2028b\x0cc\x85d", [["a\u2028b\x0cc\x85d"]]),  # only line feeds end lines
        ("😀 é\n\n漢字\n", [["😀 é"], ["漢字"]]),
    ],
)
def test_lines_and_documents(tmp_path, text, documents):
    assert read(write(tmp_path / "a.txt", text)) == documents


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_blocks_cut_nothing(tmp_path, shift, newline):
    rows = ["x" * shift, *(f"linha é {i}" if i % 7 else "" for i in range(1, 250_000))]
    path = write(tmp_path / "a.txt", newline.join(rows))
    assert path.stat().st_size > 2 * BLOCK_BYTES
    documents = [[]]
    for row in rows:
        if row:
            documents[-1].append(row)
        else:
            documents.append([])
    assert read(path) == [document for document in documents if document]


def test_document_without_an_end_comes_in_parts(tmp_path):
    line = "O rato roeu a roupa do rei de Roma. " * 3
    path = write(tmp_path / "a.txt", f"{line}\n" * (4 * PART_CHARS // len(line)) + "\nfim\n")
    parts = list(Corpus([str(path)]).documents())
    assert [part.continues for part in parts] == [False] + [True] * (len(parts) - 2) + [False] and len(parts) >= 4
    assert all(sum(map(len, part.lines)) <= PART_CHARS + BLOCK_BYTES for part in parts)
    assert sum(len(part.lines) for part in parts[:-1]) == 4 * PART_CHARS // len(line)
    assert set(parts[0].lines + parts[1].lines) == {line} and parts[-1].lines == ["fim"]


@pytest.mark.parametrize("tail", ["\n", "\n\n", "\nfim", "\n\nfim\n", " \n\nfim", ""])
@pytest.mark.parametrize("over", range(-2, 3))
def test_line_without_an_end_is_cut_between_words(tmp_path, tail, over):
    long = ("palavra " * (MAX_LINE_BYTES // 8 + 1))[: MAX_LINE_BYTES + over]
    path = write(tmp_path / "a.txt", long + tail)
    assert [w for d in read(path) for line in d for w in line.split()] == (long + tail).split()
    assert len(read(path)) == (2 if "\n\nfim" in tail else 1)  # the end of a cut line is not a blank line


def test_line_without_white_space_is_cut_between_characters(tmp_path):
    path = write(tmp_path / "a.txt", "é漢😀" * (MAX_LINE_BYTES // 4))
    (document,) = read(path)
    assert len(document) > 2 and "".join(document) == "é漢😀" * (MAX_LINE_BYTES // 4)


def peak_memory(path):
    tracemalloc.start()
    for document in Corpus([str(path)]).documents():
        del document
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("text", [b"palavra sem fim ", b"uma linha de um documento sem fim\n"])
def test_memory_does_not_grow_with_the_file(tmp_path, text, ending):
    """One line, or one document, of 12 and of 36 MB."""
    paths = [
        write(tmp_path / f"{megabytes}.txt{ending}", COMPRESS[ending](text * (megabytes * 1_000_000 // len(text))))
        for megabytes in (12, 36)
    ]
    small, large = map(peak_memory, paths)
    assert large < 1.1 * small < 30e6


# ---- records ----

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
        ("a.jsonl", '"só texto"\n', ["line 1", "object", "str"]),
        ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', ["line 2", "'text'", "int", "--text-field"]),
        ("a.jsonl", '{"text": "\\ud800"}\n', ["line 1", "surrogate"]),
        ("a.jsonl", "[" * 200_000, ["record 1", "JSON"]),
        ("a.jsonl", '{"text": "a"}\n{"title": "b"}\n', ["line 2", "'text'", "'title'", "--text-field"]),
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


# ---- faults of the text ----


def test_not_utf8_names_the_byte(tmp_path):
    message = fault(write(tmp_path / "a.txt", "ação ".encode() + "coração".encode("latin-1")))
    assert f"{tmp_path / 'a.txt'}: line 1: byte 11 (0xe7)" in message and "iconv" in message


PROSE = "“Não”, disse — e saiu…\nOlá, café!\n"


@pytest.mark.parametrize(
    ("content", "repaired"),
    [
        ((PROSE * 20).encode("windows-1252"), PROSE * 20),
        ("é uma só".encode("latin-1"), "é uma só"),
        (PROSE.encode() + b"a\x93b\n" + PROSE.encode(), PROSE + "ab\n" + PROSE),
        (b"a log\n" * 3 + b"sta\0rt\n", "a log\n" * 3 + "start\n"),
    ],
)
def test_the_printed_remedy_leaves_the_text_whole(tmp_path, content, repaired):
    path = write(tmp_path / "a.txt", content)
    message = fault(path)
    assert f"line {content[: int(re.search(r'byte ([0-9]+)', message)[1])].count(10) + 1}:" in message
    command = re.search(r"Try: (.*? OLD > NEW)", message)[1]
    command = command.replace("OLD", f"'{path}'").replace("NEW", f"'{tmp_path / 'b.txt'}'")
    subprocess.run(command, shell=True, stderr=subprocess.DEVNULL)  # iconv -c reports what it drops
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == repaired
    assert words_of(tmp_path / "b.txt") == repaired.split()


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".zst"])
def test_offset_is_right_far_into_a_decompressed_file(tmp_path, ending):
    data = b"\xef\xbb\xbf" + "linha é\r\n".encode() * 400_000
    where = len(data) - 5000
    while data[where - 1] != 0x0A:
        where += 1
    for bad, word in ((b"\xff", "(0xff)"), (b"\0", "NUL")):
        content = COMPRESS[ending](data[:where] + bad + data[where + 1 :])
        message = fault(write(tmp_path / f"a.txt{ending}", content))
        assert f"byte {where} " in message and word in message


def test_character_cut_short_at_the_end(tmp_path):
    assert "byte 3 (0xc3)" in fault(write(tmp_path / "a.txt", b"abc\xc3"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(b"a" * 100), ".gz"),
        (lzma.compress(b"a" * 100), ".xz"),
        (b"PK\x03\x04\x14\x00\x00\x00", "zip"),
        ("olá\n".encode("utf-16"), "utf-16"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "NUL"),
        ("olá".encode("utf-16-le"), "NUL"),
    ],
)
def test_binary_data(tmp_path, content, word):
    message = fault(write(tmp_path / "a.txt", content))
    assert "byte " in message and word in message


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("harm", ["short", "flipped", "plain", "one byte"])
def test_damaged_compressed_file(tmp_path, ending, harm):
    text = "".join(f"linha {i * i}\n" for i in range(20_000)).encode()
    data = bytearray(COMPRESS[ending](text))
    if ending == ".zst":
        import zstandard

        data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(text))
    if harm == "short":
        data = data[: len(data) // 2]
    elif harm == "flipped":
        data[len(data) // 2] ^= 0x40
    elif harm == "plain":
        data = bytearray(b"not compressed at all")
    else:
        data = data[:1]
    message = fault(write(tmp_path / f"a.txt{ending}", bytes(data)))
    assert message.startswith(f"{tmp_path}/a.txt{ending}: ") and re.search("cut short|damaged|not UTF-8", message)


# ---- sources ----


def test_missing_empty_and_blank_files(tmp_path):
    assert f"{tmp_path}/none.txt: no such file" in fault(tmp_path / "none.txt")
    assert "empty" in fault(write(tmp_path / "a.txt", ""))
    assert "no text" in fault(write(tmp_path / "b.txt", " \n\n\t\n"))
    assert "no text" in fault(write(tmp_path / "c.txt.gz", gzip.compress(b"")))
    with pytest.raises(InputError, match="no input"):
        Corpus([])
    with pytest.raises(TypeError, match="one str"):
        Corpus("a.txt")


def test_faults_of_sources_come_before_any_reading(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Corpus([str(write(tmp_path / "a.txt", "a")), str(tmp_path / "b.txt")])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_and_folder(tmp_path):
    path = write(tmp_path / "d" / "a.txt", "a")
    path.chmod(0)
    assert "Permission denied" in fault(path)
    path.chmod(0o600)
    path.parent.chmod(0)
    try:
        assert "Permission denied" in fault(tmp_path)
    finally:
        path.parent.chmod(0o700)


def test_folder_is_searched_in_sorted_order(tmp_path):
    write(tmp_path / "b.txt", "2")
    write(tmp_path / "a" / "z.jsonl.gz", gzip.compress(b'{"text": "1"}'))
    write(tmp_path / "c" / "d" / "e.txt", "3")
    write(tmp_path / "LICENSE", "no")
    write(tmp_path / "x.py", "no")
    write(tmp_path / ".hidden.txt", "no")
    write(tmp_path / ".git" / "a.txt", "no")
    write(tmp_path / "empty.txt", "")
    assert read(tmp_path) == [["1"], ["2"], ["3"]]
    assert read(tmp_path / "x.py") == [["no"]]  # named: any ending is text


def test_folder_or_glob_with_nothing_to_read(tmp_path):
    write(tmp_path / "a.py", "x")
    assert "known ending" in fault(tmp_path)
    assert "no file matches" in fault(tmp_path / "*.txt")
    write(tmp_path / "b.txt", "")
    assert "no text in any" in fault(tmp_path / "*.txt")


def test_globs(tmp_path):
    for name in ("b.txt", "a.txt", "d/c.txt", ".h.txt"):
        write(tmp_path / name, name)
    assert read(tmp_path / "*.txt") == [["a.txt"], ["b.txt"]]
    assert read(tmp_path / "**" / "*.txt") == [["a.txt"], ["b.txt"], ["d/c.txt"]]
    assert read(write(tmp_path / "x[1].txt", "literal")) == [["literal"]]


def test_source_names_and_repeated_reading(tmp_path):
    a, b = write(tmp_path / "a.txt", "1\n\n2"), write(tmp_path / "b.txt", "3")
    corpus = Corpus([str(a), str(b)])
    expected = [Document(["1"], str(a)), Document(["2"], str(a)), Document(["3"], str(b))]
    assert list(corpus.documents()) == list(corpus.documents()) == expected


def test_bundled_texts():
    for name, word in (("bundled:pt", "Dollar"), ("bundled:en", "Bennet")):
        corpus = Corpus([name])
        first = next(corpus.documents())
        assert word in " ".join(first.lines[:4]) and first.source == name
        assert sum(map(len, corpus.text_chunks())) > 3_000_000
    assert "bundled:pt" in fault("bundled:klingon")


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


TWICE = """
import sys
from fastbert.data import Corpus
corpus = Corpus(sys.argv[1:] or ["-"])
print([d.lines for d in corpus.documents()], [d.source for d in corpus.documents()], corpus.identity()[0][1])
"""


def test_standard_input_is_read_twice():
    done = run_python(TWICE, input=TWO_DOCUMENTS)
    documents, size = [["Era uma vez.", "O gato dormiu."], ["Outra história."]], len(TWO_DOCUMENTS.encode())
    assert done.stdout == f"{documents} {['standard input'] * 2} {size}\n"


def test_pipe_is_read_twice():
    command = f"{sys.executable} -c '{TWICE}' <(printf 'um\\n\\ndois')"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("[['um'], ['dois']] ['/dev/fd/"), done.stderr


def test_standard_input_empty_or_twice():
    done = run_python("from fastbert.data import Corpus\nfor d in Corpus(['-']).documents(): pass", input="")
    assert "InputError: standard input: contains no text" in done.stderr
    with pytest.raises(InputError, match="twice"):
        Corpus(["-", "-"])


def test_urls(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="reads the URLs of this test")
    files = fsspec.filesystem("memory")
    files.pipe({"/u/b.txt": b"2", "/u/a.txt.gz": gzip.compress(b"1"), "/u/.h.txt": b"no", "/u/x.bin": b"\0"})
    try:
        assert read("memory://u/b.txt") == [["2"]]
        assert read("memory://u/a.txt.gz") == [["1"]]
        assert read("memory://u/*.txt*") in ([["1"], ["2"]], [["no"], ["1"], ["2"]])
        assert read("memory://u") == [["1"], ["2"]]
        assert read("file://" + str(write(tmp_path / "f.txt", "f"))) == [["f"]]
        assert "no such file" in fault("memory://u/none.txt")
        assert "no file found" in fault("memory://u/*.none")
        assert "byte 0 " in fault("memory://u/x.bin")
        assert "nosuchprotocol" in fault("nosuchprotocol://u/x.txt")
    finally:
        files.rm("/u", recursive=True)


@pytest.mark.parametrize(
    ("package", "name"), [("zstandard", "a.txt.zst"), ("pyarrow", "a.parquet"), ("fsspec", "memory://a.txt")]
)
def test_missing_optional_package_names_the_remedy(tmp_path, package, name):
    write(tmp_path / name, b"x") if "://" not in name else None
    read_it = f"from fastbert.data import Corpus\nlist(Corpus([{name!r}]).documents())"
    code = f"import sys; sys.modules[{package!r}] = None\n{read_it}"
    done = run_python(code, cwd=tmp_path)
    assert "InputError" in done.stderr and package in done.stderr and 'pip install "fastbert[data]"' in done.stderr


def test_optional_packages_are_imported_only_when_needed():
    heavy = "pyarrow", "zstandard", "fsspec", "torch", "numpy"
    code = f"import sys, fastbert.data.corpus.documents\nprint([m for m in {heavy} if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


# ---- parts of a corpus ----


@pytest.mark.parametrize("files", [1, 3, 10])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_the_documents_out(tmp_path, files, count):
    paths = [write(tmp_path / f"{k}.txt", "\n\n".join(f"{k}.{i}" for i in range(10))) for k in range(files)]
    corpus = Corpus([str(p) for p in paths])
    shards = [[d.lines[0] for d in corpus.documents(shard=(i, count))] for i in range(count)]
    assert sorted(chain.from_iterable(shards)) == sorted(d.lines[0] for d in corpus.documents())
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= (10 if files >= count else 1)


def test_parts_of_a_long_document_stay_together(tmp_path):
    path = write(tmp_path / "a.txt", "um\n\n" + "dois\n" * PART_CHARS + "\ntrês\n")
    corpus = Corpus([str(path)])
    one, two = ([set(d.lines) for d in corpus.documents(shard=(i, 2))] for i in range(2))
    assert one == [{"um"}, {"três"}] and two[0] == {"dois"} and len(two) > 2
