"""The tokenizer's interface on both implementations: inputs, outputs, files, odd vocabularies, odd text."""

import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer, TokenizerOptions
from support import SPECIAL

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "tests" / "data" / "upstream_cases.json").read_text(encoding="utf-8"))
VOCAB = [
    *SPECIAL,
    "hello",
    "world",
    "a",
    "b",
    "c",
    "##a",
    "##b",
    "##c",
    ",",
    "!",
    "é",
    "e",
    "漢",
    "wor",
    "##ld",
    ".",
    "n",
    "'",
    "t",
]
IMPLS = ["cpp", "reference"]


@pytest.fixture(params=IMPLS)
def impl(request):
    if request.param == "cpp" and native._load()[0] is None:
        pytest.skip("the C++ core is not built")
    return request.param


@pytest.fixture
def tok(impl):
    return Tokenizer(VOCAB, impl=impl)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- upstream facts ----


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["level"] in ("wordpiece", "full")], ids=lambda c: repr(c["text"])
)
def test_upstream_cases(case, impl):
    tok = Tokenizer(case["vocab"], TokenizerOptions(lowercase=case.get("options", {}).get("lower", False)), impl=impl)
    encoding = tok.encode(case["text"], add_special_tokens=False)
    assert encoding.tokens == case["tokens"]
    assert encoding.ids == case.get("ids", encoding.ids)


# ---- encode ----


def test_encode_gives_everything(tok):
    encoding = tok.encode("Hello, wórld![MASK]")
    assert encoding.tokens == ["[CLS]", "hello", ",", "world", "!", "[MASK]", "[SEP]"]
    assert encoding.ids == [2, 5, 13, 6, 14, 4, 3]
    assert encoding.offsets == [(0, 0), (0, 5), (5, 6), (7, 12), (12, 13), (13, 19), (0, 0)]
    assert encoding.word_ids == [None, 0, 1, 2, 3, 4, None]
    assert encoding.special_tokens_mask == [1, 0, 0, 0, 0, 0, 1]
    assert encoding.type_ids == encoding.overflowing + [0] * 7
    assert encoding.attention_mask == [1] * 7


def test_pairs_and_overflow(tok):
    encoding = tok.encode("a b c a", "hello", truncation="only_first", max_length=6, stride=1)
    assert encoding.tokens == ["[CLS]", "a", "b", "[SEP]", "hello", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1]
    assert [part.tokens[1:3] for part in encoding.overflowing] == [["b", "c"], ["c", "a"]]


def test_special_tokens_as_text(tok):
    assert tok.encode("[SEP]", split_special_tokens=True).ids == [2, 1, 1, 1, 3]
    assert tok.encode_batch(["[SEP]"], split_special_tokens=True).input_ids.tolist() == [2, 1, 1, 1, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"truncation": "shortest"},
        {"truncation": True},
        {"max_length": -1},
        {"max_length": 4, "stride": 3},
        {"max_length": 4, "truncation_side": "up"},
        {"max_length": 4, "truncation": "only_second"},
    ],
)
def test_wrong_truncation_is_refused(tok, arguments):
    with pytest.raises(InputError) as caught:
        tok.encode("a b c a b c", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["a"]])
def test_text_must_be_str(tok, wrong):
    with pytest.raises(InputError, match="str"):
        tok.encode(wrong)
    with pytest.raises(InputError, match="text 1"):
        tok.encode_batch(["a", wrong])
    with pytest.raises(InputError, match="list"):
        tok.encode_batch("one text")


@pytest.mark.parametrize("text", ["a\ud800", "\udfff", "漢\udc80b"])
def test_lone_surrogates(tok, text):
    for call in (tok.encode, lambda t: tok.encode_batch(["a", t]), lambda t: tok.encode_batch([("a", t)])):
        with pytest.raises(InputError, match="surrogate"):
            call(text)
    assert tok.encode("a").ids == [2, 7, 3]  # nothing is left behind


def test_nul(impl):
    tok = Tokenizer(VOCAB, impl=impl)
    assert tok.encode_batch(["\0", "a\0b", "\0" * 20, "a"]).input_ids.tolist() == [2, 3, 2, 7, 11, 3, 2, 3, 2, 7, 3]
    kept = Tokenizer(VOCAB, TokenizerOptions(clean_text=False), impl=impl)
    assert kept.encode_batch(["\0", "a\0b", "\0" * 20, ""]).input_ids.tolist() == [2, 1, 3, 2, 1, 3, 2, 1, 3, 2, 3]


