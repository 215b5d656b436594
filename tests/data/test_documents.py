"""fastbert.data.corpus.documents: every kind of source and format, and one clear line for every kind of bad input."""

import gzip
import lzma
import os
import re
import subprocess
import sys
import tracemalloc
from itertools import chain

import pytest
from corpus_files import COMPRESS, fault, read, write

from fastbert.data import Corpus, Document
from fastbert.data.corpus.formats import PART_CHARS
from fastbert.data.corpus.text_blocks import BLOCK_BYTES, MAX_LINE_BYTES
from fastbert.system.errors import InputError

TWO_DOCUMENTS = "Era uma vez.\nO gato dormiu.\n\nOutra história.\n"


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


# ---- faults of the text ----


def test_not_utf8_names_the_byte(tmp_path):
    message = fault(write(tmp_path / "a.txt", "ação ".encode() + "coração".encode("latin-1")))
    assert f"{tmp_path / 'a.txt'}: line 1: byte 11 (0xe7)" in message and "iconv" in message


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
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image"),
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
    ("package", "name"),
    [("zstandard", "a.txt.zst"), ("pyarrow", "a.parquet"), ("pyarrow", "a.arrow"), ("fsspec", "memory://a.txt")],
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
