"""python -m fastbert.inspect: the problem of each kind of file is named, and the figures are those of the text."""

import json
import random
import unicodedata

import pytest

from fastbert.data.corpus import text_blocks
from fastbert.inspect import survey
from fastbert.inspect.__main__ import InspectOptions, main
from fastbert.inspect.advice import suggestions
from fastbert.inspect.line_table import LineTable
from fastbert.inspect.lines import Lines
from fastbert.inspect.vocabulary import Spelling
from fastbert.system import native
from fastbert.system.cli import run

random.seed(0)
WORDS = "chuva sol gato praia trabalho domingo futebol café livro cidade noite música".split()
ACCENTS = "Não há hesitação possível: José é um médico e a ação começou às três. "
IDEOGRAPHS = [chr(0x4E00 + i) for i in range(5000)]


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=9)) + f" {seed}.{i}" for i in range(count)]


def documents(count: int, lines: int = 3, seed: int = 0) -> list[str]:
    rows = sentences(count * lines, seed)
    return ["\n".join(rows[i : i + lines]) for i in range(0, len(rows), lines)]


def objects(values, **common) -> str:
    return "".join(json.dumps({"text": value} | common) + "\n" for value in values)


PLENTY = "\n\n".join(documents(300))
REPEATED = PLENTY + "\n\n" + "\n\n".join(documents(300)[::3])
DNA = "\n".join("".join(random.choices("ACGT", k=150)) for _ in range(80))
CHINESE = "\n\n".join("".join(random.sample(IDEOGRAPHS, 60)) for _ in range(700))
SEPARATED = "\n\n".join(f"title {i} [SEP] an abstract" for i in range(200))
CHANGED = [document + f"\nnova linha {i}" for i, document in enumerate(documents(100, 9))]
HEADED = objects(f"{document}\nAceitar todos os cookies" for document in documents(200))
# file, its content, the finding that it must have, words of its description or remedy
CASES = {
    "dna": ("a.txt", DNA, "words over the limit", "--max-word-chars 150"),
    "blob": ("a.txt", ("x" * 5000 + "\n\n") * 90, "words over the limit", "over 1,000"),
    "ideographs": ("a.txt", CHINESE, "large alphabet", "--vocab-size 16384"),
    "separators": ("a.txt", SEPARATED, "special tokens in the text", "[SEP] 200 times"),
    "decomposed": ("a.txt", unicodedata.normalize("NFD", ACCENTS * 200), "decomposed accents", "2,600 accents"),
    "one paragraph": ("a.txt", "Era conveniente ao romance que o leitor ficasse. " * 20, "little text", "1 lines"),
    "one line": ("a.txt", ACCENTS * 200, "one line", "held out"),
    "a paragraph on one line": ("a.txt", "Era conveniente ao romance que o leitor. " * 40, "one line", "windows"),
    "acronyms": ("a.txt", "NASA USA iPhone HTML5 COVID-19 IBM\n" * 3, "capitals within words", "18 of 18"),
    "array": ("a.json", '[\n {\n  "text": "one"\n },\n {"text": "b", "id": 1}]', "records", "JSON array"),
    "fields not read": ("a.jsonl", objects("abc", title="t"), "records", "not read: title"),
    "lists": ("a.jsonl", objects([["a.", "b."]] * 5), "records", "text: a list of texts"),
    "bare texts": ("a.jsonl", '"one"\n"two"\n', "records", "without fields"),
    "semicolons in a table": ("a.csv", "text;label\nRuim demais;0\n", "records", "semicolons; not read: label"),
    "byte order marks": ("a.jsonl", '{"text": "one"}\n\ufeff{"text": "two"}\n', "records", "1 byte order marks"),
    "JSON in a .txt": ("a.txt", objects(sentences(40)), "records in plain text", ".jsonl"),
    "a table in a .txt": ("a.txt", "id\ttext\n" + "1\tum dois\n" * 9, "records in plain text", ".tsv"),
    "misread": ("a.txt", (ACCENTS * 9).encode().decode("latin-1"), "misread characters", "windows-1252"),
    "lost": ("a.txt", "a\ufffd\ufffdo " * 50, "lost characters", "100 times"),
    "invisible": ("a.txt", "su\u00adbir zero\u200blargura\n" * 50, "invisible characters", "100 soft hyphens"),
    "a line each": ("a.txt", "\n".join(sentences(900)), "one document", "--documents line"),
    "endoftext": ("a.txt", "\n<|endoftext|>\n".join(documents(9)), "separators", "--documents '<|endoftext|>'"),
    "stars": ("a.txt", "\n*****\n".join(documents(200)), "separators", "--documents '*****'"),
    "semicolons": ("a.csv", "text;label\nRuim demais;0\n", "little text", "2 tokens"),
    "other field": ("a.jsonl", '{"doc": {"text": "a"}, "title": "t"}\n', "unreadable file", "'doc.text'"),
    "missing field": ("a.jsonl", '{"text": "one"}\n{"title": "b"}\n', "unreadable file", "line 2"),
    "windows-1252": ("a.txt", "It’s “quoted”.\n".encode("cp1252") * 50, "unreadable file", "windows-1252"),
    "nul": ("a.log", b"start\x00\nmore\n", "unreadable file", "NUL"),
    "tags": ("a.txt", "\n\n".join(f"<p class='x'>{row}</p><br/>" for row in sentences(200)), "markup", "tags"),
    "duplicate lines": ("a.txt", REPEATED, "duplicate lines", "25% of the lines"),
    "duplicate documents": ("a.txt", REPEATED, "duplicate documents", "100 of 400"),
    "near-duplicate lines": ("a.txt", f"{PLENTY}\n\n{PLENTY.replace('0.', '7.')}", "near-duplicate lines", "50%"),
    "near-duplicate documents": (
        "a.txt", "\n\n".join([*documents(100, 9), *CHANGED]), "near-duplicate documents", "100 of 200",
    ),
    "boilerplate": ("a.jsonl", HEADED, "boilerplate", "'Aceitar todos os cookies' in 200"),
    "overlap": ("a.txt", REPEATED, "held-out overlap", "held-out"),
}  # fmt: skip