# ---- batches ----


def test_batch_layout(tok):
    batch = tok.encode_batch(["a b", "", "hello"])
    assert batch.input_ids.dtype == np.int32 and batch.offsets.dtype == np.int64
    assert batch.input_ids.tolist() == [2, 7, 8, 3, 2, 3, 2, 5, 3]
    assert batch.offsets.tolist() == [0, 4, 6, 9]
    assert batch.token_type_ids is None and batch.char_offsets is None
    assert len(batch) == 3 and batch[-1].tolist() == [2, 5, 3] and [len(row) for row in batch] == [4, 2, 3]


def test_empty_batch(tok):
    for empty in ([], (), iter(())):
        batch = tok.encode_batch(empty)
        assert batch.offsets.tolist() == [0] and batch.input_ids.shape == (0,)
    assert tok.encode_file(b"").offsets.tolist() == [0]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_threads_do_not_change_the_result(tok, threads):
    texts = [f"hello {'a' * (i % 7)} wórld漢 {i}" for i in range(200)] * (60 if tok._impl == "cpp" else 1)
    one, many = tok.encode_batch(texts, threads=1), tok.encode_batch(texts, threads=threads)
    assert np.array_equal(one.input_ids, many.input_ids) and np.array_equal(one.offsets, many.offsets)


def test_wide_and_narrow_strings(tok):
    # CPython stores these as ASCII, Latin-1, UCS-2 and UCS-4
    texts = ["a b", "é b", "漢 b", "a\U0001f600 é 漢 b", "b\U0001f600"]
    batch = tok.encode_batch(texts)
    for i, text in enumerate(texts):
        assert batch[i].tolist() == tok.encode(text).ids
        assert tok.encode_file(text.encode()).input_ids.tolist() == tok.encode(text).ids


def test_uint16(tok):
    assert tok.encode_batch(["a"], dtype="uint16").input_ids.dtype == np.uint16
    assert tok.encode_file(b"a\nb", dtype="uint16").input_ids.tolist() == [2, 7, 3, 2, 8, 3]
    with pytest.raises(InputError, match="dtype"):
        tok.encode_batch(["a"], dtype="int64")
    large = Tokenizer([*SPECIAL, *(str(i) for i in range(1 << 16))], impl=tok._impl)
    with pytest.raises(InputError, match="uint16"):
        large.encode_batch(["a"], dtype="uint16")


def test_batch_errors_name_the_text(impl):
    tok = Tokenizer([t for t in VOCAB if t != "[UNK]"], impl=impl)
    with pytest.raises(InputError, match=r"text 2: .*\[UNK\]"):
        tok.encode_batch(["a", "b", "zzz"])
    with pytest.raises(InputError, match=r"text 1: .*first text"):
        tok.encode_batch([("a", "b"), ("a", "b c a b c")], truncation="only_first", max_length=5)


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "chunked", "sliced", "dictionary", "empty"])
def test_arrow_columns(tok, kind):
    pa = pytest.importorskip("pyarrow")
    texts = ["a b", "", "hello wórld", "漢"]
    column = pa.array(texts, pa.large_string() if kind == "large_string" else pa.string())
    if kind == "string_view":
        column = column.cast(pa.string_view())
    elif kind == "chunked":
        column = pa.chunked_array([texts[:1], [], texts[1:]])
    elif kind == "sliced":
        column = pa.array(["x", *texts, "y"]).slice(1, 4)
    elif kind == "dictionary":
        column = column.dictionary_encode()
    elif kind == "empty":
        column, texts = pa.chunked_array([], pa.string()), []
    expected, got = tok.encode_batch(texts, with_offsets=True), tok.encode_batch(column, with_offsets=True)
    assert np.array_equal(got.input_ids, expected.input_ids)
    assert np.array_equal(got.offsets, expected.offsets)
    assert np.array_equal(got.char_offsets, expected.char_offsets)


def test_arrow_refusals(tok):
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="null"):
        tok.encode_batch(pa.array(["a", None]))
    with pytest.raises(InputError, match="int64"):
        tok.encode_batch(pa.array([1, 2]))


