"""What the tests of counting words and of training vocabularies share."""

import lzma
from importlib import resources

import pytest
from hypothesis import strategies as st

from fastbert.system.native import core
from fastbert.text.word_counts import WordCounts

HAS_CORE = core("auto") is not None
needs_core = pytest.mark.skipif(not HAS_CORE, reason="the C++ core is not built")
IMPLS = ["reference", pytest.param("cpp", marks=needs_core)]
both = pytest.mark.parametrize("impl", IMPLS)

# accents, a decomposed one, blanks that are none in ASCII, ideographs, punctuation, marks, special tokens, controls
NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from("aab bcé\t\n\r.,[]#ãḈ̃  　中文。ﬁİΣ​\x00\x0b\x1c\x85😀ＡK가"),
        st.characters(codec="utf-8"),
    ),
    max_size=60,
)
PIECES = st.lists(st.one_of(NASTY, st.sampled_from(["[MASK]", "[CLS", "]", "[PAD]x", "xx[SEP][UNK]", " "])), max_size=6)
TEXTS = st.lists(PIECES.map("".join), max_size=5)


def bundled(language: str, num_chars: int) -> str:
    data = (resources.files("fastbert.data") / "bundled" / f"{language}.txt.xz").read_bytes()
    return lzma.decompress(data).decode()[:num_chars]


def counted(texts, impl, **options):
    counts = WordCounts(impl=impl, **options)
    counts.add_texts(texts)
    return counts