def inspected(tmp_path, capsys, *argv) -> dict:
    capsys.readouterr()
    assert run(main, InspectOptions, [*map(str, argv), "--json", "--threads", "1"]) == 0
    return json.loads(capsys.readouterr().out)


def found(report: dict) -> dict[str, str]:
    return {finding["name"]: f"{finding['what']} {finding['remedy']}" for finding in report["findings"]}


@pytest.mark.parametrize("name", CASES)
def test_the_problem_of_each_file_is_named(tmp_path, capsys, name):
    file, content, finding, word = CASES[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    findings = found(inspected(tmp_path, capsys, tmp_path / file))
    assert finding in findings and word in findings[finding], findings


def test_a_sound_text_has_no_findings_and_right_figures(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(PLENTY, encoding="utf-8")
    report = inspected(tmp_path, capsys, tmp_path / "a.txt", "--html", tmp_path / "page.html")
    assert report["findings"] == []
    figures = {name: report[name] for name in ("documents", "lines", "words", "bytes")}
    assert figures == {"documents": 300, "lines": 900, "words": 900 * 12, "bytes": len(PLENTY.encode())}
    assert report["scripts"] == {"Latin": 1.0} and report["unknown"]["share"] == 0
    assert report["files"]["formats"] == {"text": 1} and report["tokens"] >= report["words"]
    options = {one["option"]: one["value"] for one in report["suggestions"]}
    assert options == {"--vocab-size": "8192", "--preset": "tiny", "--max-length": "64", "--minutes": "5"}
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page and "Latin" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("tokens", "preset"), [(10_000, "tiny"), (1_000_000, None), (100_000_000, "small"), (10**9, "base")]
)
def test_a_preset_is_suggested_where_the_minutes_do_not_decide(tokens, preset):
    made = suggestions(survey.Survey(), Spelling(vocab_size=8192, room=8192, trained=True, tokens=tokens))
    assert {one.option: one.value for one in made}.get("--preset") == preset


def test_tokens_and_unknown_words_of_a_given_vocabulary(tmp_path, capsys):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]))
    (tmp_path / "a.txt").write_text("a ab zebra\nabb " + "a" * 101 + "\n")
    report = inspected(tmp_path, capsys, tmp_path / "a.txt", "--tokenizer", tmp_path / "v")
    assert report["tokens"] == 1 + 2 + 1 + 3 + 1 and report["unknown"]["tokens"] == 2
    assert report["words_over_the_limit"] == 1
    causes = report["unknown"]["causes"]
    assert sorted(causes.values()) == [1, 1] and any("100 characters" in cause for cause in causes)
    assert set(report["unknown"]["characters"]) == set("bzer")


