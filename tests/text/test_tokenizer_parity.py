"""Ids, type ids, offsets, word ids and overflowing parts equal those of Hugging Face `tokenizers`. Zero differences."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hostile_text import TRAPS, VOCAB

from fastbert.system import native
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer, TokenizerOptions
from fastbert.text.encoding import TruncationRule
from fastbert.text.tokenizer_files import read_vocab

tokenizers = pytest.importorskip("tokenizers", reason="the reference, tokenizers, is not installed")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FASTBERT_SHARED", ROOT.parent / "shared")) / "data"


def reference(vocab, options):
    """The reference tokenizer as its BertWordPieceTokenizer builds it."""
    model = tokenizers.models.WordPiece(
        {t: i for i, t in enumerate(vocab)},
        unk_token="[UNK]",
        max_input_chars_per_word=options.max_input_chars_per_word,
    )
    result = tokenizers.Tokenizer(model)
    result.add_special_tokens([t for t in ["[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"] if t in vocab])
    result.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
        clean_text=options.clean_text,
        handle_chinese_chars=options.handle_chinese_chars,
    )
    steps = tokenizers.pre_tokenizers
    words = steps.BertPreTokenizer() if options.split_punctuation else steps.WhitespaceSplit()
    digits = steps.Split(tokenizers.Regex("[0-9]"), "isolated")
    result.pre_tokenizer = steps.Sequence([words, digits]) if options.single_digits else words
    ids = {t: i for i, t in enumerate(vocab)}
    result.post_processor = tokenizers.processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    result.decoder = tokenizers.decoders.WordPiece()
    return result


def facts(encoding):
    """Everything two encodings must share, the overflowing parts included."""
    return (
        list(encoding.ids),
        list(encoding.type_ids),
        list(encoding.tokens),
        [tuple(span) for span in encoding.offsets],
        list(encoding.word_ids),
        list(encoding.special_tokens_mask),
        [facts(part) for part in encoding.overflowing],
    )


def make(impl, vocab=VOCAB, options=None):
    if impl == "cpp" and native._load()[0] is None:
        pytest.skip("the C++ core is not built")
    return Tokenizer(vocab, options or TokenizerOptions(), impl=impl)


def random_options(rng):
    flip = lambda: rng.random() < 0.7  # noqa: E731
    strip = rng.choice([None, None, True, False])
    return TokenizerOptions(flip(), strip, flip(), flip(), rng.choice([100, 100, 100, 5, 1]), flip(), not flip())


def random_text(rng, longest=10):
    return "".join(rng.choices(TRAPS, k=rng.randint(0, longest)))


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_random_texts_pairs_and_options(impl):
    rng = random.Random(3)
    for _ in range(12):
        options = random_options(rng)
        ours, theirs = make(impl, options=options), reference(VOCAB, options)
        for _ in range(150 if impl == "cpp" else 40):
            text, pair = random_text(rng), rng.choice([None, random_text(rng)])
            add, split = rng.random() < 0.7, rng.random() < 0.3
            theirs.encode_special_tokens = split
            expected = theirs.encode(text, pair, add_special_tokens=add)
            got = ours.encode(text, pair, add_special_tokens=add, split_special_tokens=split)
            assert facts(got) == facts(expected), (options, ascii(text), ascii(pair))
            batch = ours.encode_batch(
                [text] if pair is None else [(text, pair)],
                add_special_tokens=add,
                split_special_tokens=split,
                with_offsets=True,
            )
            assert batch.input_ids.tolist() == expected.ids
            assert batch.char_offsets.tolist() == [list(span) for span in expected.offsets]
            if pair is not None:
                assert batch.token_type_ids.tolist() == expected.type_ids
            assert ours.decode(expected.ids) == theirs.decode(expected.ids)
            assert ours.decode(expected.ids, False) == theirs.decode(expected.ids, skip_special_tokens=False)


def truncated_by_reference(theirs, text, pair, add, strategy, max_length, stride, side):
    """The reference's encoding, or None where it raises (some of its errors are Rust panics: BaseException)."""
    try:
        theirs.enable_truncation(max_length, stride=stride, strategy=strategy, direction=side)
        return theirs.encode(text, pair, add_special_tokens=add)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return None


