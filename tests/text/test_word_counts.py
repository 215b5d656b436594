"""Counting words: the rules, equal counts of both implementations, bounded memory, faults of the text."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_texts import HAS_CORE, TEXTS, both, counted, needs_core

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.text.vocab_trainer import learn_vocab, train_vocab
from fastbert.text.word_counts import LONGEST_RUN, WordCounts


@both
def test_special_tokens_in_the_text_are_counted_as_they_are_stored(impl):
    counts = counted(["foo[MASK]bar [mask] [MA SK] [[CLS]"], impl)
    assert dict(counts.items()) == {"[": 5, "]": 4, "mask": 2, "foo": 1, "bar": 1, "ma": 1, "sk": 1, "cls": 1}
    assert (len(counts), counts.total) == (8, 16)
    lines = [f"title number {i} [SEP] an abstract [SEP] two keywords" for i in range(100)]
    tokenizer = Tokenizer.train(lines, vocab_size=300, impl=impl)
    stored = tokenizer.encode_batch(lines, add_special_tokens=False, split_special_tokens=True).input_ids
    assert not np.isin(stored, tokenizer.special_ids).any()


OPTIONS = st.fixed_dictionaries(
    {
        "lowercase": st.booleans(),
        "strip_accents": st.sampled_from([None, True, False]),
        "clean_text": st.booleans(),
        "handle_chinese_chars": st.booleans(),
        "split_punctuation": st.booleans(),
        "single_digits": st.booleans(),
    }
)


@needs_core
@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, options=OPTIONS, threads=st.sampled_from([1, 2, 5]))
def test_twins_count_alike(texts, options, threads):
    ours = counted(texts, "cpp", threads=threads, **options)
    twin = counted(texts, "reference", **options)
    assert ours.items() == twin.items()
    assert (len(ours), ours.total) == (len(twin), twin.total)
    joined = " ".join(texts).encode()
    in_bytes = WordCounts(impl="cpp", threads=threads, **options)
    in_bytes.add_bytes(joined)
    assert in_bytes.items() == ours.items()


@both
def test_words_of_more_than_100_characters_are_ignored(impl):
    text = ["b" * 100 + " " + "a" * 101 + " " + "c" * 5000]
    assert [word for word, _ in counted(text, impl).items()] == ["b" * 100]


@both
@pytest.mark.parametrize("size", [LONGEST_RUN - 1, LONGEST_RUN, LONGEST_RUN + 1, 2 * LONGEST_RUN, 2 * LONGEST_RUN + 9])
def test_a_run_without_blanks_is_cut_where_the_rule_says(impl, size, tmp_path):
    # "é" has two bytes and stands on odd offsets, so that a cut in the middle of it would show
    unit = "a,é,"
    data = ("x" + unit * (size // 5 + 1)).encode()[:size].decode("utf-8", "ignore")
    data = data[: LONGEST_RUN - 20] + "ninety" + data[LONGEST_RUN - 14 :]
    expected: dict[str, int] = {}
    raw, start = data.encode(), 0
    while start < len(raw):
        end = start + LONGEST_RUN
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        for part in raw[start:end].decode().split(","):
            for word in (part, ","):
                expected[word] = expected.get(word, 0) + 1
        expected[","] -= 1
        start = end
    expected.pop("", None)
    options = {"strip_accents": False, "impl": impl}
    in_text = counted([data], **options)
    assert dict(in_text.items()) == expected
    path = tmp_path / "run.txt"
    path.write_bytes(raw + b"\nend of it")
    in_file = WordCounts(**options)
    in_file.add_file(path)
    in_text.add_texts(["end of it"])
    assert in_file.items() == in_text.items()


PEAK_OF_COUNTING = """
import sys
from fastbert.text.word_counts import WordCounts

def peak_mb():  # not ru_maxrss, which begins with the peak of the process that started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024

counts = WordCounts(impl="cpp", threads=2)
counts.add_texts(["a" * 100])
before = peak_mb()
counts.add_file(sys.argv[1])
print(counts.total - 1, peak_mb() - before)
"""


@needs_core
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("unit", ["a" * 32, "quatro palavras por vez, "])
def test_memory_does_not_grow_with_the_text(unit, tmp_path):
    """150 MB, as one line without a blank or as prose: counting takes less than a tenth of it."""
    path = tmp_path / "text.txt"
    block = unit.encode() * ((1 << 20) // len(unit))
    with open(path, "wb") as file:
        for _ in range(150):
            file.write(block)
    printed = subprocess.run(
        [sys.executable, "-c", PEAK_OF_COUNTING, str(path)], check=True, capture_output=True, text=True
    ).stdout
    total, grown_mb = map(int, printed.split())
    assert total == (0 if " " not in unit else 5 * 150 * (len(block) // len(unit)))
    assert grown_mb < 15


@needs_core
def test_counts_of_one_implementation_serve_the_other():
    a, b = counted(["a b c"], "cpp"), counted(["b c c"], "reference")
    assert learn_vocab(a, impl="reference") == learn_vocab(a, impl="cpp")
    assert learn_vocab(b, impl="reference") == learn_vocab(b, impl="cpp")
    assert a.items() == [("a", 1), ("b", 1), ("c", 1)] and b.items() == [("b", 1), ("c", 2)]


@both
@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"\xff", 0), (b"ab \xc3", 3), (b"a\xed\xa0\x80", 1), (b"x" * 300 + b" \xe2\x82 y \xff", 301), (b"\xc0\xaf", 0)],
)
def test_invalid_utf8_names_file_and_byte(impl, data, offset, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"bad\.txt: byte {offset} is not UTF-8"):
        train_vocab([path], impl=impl)
    path.write_bytes(b"good line\n" * 1_000_000 + data)
    with pytest.raises(InputError, match=rf"byte {10_000_000 + offset} is not"):
        WordCounts(impl="cpp" if HAS_CORE else "reference", threads=3).add_file(path)


@both
def test_a_replacement_character_is_no_fault(impl):
    counts = WordCounts(impl=impl)
    counts.add_bytes("a�b ï".encode())
    assert counts.items() == [("ab", 1), ("i", 1)]