def test_files_that_are_not_read_are_told_and_the_rest_is_read(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("um dois três\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "notes.docx").write_bytes(b"PK")
    (tmp_path / "README").write_text("x")
    (tmp_path / ".hidden.txt").write_text("x")
    report = inspected(tmp_path, capsys, tmp_path)
    assert report["files"]["read"] == 1 and report["files"]["num_problems"] == 1 and report["words"] == 3
    assert report["files"]["left_out"] == {".docx": 1, "without ending": 1, "hidden": 1}
    report = inspected(tmp_path, capsys, tmp_path / "a.txt", tmp_path / "none.txt")
    assert "none.txt" in found(report)["unreadable file"] and report["words"] == 3


@pytest.mark.parametrize(("file", "word"), [("a.html", "markup"), ("a.tar.gz", "unpack"), ("a.docx", "layout")])
def test_what_is_no_text_is_refused_by_its_name(tmp_path, capsys, file, word):
    (tmp_path / file).write_bytes(b"<p>text</p>")
    assert run(main, InspectOptions, [str(tmp_path / file)]) == 2
    error = capsys.readouterr().err
    assert file in error and word in error and "Try: " in error


@pytest.mark.parametrize("argv", [[], ["none.txt"], ["a.txt", "--vocab-size", "0"], ["a.txt", "--documents", ""]])
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("um\n")
    assert run(main, InspectOptions, argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_lines_are_sampled_when_there_are_too_many(impl):
    lines = Lines(max_lines=1000, impl=impl)
    for number in range(20_000):
        lines.add(b"line %d" % (number % 10_000), continues=False)
    lines.end()
    assert lines.estimated and lines.totals.distinct_lines <= 1000
    assert lines.num_lines == lines.num_documents == 20_000
    assert lines.duplicate_share() == pytest.approx(0.5, abs=0.03)


ROWS = ["um dois", "UM, dois!", "três", "", " \t", "\x1f", "x" * 20, "é" * 12, "quatro 4", "quatro 5", "\r"]


@pytest.mark.skipif(native.core() is None, reason="compares with the core")
@pytest.mark.parametrize("seed", range(40))
def test_twins_count_lines_alike(seed):
    draw = random.Random(seed)
    tables = [make(3 + 997 * (seed % 2), 10, 0.8) for make in (LineTable, native.core().LineTable)]
    ended: list[list] = [[], []]
    for _ in range(draw.randint(1, 12)):
        rows = draw.choices(ROWS, k=draw.randint(1, 9))
        text = ("\n".join(rows) + draw.choice(("\n", ""))).encode()
        continues, kind = draw.random() < 0.3, draw.randrange(4)
        for table, sizes in zip(tables, ended, strict=True):
            if kind == 0:
                sizes.append(table.end())
            elif kind == 1:
                sizes.append(table.add(text, continues))
            else:
                sizes += table.add_text(text)
    assert ended[0] == ended[1]
    assert tables[0].totals() == tables[1].totals()
    assert sorted(tables[0].frequent(2)) == sorted(tables[1].frequent(2))


def test_rare_words_are_dropped_when_there_are_too_many(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(survey, "MAX_WORDS", 500)
    monkeypatch.setattr(survey, "_CHECK_EVERY_BYTES", 1)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 4096)
    rows = [f"comum gato w{i}" for i in range(4000)]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    report = inspected(tmp_path, capsys, tmp_path / "a.txt")
    assert report["words"] == 12_000 and report["distinct_words"] <= 1000
    assert "estimates" in found(report)
