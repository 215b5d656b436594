"""What an error about a text tells to try is tried here, word for word, and leaves the text whole."""

import gzip
import json
import lzma
import re
import shlex
import subprocess

import pytest
from corpus_files import fault, read, write, zstd

from fastbert.inspect.__main__ import InspectOptions, main
from fastbert.system.cli import run

PROSE = "“Não”, disse — e saiu…\nOlá, café!\n"
CYRILLIC = "Привет, мир! Это проверка.\nЕщё одна строка.\n"
LINES = PROSE.strip().split("\n")


def shell(remedy, path, ending=".txt"):
    """Run a command of a remedy; returns the new file."""
    new = path.with_name("new" + ending)
    line = re.match(r"(?:.*?Try: )?(.*? OLD > NEW)", remedy)[1]
    line = line.replace("OLD", shlex.quote(str(path))).replace("NEW", shlex.quote(str(new)))
    subprocess.run(line, shell=True, stderr=subprocess.DEVNULL)  # iconv -c reports what it drops
    return new


COMMANDS = {
    "windows-1252": ((PROSE * 20).encode("windows-1252"), PROSE * 20),
    "latin-1": ("é uma só".encode("latin-1"), "é uma só"),
    "latin-1, many accents": ("éàè ção\n".encode("latin-1") * 9, "éàè ção\n" * 9),
    "one bad byte": (PROSE.encode() + b"a\x93b\n" + PROSE.encode(), f"{PROSE}ab\n{PROSE}"),
    "surrogates in UTF-8": (PROSE.encode() + b"a\xed\xa0\x80b\n", f"{PROSE}ab\n"),
    "NUL in a log": (b"a log\n" * 3 + b"sta\0rt\n", "a log\n" * 3 + "start\n"),
    "UTF-16": (PROSE.encode("utf-16"), PROSE),
    "UTF-16, little": (PROSE.encode("utf-16-le"), PROSE),
    "UTF-16, big": ((PROSE * 9).encode("utf-16-be"), PROSE * 9),
    "UTF-16, Cyrillic": ((CYRILLIC * 9).encode("utf-16-le"), CYRILLIC * 9),
    "UTF-32": (PROSE.encode("utf-32"), PROSE),
    "UTF-32, little": (PROSE.encode("utf-32-le"), PROSE),
    "UTF-32, big": (PROSE.encode("utf-32-be"), PROSE),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_printed(tmp_path, name):
    content, text = COMMANDS[name]
    message = fault(write(tmp_path / "a.txt", content))
    if "UTF" not in name:  # a line feed is one byte
        assert f"line {content[: int(re.search(r'byte ([0-9]+)', message)[1])].count(10) + 1}:" in message
    new = shell(message, tmp_path / "a.txt")
    assert new.read_text(encoding="utf-8") == text
    assert [line for lines in read(new) for line in lines] == text.split("\n")[:-1] or not text.endswith("\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CYRILLIC, "windows-1251"),
        ("你好，世界。这是一个测试。\n", "gb18030"),
        ("こんにちは世界。\n", "shift_jis"),
        ("안녕하세요 세계\n", "euc-kr"),
    ],
)
def test_text_of_another_script_is_not_taken_for_western(tmp_path, text, encoding):
    message = fault(write(tmp_path / "a.txt", (text * 9).encode(encoding)))
    assert encoding in message and "-f windows-1252" not in message
    new = shell(message.replace("ENCODING", encoding), tmp_path / "a.txt")
    assert new.read_text(encoding="utf-8") == text * 9


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (lzma.compress, ".xz"), (zstd, ".zst")])
def test_another_name(tmp_path, pack, ending):
    path = write(tmp_path / "a.txt", pack(PROSE.encode()))
    suggested = re.search(r"rename the file to end in (\.\w+)", fault(path))[1]
    assert suggested == ending and read(path.rename(tmp_path / f"a.txt{suggested}")) == [LINES]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"doc": {"body": PROSE}, "id": 1})),
        ("a.csv", f'id,body\n1,"{PROSE}"\n'),
        ("a.csv", f'id;body\n1;"{PROSE}"\n'),
        ("a.tsv", f'id\tbody\n1\t"{PROSE}"\n'),
        ("a.jsonl", json.dumps({"turns": [{"body": line} for line in LINES]})),
    ],
)
def test_another_field(tmp_path, name, content):
    message = fault(write(tmp_path / name, content))
    assert "--text-field with one of them" in message
    (field,) = (name for name in re.findall(r"'([^']*)'", message.split("its fields: ")[1]) if "body" in name)
    assert read(tmp_path / name, text_field=field) == [LINES]