def test_files(tok, tmp_path):
    path = write(tmp_path / "x.txt", "a b\n\nhello wórld\r\nc")
    by_path, by_bytes = tok.encode_file(path), tok.encode_file(path.read_bytes())
    assert by_path.offsets.tolist() == by_bytes.offsets.tolist() == [0, 4, 6, 10, 13]
    assert by_path.input_ids.tolist() == tok.encode_batch(["a b", "", "hello wórld\r", "c"]).input_ids.tolist()
    assert tok.encode_file(str(write(tmp_path / "empty.txt", ""))).offsets.tolist() == [0]
    assert tok.encode_file(memoryview(b"a\n")).input_ids.tolist() == [2, 7, 3]
    with pytest.raises(InputError, match=r"missing\.txt"):
        tok.encode_file(tmp_path / "missing.txt")


@pytest.mark.parametrize("clean_text", [True, False])
def test_invalid_utf8_is_read_as_python_reads_it(impl, clean_text):
    tok = Tokenizer([*VOCAB, "\ufffd", "##\ufffd"], TokenizerOptions(clean_text=clean_text), impl=impl)
    tails = [b"", b"a", b"\x80", b"\xbf\xbf", b"\xc3", b" b", b"[SEP]"]
    heads = [
        bytes([lead, *rest])
        for lead in range(0x80, 0x100)
        for rest in ([], [0x7F], [0x80], [0x90, 0x80], [0xA0], [0xBF, 0xBF])
    ]
    for head in heads:
        for tail in tails:
            raw = b"a" + head + tail
            expected = tok.encode(raw.decode("utf-8", errors="replace")).ids
            assert tok.encode_file(raw).input_ids.tolist() == expected, raw


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
def test_a_line_of_100_mb_without_a_space_needs_bounded_memory(tmp_path):
    if native._load()[0] is None:
        pytest.skip("the C++ core is not built")
    script = (
        "import resource, sys; from fastbert.text import Tokenizer\n"
        f"tok = Tokenizer({VOCAB!r}, impl='cpp')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "for unit in (b'a', 'é'.encode(), '\\u302e'.encode(), b'\\xff', b'\\0'):\n"
        "    line = unit * (100_000_000 // len(unit)); before = peak()\n"
        "    assert tok.encode_file(line).input_ids.tolist() in ([2, 1, 3], [2, 3])\n"
        "    assert peak() - before < 20, (unit, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# ---- vocabularies ----


def test_from_file_reads_odd_files(impl, tmp_path):
    content = "\ufeff" + "\r\n".join([*SPECIAL, "a", "", "b  ", "a", "##a\t"]) + "\r\n"
    tok = Tokenizer.from_file(write(tmp_path / "vocab.txt", content), impl=impl)
    assert tok.vocab == [*SPECIAL, "a", "", "b", "a", "##a"] and len(tok) == 10
    assert tok.encode("a b aa").ids == [2, 8, 7, 8, 9, 3]  # of equal lines the last wins
    assert tok.token_to_id("a") == 8 and tok.id_to_token(5) == "a"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfea", b"a\n\xc3"])
def test_unusable_vocabularies(tmp_path, content):
    with pytest.raises(InputError, match=r"vocab\.txt"):
        Tokenizer.from_file(write(tmp_path / "vocab.txt", content))
    with pytest.raises(InputError, match="missing"):
        Tokenizer.from_file(tmp_path / "missing")


def test_without_cls_and_sep(impl):
    tok = Tokenizer(["[UNK]", "a"], impl=impl)
    with pytest.raises(InputError, match=r"\[CLS\]"):
        tok.encode("a")
    with pytest.raises(InputError, match=r"\[CLS\]"):
        tok.encode_batch(["a"])
    assert tok.encode("a [SEP]", add_special_tokens=False).ids == [1, 0, 0, 0]
    assert (tok.pad_id, tok.unk_id, tok.cls_id, tok.sep_id, tok.mask_id) == (-1, 0, -1, -1, -1)


def test_without_unk(impl):
    tok = Tokenizer([t for t in VOCAB if t != "[UNK]"], impl=impl)
    assert tok.encode("hello a").tokens == ["[CLS]", "hello", "a", "[SEP]"]
    for text in ("zzz", "a" * 101, "漢z漢"):
        with pytest.raises(InputError, match=r"\[UNK\]"):
            tok.encode(text)
    assert tok.encode("hello a").tokens == ["[CLS]", "hello", "a", "[SEP]"]


def test_large_vocabulary(impl):
    tok = Tokenizer([*SPECIAL, *(f"w{i}" for i in range(100_000)), *(f"##{i}" for i in range(100_000))], impl=impl)
    assert tok.encode("w99999 w1234567").ids == [2, 100_004, 5 + 12345, 100_005 + 67, 3]


def test_max_input_chars_per_word(impl):
    tok = Tokenizer(VOCAB, TokenizerOptions(max_input_chars_per_word=3), impl=impl)
    assert tok.encode("abc abca aé").tokens[1:-1] == ["a", "##b", "##c", "[UNK]", "[UNK]"]
    with pytest.raises(InputError, match="max_input_chars_per_word"):
        TokenizerOptions(max_input_chars_per_word=0)


def test_attributes(tok):
    assert (tok.pad_id, tok.unk_id, tok.cls_id, tok.sep_id, tok.mask_id) == (0, 1, 2, 3, 4)
    assert tok.special_ids == [0, 1, 2, 3, 4]
    assert tok.is_continuation.dtype == np.uint8
    assert [tok.vocab[i] for i in np.flatnonzero(tok.is_continuation)] == ["##a", "##b", "##c", "##ld"]
    assert tok.token_to_id("nothing") is None and tok.id_to_token(-1) is None and tok.id_to_token(len(tok)) is None


def test_decode(tok):
    ids = tok.encode("hello, wórld! aab [MASK] .").ids
    assert tok.decode(ids) == "hello, world! aab."
    assert tok.decode(ids, skip_special_tokens=False) == "[CLS] hello, world! aab [MASK]. [SEP]"
    assert tok.decode(ids, clean_up=False) == "hello , world ! aab ."
    assert tok.decode(np.array([10, 5, 999], np.int32)) == "##a hello"
    assert tok.decode([]) == ""


# ---- keeping and sharing ----


def test_fingerprint_pickle_and_equality(tok):
    again = pickle.loads(pickle.dumps(tok))
    assert again == tok and hash(again) == hash(tok) and again.encode("aab").ids == tok.encode("aab").ids
    assert again.fingerprint() == tok.fingerprint() and len(tok.fingerprint()) == 64
    cased = Tokenizer(VOCAB, TokenizerOptions(lowercase=False), impl=tok._impl)
    assert cased != tok and Tokenizer(VOCAB[:-1], impl=tok._impl) != tok
    # None means "as lowercase": the same tokenizer
    assert Tokenizer(VOCAB, TokenizerOptions(strip_accents=True), impl=tok._impl) == tok


def _encode_in_child(tok, texts, queue):
    queue.put(tok.encode_batch(texts, threads=4).input_ids.tolist())


@pytest.mark.skipif(not hasattr(multiprocessing, "get_context") or sys.platform == "win32", reason="no fork")
def test_after_fork(tok):
    texts = [f"hello wórld {'a' * (i % 9)}" for i in range(30_000 if tok._impl == "cpp" else 50)]
    expected = tok.encode_batch(texts, threads=4).input_ids.tolist()  # the pool's threads run now
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_encode_in_child, args=(tok, texts, queue))
    child.start()
    got = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0 and got == expected
    assert tok.encode_batch(texts, threads=4).input_ids.tolist() == expected


def test_from_many_python_threads(tok):
    texts = [f"hello wórld {'a' * (i % 9)} {i}" for i in range(20_000 if tok._impl == "cpp" else 50)]
    expected = tok.encode_batch(texts).input_ids
    results = [None] * 6

    def work(i):
        results[i] = tok.encode_batch(list(texts), threads=2).input_ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, expected) for result in results)


def test_train_delegates_and_encodes(impl, tmp_path):
    lines = ["o rato roeu a roupa do rei de Roma", "o rei de Roma ficou com ração"] * 20
    path = write(tmp_path / "text.txt", "\n".join(lines))
    tok = Tokenizer.train(lines, vocab_size=80, lowercase=False, impl=impl)
    assert tok.vocab[:5] == SPECIAL and tok.special_ids == [0, 1, 2, 3, 4]
    assert tok.options.lowercase is False and "[UNK]" not in tok.encode("rei ração").tokens
    assert Tokenizer.train(path, vocab_size=80, lowercase=False, impl=impl) == tok
    assert Tokenizer.train([str(path)], vocab_size=80, lowercase=False, impl=impl) == tok
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.train(tmp_path / "missing.txt", impl=impl)
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.train(str(tmp_path / "missing.txt"), impl=impl)