@pytest.mark.parametrize("impl", ["cpp", "reference"])
def test_random_truncation_and_stride(impl, capfd):
    rng = random.Random(4)
    options = TokenizerOptions()
    ours, theirs = make(impl, options=options), reference(VOCAB, options)
    raised = cut = 0
    for _ in range(1500 if impl == "cpp" else 400):
        text, pair = random_text(rng, 6), rng.choice([None, random_text(rng, 6)])
        strategy = rng.choice(["longest_first", "longest_first", "only_first", "only_second"])
        max_length, stride = rng.choice([*range(0, 14), 40]), rng.choice([0, 0, 0, 1, 2, 5])
        side, add = rng.choice(["left", "right"]), rng.random() < 0.7
        expected = truncated_by_reference(theirs, text, pair, add, strategy, max_length, stride, side)
        arguments = {"truncation": strategy, "max_length": max_length, "truncation_side": side}
        if expected is None:
            raised += 1
            with pytest.raises(InputError):
                ours.encode(text, pair, add, stride=stride, **arguments)
            continue
        got = ours.encode(text, pair, add, stride=stride, **arguments)
        assert facts(got) == facts(expected), (ascii(text), ascii(pair), arguments, stride, add)
        cut += bool(expected.overflowing)
        for with_offsets in (False, True):
            batch = ours.encode_batch(
                [text] if pair is None else [(text, pair)], add, with_offsets=with_offsets, **arguments
            )
            assert batch.input_ids.tolist() == expected.ids
            if pair is not None:
                assert batch.token_type_ids.tolist() == expected.type_ids
    assert raised > 10 and cut > 50  # the test reaches what it is about


@pytest.mark.parametrize("impl", ["cpp", "reference"])
@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=st.data())
def test_differential_fuzz(impl, data):
    piece = st.one_of(
        st.sampled_from(TRAPS), st.characters(exclude_categories=["Cs"]), st.text(alphabet="abcé \u0301", max_size=6)
    )
    texts = data.draw(st.lists(st.lists(piece, max_size=12).map("".join), min_size=1, max_size=4))
    options = TokenizerOptions(
        data.draw(st.booleans()),
        data.draw(st.sampled_from([None, True, False])),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
    )
    ours, theirs = make(impl, options=options), reference(VOCAB, options)
    for text, got in zip(texts, ours.encode_batch(texts, threads=2), strict=True):
        expected = theirs.encode(text)
        assert got.tolist() == expected.ids, ascii(text)
        assert facts(ours.encode(text)) == facts(expected), ascii(text)


def test_twins_are_byte_identical():
    rng = random.Random(5)
    for _ in range(12):
        options = random_options(rng)
        ours, twin = make("cpp", options=options), make("reference", options=options)
        texts = [random_text(rng, 20) for _ in range(60)]
        for batch in (texts, list(zip(texts, reversed(texts), strict=True))):
            for keywords in ({"max_length": 9}, {"with_offsets": True}, {"dtype": "uint16", "truncation_side": "left"}):
                a, b = ours.encode_batch(batch, **keywords), twin.encode_batch(batch, **keywords)
                for x, y in zip(vars(a).values(), vars(b).values(), strict=True):
                    assert (x is None and y is None) or (x.dtype == y.dtype and np.array_equal(x, y))


@pytest.mark.parametrize("size", ["narrow", "wide"])
@pytest.mark.parametrize("options", [(True, True), (False, True), (True, False), (False, False)], ids=str)
def test_instruction_sets_agree(options, size):
    """Every loop this machine can run, over texts of all lengths and alignments, equals the twin."""
    module = native._load()[0]
    if module is None:
        pytest.skip("the C++ core is not built")
    rng = random.Random(6)
    lowercase, clean_text = options
    # more than 65,536 entries: the cache keeps ids of 32 bits
    vocab = VOCAB if size == "narrow" else [*VOCAB, *(f"filler{i}" for i in range(70_000)), "zebra", "##zebra"]
    twin = make("reference", vocab, TokenizerOptions(lowercase, clean_text=clean_text))
    pool = [
        *TRAPS,
        "zebra",
        "Zebrazebra",
        *(rng.choice("aBc@[`{/:") * n for n in (14, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65)),
    ]
    pool += [" " * 63, "\0" * 15, "\0" * 16, "A" * 15 + "é", "é" * 15, "é" * 16, "\x7f", "\x80"]
    texts = ["".join(rng.choices(pool, k=rng.randint(0, 40))) for _ in range(250)]
    texts += [text[i:] for text in texts[:20] for i in range(3)]
    texts += ["a" * n for n in range(130)] + ["." * n for n in range(60, 70)] + [" a" * n for n in range(30, 35)]
    keywords = twin._batch_options(TruncationRule(), True, 1, False, False, "int32")
    expected = twin._core.encode_texts(texts, None, **keywords)
    normalizer = module.NormalizerOptions(
        lowercase=lowercase, strip_accents=lowercase, clean_text=clean_text, handle_chinese_chars=True
    )
    assert module.simd_levels()[0] == "scalar"
    for level in module.simd_levels():
        core = module.Tokenizer(vocab, twin.unk_id, twin.special_tokens, normalizer, 100, simd=level)
        for _ in range(2):  # with the cache empty, then full
            got = core.encode_texts(texts, None, **keywords)
            assert np.array_equal(got[0], expected[0]) and np.array_equal(got[1], expected[1]), level
        lines = [text.replace("\n", " ") for text in texts]
        from_lines = core.encode_lines("".join(f"{line}\n" for line in lines).encode(), **keywords)
        assert np.array_equal(from_lines[0], core.encode_texts(lines, None, **keywords)[0]), level
    with pytest.raises(ValueError, match="simd"):
        module.Tokenizer(vocab, 1, {}, normalizer, 100, simd="mmx")