@pytest.mark.parametrize(
    ("name", "broken", "mended"),
    [
        ("a.csv", "text,n\na, b,1\n", 'text,n\n"a, b",1\n'),  # "…" around fields
        ("a.csv", 'text,n\n"a, b,1\n', 'text,n\n"a, b",1\n'),  # close its quotes
        ("a.csv", 'text,n\n"a" b,1\n', 'text,n\n"""a"" b",1\n'),  # " inside a quoted field as ""
        ("a.csv", "text^n\na^1\n", "text|n\na|1\n"),  # commas, semicolons, tabs or |
        ("a.csv", "Ruim demais,0\n", "text,n\nRuim demais,0\n"),  # a first line with the names
        ("a.json", '[{"text": "a"}\n', '[{"text": "a"}\n]'),  # the array is not closed
        ("a.json", '[{"text": "a"}] {"text": "b"}', '{"text": "a"}\n{"text": "b"}'),  # one object per line
        ("a.jsonl", '{"text": "a"} {"text": "b"}', '{"text": "a"}\n{"text": "b"}'),
        ("a.jsonl", "3\n", '{"text": "3"}\n'),  # an object like {"text": …}
    ],
)
def test_a_repair_by_hand(tmp_path, name, broken, mended):
    message = fault(write(tmp_path / name, broken))
    assert "Try: " in message
    expected = {"a": "a", "R": "Ruim demais", "3": "3"}
    texts = [line for lines in read(write(tmp_path / name, mended)) for line in lines]
    assert texts[0] in ("a", "a, b", '"a" b', *expected.values()) and len(texts) == mended.count('"b"') + 1


def inspected(capsys, path, *argv):
    capsys.readouterr()
    assert run(main, InspectOptions, [str(path), "--json", "--threads", "1", *map(str, argv)]) == 0
    report = json.loads(capsys.readouterr().out)
    return {finding["name"]: finding["remedy"] for finding in report["findings"]}, report


@pytest.mark.parametrize(
    ("finding", "content"),
    [
        ("words over the limit", "\n\n".join("ACGTTGCAAT" * 15 for _ in range(40))),
        ("one document", "\n".join(f"uma linha {i} sozinha" for i in range(200))),
        ("separators", "um\n<|endoftext|>\ndois\n<|endoftext|>\ntrês\n"),
        ("separators", "\n*****\n".join(f"linha {i}" for i in range(30))),
        ("large alphabet", "\n\n".join("".join(chr(0x4E00 + 60 * i + k) for k in range(60)) for i in range(90))),
    ],
)
def test_an_option_that_inspect_suggests(tmp_path, capsys, finding, content):
    path = write(tmp_path / "a.txt", content)
    before, report = inspected(capsys, path)
    option, value = shlex.split(before[finding].split(", if")[0])
    after, changed = inspected(capsys, path, option, value)
    assert finding not in after and changed["unknown"]["tokens"] == 0
    if option == "--documents":
        assert changed["documents"] > report["documents"]
    else:
        assert changed["words"] == report["words"] and changed["bytes"] == report["bytes"]


def test_misread_characters_are_turned_back(tmp_path, capsys):
    text = "Não há ação: “é” — já.\n" * 30
    path = write(tmp_path / "a.txt", text.encode().decode("windows-1252", "ignore"))
    before, _ = inspected(capsys, path)
    new = shell(before["misread characters"], path)
    assert new.read_bytes() == text.encode().decode("windows-1252", "ignore").encode("windows-1252")
    text = "Não há ação, já é.\n" * 30
    new = shell(before["misread characters"], write(path, text.encode().decode("windows-1252")))
    assert new.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("content", "ending"),
    [('{"text": "um dois", "id": 1}\n' * 40, ".jsonl"), ("id\ttext\n" + "1\tum dois\n" * 40, ".tsv")],
)
def test_records_in_plain_text_get_their_name(tmp_path, capsys, content, ending):
    path = write(tmp_path / "a.txt", content)
    before, _ = inspected(capsys, path)
    suggested = re.search(r"ends in (\.\w+)", before["records in plain text"])[1]
    assert suggested == ending and read(path.rename(tmp_path / f"a{suggested}")) == [["um dois"]] * 40
