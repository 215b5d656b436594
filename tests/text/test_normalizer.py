"""Normalised words: the C++ core, the Python twin and the reference tokenizer agree, code point by code point."""

import itertools
import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from fastbert.system import native
from fastbert.text.normalizer import Normalizer, NormalizerOptions

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "tests" / "data" / "upstream_cases.json").read_text(encoding="utf-8"))
ALL_OPTIONS = [NormalizerOptions(*values) for values in itertools.product((True, False), repeat=4)]
ALL_OPTIONS += [
    NormalizerOptions(lowercase, lowercase, split_punctuation=punctuation, single_digits=digits)
    for lowercase in (True, False)
    for punctuation, digits in ((False, False), (True, True), (False, True))
]
DEFAULT = NormalizerOptions()
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
# characters on which implementations differ: marks of many classes, singletons, jamo, blanks, format characters
TRAPS = [
    *"0123456789",
    *map(chr, [*range(0x180), *range(0x300, 0x370), *range(0x2000, 0x2070)]),
    *"\u1b44\u302e\ua953\u08d4\u0f73\u0f75\u0f81\u0344\u0130\u03a3\u1e9e\uac00\uac01\ud7a3\uf900\u4e00\u09cb\u037e\u2329",
    *"\u3000\u180e\ufeff\ufffd\ufffe\u0378\ue000\u00ad\u05b0\u0e33\u1c80\u2126\u212a\ufb01\u1fef\u0387\u2028\u0085",
    *map(
        chr,
        [0x1D165, 0x1D16D, 0x1D160, 0x1D15E, 0x1134B, 0x1E000, 0x2F800, 0x2B820, 0x2B920, 0x1F600, 0x10FFFF, 0x11938],
    ),
]


class NativeNormalizer:
    """The interface of the twin over the C++ core."""

    def __init__(self, options):
        self.module = native.core("cpp")
        self.options = self.module.NormalizerOptions(**asdict(options))

    def words(self, text):
        return self.module.normalized_words(text, self.options)

    def aligned_words(self, text):
        return self.module.aligned_words(text, self.options)


def make(impl, options):
    if impl == "reference":
        return Normalizer(options)
    if native._load()[0] is None:
        pytest.skip("the C++ core is not built")
    return NativeNormalizer(options)


def reference_words(options):
    """What Hugging Face `tokenizers` gives."""
    tokenizers = pytest.importorskip("tokenizers", reason="the reference, tokenizers, is not installed")
    steps = asdict(options)
    punctuation, digits = steps.pop("split_punctuation"), steps.pop("single_digits")
    normalizer = tokenizers.normalizers.BertNormalizer(**steps)
    made = tokenizers.pre_tokenizers
    words = made.BertPreTokenizer() if punctuation else made.WhitespaceSplit()
    isolated = made.Split(tokenizers.Regex("[0-9]"), "isolated")
    split = (made.Sequence([words, isolated]) if digits else words).pre_tokenize_str
    return lambda text: [word for word, _ in split(normalizer.normalize_str(text))]


def random_texts(seed, count, longest=14):
    rng = random.Random(seed)
    return ["".join(rng.choices(TRAPS, k=rng.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("case", [c for c in CASES if c["level"] == "basic"], ids=lambda c: repr(c["text"])[:30])
def test_upstream_cases(case, impl):
    wished = case["options"]
    if "never_split" in wished:
        pytest.skip("never_split belongs to the tokenizer, not to the normalizer")
    lower = wished["lower"]
    options = NormalizerOptions(
        lower, wished.get("strip_accents", lower), wished.get("remove_control_chars", True), True
    )
    assert make(impl, options).words(case["text"]) == case["tokens"]


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_every_code_point_alone_after_a_letter_and_between_letters(impl):
    step = 1 if impl == "cpp" else 61  # the twin is slow; the C++ core is compared with it elsewhere
    block = 48
    words, expected = make(impl, DEFAULT).words, reference_words(DEFAULT)
    chosen = [chr(c) for c in SCALARS[::step]]
    for i in range(0, len(chosen), block):
        text = " ".join(f"{c} a{c} a{c}b" for c in chosen[i : i + block])
        if words(text) != expected(text):
            for c in chosen[i : i + block]:
                for form in (c, f"a{c}", f"a{c}b"):
                    assert words(form) == expected(form), ascii(form)


@pytest.mark.slow
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
def test_every_code_point_under_all_options(options):
    words, expected = make("cpp", options).words, reference_words(options)
    for c in map(chr, SCALARS):
        for text in (c, f"a{c}b"):
            assert words(text) == expected(text), ascii(text)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
def test_random_strings_of_traps(options, impl):
    normalizer, expected = make(impl, options), reference_words(options)
    for text in random_texts(1, 600 if impl == "cpp" else 150):
        words = normalizer.words(text)
        assert words == expected(text), ascii(text)
        assert [word for word, _ in normalizer.aligned_words(text)] == words, ascii(text)


@pytest.mark.parametrize("options", ALL_OPTIONS, ids=str)
def test_twins_align_alike(options):
    ours, twin = make("cpp", options), make("reference", options)
    for text in random_texts(2, 300):
        assert ours.aligned_words(text) == twin.aligned_words(text), ascii(text)


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_canonical_order_of_marks(impl):
    shared = ROOT.parent / "shared" / "data" / "tokenizer" / "NormalizationTest-15.0.txt"
    if not shared.is_file():
        pytest.skip(f"{shared.name} is not beside the repository")
    normalizer, expected = make(impl, DEFAULT), reference_words(DEFAULT)
    lines = shared.read_text(encoding="utf-8").splitlines()
    columns = [line.split(";")[0] for line in lines if line and line[0] not in "#@"]
    for column in columns if impl == "cpp" else columns[::40]:
        text = "".join(chr(int(c, 16)) for c in column.split())
        assert normalizer.words(text) == expected(text), column


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_long_runs_of_marks_are_ordered_in_good_time(impl):
    # two classes that survive, alternating: insertion would be quadratic
    text = "a" + "\u302e\u1b44" * 50_000
    (word,) = make(impl, DEFAULT).words(text)
    assert word == "a" + "\u1b44" * 50_000 + "\u302e" * 50_000


def test_committed_tables_are_what_the_generator_writes():
    tokenizers = pytest.importorskip("tokenizers")
    from fastbert.text import unicode_tables

    if f"tokenizers {tokenizers.__version__};" not in unicode_tables.__doc__:
        pytest.skip(f"the tables were made with another version than {tokenizers.__version__}")
    script = ROOT / "csrc" / "tables" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