def test_every_code_point_encodes_alike():
    step = 5
    options = TokenizerOptions()
    ours, theirs = make("cpp", options=options), reference(VOCAB, options)
    scalars = [chr(c) for c in range(0, 0x110000, step) if not 0xD800 <= c < 0xE000]
    texts = [" ".join(f"{c} a{c} a{c}b" for c in scalars[i : i + 40]) for i in range(0, len(scalars), 40)]
    batch = ours.encode_batch(texts, with_offsets=True)
    expected = theirs.encode_batch(texts)
    for i, (text, encoding) in enumerate(zip(texts, expected, strict=True)):
        places = slice(batch.offsets[i], batch.offsets[i + 1])
        assert batch.input_ids[places].tolist() == encoding.ids, ascii(text)
        assert batch.char_offsets[places].tolist() == [list(span) for span in encoding.offsets], ascii(text)


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_code_point_alone_after_and_between_letters(lowercase):
    options = TokenizerOptions(lowercase)
    ours, theirs = make("cpp", options=options), reference(VOCAB, options)
    for first in range(0, 0x110000, 0x1000):
        scalars = [chr(c) for c in range(first, first + 0x1000) if not 0xD800 <= c < 0xE000]
        texts = [form for c in scalars for form in (c, f"a{c}", f"a{c}b")]
        plain, aligned = ours.encode_batch(texts), ours.encode_batch(texts, with_offsets=True)
        for i, encoding in enumerate(theirs.encode_batch(texts)):
            assert plain[i].tolist() == encoding.ids, ascii(texts[i])
            places = slice(aligned.offsets[i], aligned.offsets[i + 1])
            assert aligned.input_ids[places].tolist() == encoding.ids, ascii(texts[i])
            assert aligned.char_offsets[places].tolist() == [list(s) for s in encoding.offsets], ascii(texts[i])


# ---- with the shared vocabularies and corpora, where they are ----


def shared_vocabularies():
    return sorted((SHARED / "vocab").glob("*.txt")) if SHARED.is_dir() else []


def shared_lines(limit):
    """Torture strings, then prose: the first lines of every file, which is what `limit` bounds."""
    lines = json.loads((SHARED / "tokenizer" / "blns.json").read_text(encoding="utf-8"))
    lines = [line for line in lines if line.isprintable() or not any(0xD800 <= ord(c) < 0xE000 for c in line)]
    lines += (SHARED / "tokenizer" / "NormalizationTest-15.0.txt").read_text(encoding="utf-8").splitlines()[:limit]
    for path in sorted((SHARED / "text").glob("*/*.txt")):
        lines += path.read_text(encoding="utf-8").split("\n")[:limit]
    return lines


def compare_lines(vocab_file, lines, lowercase, with_offsets):
    vocab = read_vocab(vocab_file)
    options = TokenizerOptions(lowercase=lowercase)
    ours, theirs = make("cpp", vocab, options), reference(vocab, options)
    batch = ours.encode_batch(lines, with_offsets=with_offsets)
    encode = theirs.encode_batch if with_offsets else theirs.encode_batch_fast
    for start in range(0, len(lines), 5000):
        for i, encoding in enumerate(encode(lines[start : start + 5000]), start):
            assert batch[i].tolist() == encoding.ids, ascii(lines[i])
            if with_offsets:
                places = slice(batch.offsets[i], batch.offsets[i + 1])
                assert batch.char_offsets[places].tolist() == [list(s) for s in encoding.offsets], ascii(lines[i])
    from_bytes = ours.encode_file("\n".join(line.replace("\n", " ") for line in lines).encode() + b"\n")
    again = ours.encode_batch([line.replace("\n", " ") for line in lines], threads=1)
    assert np.array_equal(from_bytes.input_ids, again.input_ids)
    assert np.array_equal(from_bytes.offsets, again.offsets)


@pytest.mark.skipif(not shared_vocabularies(), reason="the shared data are not beside the repository")
@pytest.mark.parametrize("path", shared_vocabularies(), ids=lambda p: p.stem)
def test_shared_vocabularies(path):
    lines = shared_lines(12)
    for lowercase in (True, False):
        compare_lines(path, lines, lowercase, with_offsets=True)


@pytest.mark.slow
@pytest.mark.skipif(not shared_vocabularies(), reason="the shared data are not beside the repository")
@pytest.mark.parametrize("path", shared_vocabularies(), ids=lambda p: p.stem)
@pytest.mark.parametrize("with_offsets", [False, True])
def test_shared_corpora_whole(path, with_offsets):
    compare_lines(path, shared_lines(1 << 30), "uncased" in path.stem, with_offsets)


def exam_text(rng, lines):
    """A line, a part of one, several joined, or one with traps and random characters put in."""
    text = rng.choice(lines)
    kind = rng.randrange(6)
    if kind == 1:
        begin = rng.randint(0, len(text))
        text = text[begin : begin + rng.choice([0, 1, 3, 20, 200])]
    elif kind == 2:
        text = rng.choice(["\n", " ", "", "\t", "\r\n", "\u2028"]).join([text, rng.choice(lines), rng.choice(lines)])
    elif kind >= 3:
        for _ in range(rng.randint(1, 6)):
            at = rng.randint(0, len(text))
            scalar = chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000), rng.randrange(0x250)]))
            text = text[:at] + rng.choice([rng.choice(TRAPS), scalar, text[:at][-40:]]) + text[at:]
    return text[:3000]


@pytest.mark.slow
@pytest.mark.skipif(not shared_vocabularies(), reason="the shared data are not beside the repository")
@pytest.mark.parametrize("path", shared_vocabularies(), ids=lambda p: p.stem)
def test_exam(path, capfd):
    """Texts and pairs under every option: ids, types, tokens, offsets, word ids, overflow, batches, decoding."""
    rng = random.Random(path.stem)
    vocab, lines = read_vocab(path), shared_lines(1 << 30)
    raised = cut = 0
    for _ in range(20):
        options = random_options(rng)
        ours, theirs = make("cpp", vocab, options), reference(vocab, options)
        for _ in range(80):
            text, pair = exam_text(rng, lines), rng.choice([None, None, exam_text(rng, lines)])
            add, split, side = rng.random() < 0.7, rng.random() < 0.2, rng.choice(["left", "right"])
            theirs.encode_special_tokens = split
            arguments = {}
            theirs.no_truncation()
            if rng.random() < 0.6:
                strategy = rng.choice(["longest_first", "longest_first", "only_first", "only_second"])
                max_length, stride = rng.choice([*range(12), 24, 64, 128]), rng.choice([0, 0, 0, 1, 3, 17])
                # all parts of one text go with all parts of the other: short ones when the parts are short
                text, pair = text[: 10 * max_length + 50], pair and pair[: 10 * max_length + 50]
                arguments = {"truncation": strategy, "max_length": max_length, "truncation_side": side}
                expected = truncated_by_reference(theirs, text, pair, add, strategy, max_length, stride, side)
                if expected is None:
                    raised += 1
                    with pytest.raises(InputError):
                        ours.encode(text, pair, add, stride=stride, split_special_tokens=split, **arguments)
                    continue
                got = ours.encode(text, pair, add, stride=stride, split_special_tokens=split, **arguments)
            else:
                expected = theirs.encode(text, pair, add_special_tokens=add)
                got = ours.encode(text, pair, add, split_special_tokens=split)
            assert facts(got) == facts(expected), (options, ascii(text), ascii(pair), arguments, add, split)
            cut += bool(expected.overflowing)
            texts = [text if pair is None else (text, pair)] * 2
            for with_offsets in (False, True):
                batch = ours.encode_batch(
                    texts, add, with_offsets=with_offsets, split_special_tokens=split, **arguments
                )
                assert batch[1].tolist() == expected.ids
                if pair is not None:
                    assert batch.token_type_ids.tolist() == 2 * expected.type_ids
                if with_offsets:
                    assert batch.char_offsets.tolist() == 2 * [list(span) for span in expected.offsets]
            for skip in (True, False):
                assert ours.decode(expected.ids, skip) == theirs.decode(expected.ids, skip_special_tokens=skip)
        some = rng.choices(range(len(vocab) + 3), k=200)
        theirs.decoder = tokenizers.decoders.WordPiece(cleanup=False)
        assert ours.decode(some, clean_up=False) == theirs.decode(some)
    assert raised > 50 and cut > 200
