"""The vocabulary trainer: one suite for the C++ core and its Python twin, both also against a rule written plainly."""

import random
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_texts import TEXTS, both, bundled, needs_core

from fastbert.system.errors import InputError
from fastbert.text import Tokenizer, word_counts
from fastbert.text.vocab_trainer import learn_vocab, train_vocab
from fastbert.text.word_counts import LONGEST_RUN, SPECIAL_TOKENS


def plain_rule(counts: dict[str, int], vocab_size: int, min_frequency: int = 1) -> list[str]:
    """Merges counted anew from scratch each time: too slow for use and too plain to be wrong."""
    words = {word: [word[0], *("##" + char for char in word[1:])] for word in counts}
    first = sorted({char for word in counts for char in word})
    following = sorted({piece for pieces in words.values() for piece in pieces[1:]})
    tokens = [*SPECIAL_TOKENS, *first, *following]
    while len(tokens) < vocab_size:
        pairs: dict[tuple[int, int], int] = {}
        for word, pieces in words.items():
            for left, right in pairwise(pieces):
                pair = tokens.index(left), tokens.index(right)
                pairs[pair] = pairs.get(pair, 0) + counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < min_frequency:
            break
        left, right = tokens[best[0]], tokens[best[1]]
        merged = left + right.removeprefix("##")
        if merged not in tokens:
            tokens.append(merged)
        for pieces in words.values():
            i = 0
            while i + 1 < len(pieces):
                if (pieces[i], pieces[i + 1]) == (left, right):
                    pieces[i : i + 2] = [merged]
                i += 1
    return tokens


# ---- the rule ----


@both
def test_merges_by_hand(impl):
    # pairs: l##o 7 (low 5 + lo 2), ##o##w 5; then lo##w 5; "new" gives n##e 3, ##e##w 3: ties by id
    result = learn_vocab({"low": 5, "lo": 2, "new": 3}, vocab_size=100, min_frequency=1, impl=impl)
    letters = ["e", "l", "n", "o", "w", "##e", "##o", "##w"]
    assert result.tokens == [*SPECIAL_TOKENS, *letters, "lo", "low", "ne", "new"]
    assert (result.num_words, result.num_distinct_words) == (10, 3)
    assert (result.num_characters, result.num_characters_dropped) == (5, 0)


@both
def test_overlapping_pairs_merge_from_the_left(impl):
    # a ##a ##a ##a: the pair ##a ##a counts 2, and leaves a ##aa ##a (from the right it would be a ##a ##aa)
    tokens = learn_vocab({"aaaa": 1}, vocab_size=100, min_frequency=1, impl=impl).tokens
    assert tokens[5:] == ["a", "##a", "##aa", "aaa", "aaaa"]


@both
def test_a_string_that_is_there_keeps_its_id(impl):
    # abc arises from ab + ##c and from a + ##bc
    counts = {"ab": 9, "abc": 3, "xbc": 8, "bc": 9, "zabc": 2, "abcabc": 1}
    tokens = learn_vocab(counts, vocab_size=40, min_frequency=1, impl=impl).tokens
    assert len(set(tokens)) == len(tokens)
    assert tokens == plain_rule(counts, 40)


WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 5), min_size=1, max_size=12)


@both
@settings(max_examples=80, deadline=None)
@given(counts=WORDS, vocab_size=st.integers(11, 60), min_frequency=st.integers(1, 4))
def test_equals_the_plain_rule(impl, counts, vocab_size, min_frequency):
    tokens = learn_vocab(counts, vocab_size=vocab_size, min_frequency=min_frequency, impl=impl).tokens
    assert tokens == plain_rule(counts, vocab_size, min_frequency)


@both
def test_min_frequency(impl):
    counts = {"ab": 3, "cd": 2, "ef": 1}
    for min_frequency, merges in ((1, ["ab", "cd", "ef"]), (2, ["ab", "cd"]), (3, ["ab"]), (4, [])):
        tokens = learn_vocab(counts, vocab_size=100, min_frequency=min_frequency, impl=impl).tokens
        assert tokens[14:] == merges


@both
def test_vocab_size_is_a_limit(impl):
    counts = {"abcdefgh": 4, "abcd": 2}
    full = learn_vocab(counts, vocab_size=1000, impl=impl).tokens
    assert len(full) == 27
    for vocab_size in range(20, len(full) + 3):
        tokens = learn_vocab(counts, vocab_size=vocab_size, limit_alphabet=8, impl=impl).tokens
        assert tokens == full[:vocab_size]


@both
def test_counts_beyond_32_bits(impl):
    # 32-bit counts would wrap to a negative number for "ab", and to 1 for "cd"
    counts = {"ab": 2**31 + 5, "cd": 2**32 + 1, "ef": 1000}
    assert learn_vocab(counts, vocab_size=100, impl=impl).tokens[-3:] == ["cd", "ab", "ef"]


@both
def test_counts_that_do_not_fit(impl):
    largest = 2**63 - 1
    assert learn_vocab({"ab": largest // 2}, impl=impl).tokens[-1] == "ab"
    for counts in ({"ab": largest}, {"a": largest, "b": 1}, {"a": 2**63}, [("a", largest), ("a", 1)]):
        with pytest.raises(InputError, match="2\\*\\*63"):
            learn_vocab(counts, impl=impl)


@both
def test_limit_alphabet_keeps_the_most_frequent(impl):
    counts = {"aab": 5, "c": 7, "d": 5, "xa": 1}  # a 11, c 7, b 5, d 5 (a tie), x 1
    result = learn_vocab(counts, vocab_size=30, min_frequency=1, limit_alphabet=3, impl=impl)
    # with x and d gone, "xa" and "d" are left out altogether
    assert result.tokens[5:] == ["a", "b", "c", "##a", "##b", "aa", "aab"]
    assert (result.num_characters, result.num_characters_dropped) == (5, 2)


@both
def test_initial_alphabet_is_kept_and_counts_towards_the_limit(impl):
    result = learn_vocab({"ab": 5, "c": 1}, limit_alphabet=3, initial_alphabet=["ç", "õ"], impl=impl)
    assert result.tokens[5:] == ["a", "ç", "õ"]
    result = learn_vocab({"ab": 5}, limit_alphabet=1, initial_alphabet="çõ", impl=impl)
    assert result.tokens[5:] == ["ç", "õ"]
    assert result.num_characters_dropped == 2


@both
@pytest.mark.parametrize("counts", [{}, {"a": 1}])
def test_next_to_nothing(impl, counts):
    assert learn_vocab(counts, impl=impl).tokens == [*SPECIAL_TOKENS, *counts]


@both
@pytest.mark.parametrize("texts", [[], [""], [" \n\t"]])
def test_empty_corpus(impl, texts):
    result = train_vocab(texts, impl=impl)
    assert result.tokens == list(SPECIAL_TOKENS)
    assert (result.num_words, result.num_distinct_words) == (0, 0)


@both
def test_own_special_tokens(impl):
    result = train_vocab(["<s>um</s> <s> <x"], special_tokens=("<s>", "</s>"), min_frequency=1, impl=impl)
    assert result.tokens == ["<s>", "</s>", "/", "<", ">", "m", "s", "u", "x", "##m", "um"]
    assert train_vocab(["ab"], special_tokens=(), impl=impl).tokens == ["a", "b", "##b"]


@both
def test_portuguese_accents(impl):
    texts = ["Ação e emoção, coração!"] * 3
    kept = train_vocab(texts, vocab_size=60, lowercase=False, impl=impl).tokens
    assert "Ação" in kept and "##oção" in kept
    stripped = train_vocab(texts, vocab_size=60, impl=impl).tokens
    assert "acao" in stripped and not any("ç" in token or "ã" in token for token in stripped)
    lowered = train_vocab(texts, vocab_size=60, strip_accents=False, impl=impl).tokens
    assert "ação" in lowered and "Ação" not in lowered


@both
def test_the_word_limit_reaches_the_counting(impl):
    generator = random.Random(0)
    lines = [" ".join("".join(generator.choices("ACGT", k=150)) for _ in range(4)) for _ in range(50)]
    with pytest.raises(InputError, match="max_input_chars_per_word"):
        Tokenizer.train(lines, impl=impl)
    tokenizer = Tokenizer.train(lines, vocab_size=200, max_input_chars_per_word=150, impl=impl)
    ids = tokenizer.encode_batch(lines, add_special_tokens=False).input_ids
    assert len(tokenizer) == 200 and tokenizer.unk_id not in ids


@both
def test_the_alphabet_is_as_large_as_fits(impl):
    """6,501 ideographs in 8,192 pieces; 3,000 letters of one script, which follow each other."""
    ideographs = "".join(map(chr, range(0x4E00, 0x4E00 + 6501)))
    assert set(ideographs) <= set(train_vocab([ideographs], vocab_size=8192, impl=impl).tokens)
    syllables = [chr(0xAC00 + 3 * i) for i in range(3000)]
    words = ["".join(syllables[i : i + 3]) for i in range(0, 3000, 3)]
    tokenizer = Tokenizer.train(words, vocab_size=8192, strip_accents=False, impl=impl)
    assert tokenizer.unk_id not in tokenizer.encode_batch(words).input_ids
    # what does not fit is the rarest
    counts = {chr(0x4E00 + i): 1000 - i for i in range(600)}
    result = learn_vocab(counts, vocab_size=105, impl=impl)
    assert result.tokens == [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(100))]
    assert (result.num_characters, result.num_characters_dropped) == (600, 500)


@both
@pytest.mark.parametrize("lowercase", [True, False])
def test_letters_have_both_forms_and_ascii_is_always_there(impl, lowercase):
    lines = bundled("en" if lowercase else "pt", 200_000).splitlines()
    tokenizer = Tokenizer.train(lines, vocab_size=2000, lowercase=lowercase, impl=impl)
    assert len(tokenizer) == 2000 and len(set(tokenizer.vocab)) == 2000
    printable = "".join(map(chr, range(33, 127)))
    words = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ", "zyxwvutsrqponmlkjihgfedcba", "0918273645", "JAMWKQ", printable, "ção" * 3]
    assert tokenizer.unk_id not in tokenizer.encode_batch(words).input_ids
    small = Tokenizer.train(lines, vocab_size=500, lowercase=lowercase, impl=impl)
    assert small.vocab == train_vocab(lines, vocab_size=500, lowercase=lowercase, impl=impl).tokens


@needs_core
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, vocab_size=st.integers(60, 120), min_frequency=st.integers(1, 3))
def test_twins_learn_alike(texts, vocab_size, min_frequency):
    results = [
        train_vocab(texts, vocab_size=vocab_size, min_frequency=min_frequency, impl=impl)
        for impl in ("reference", "cpp")
    ]
    assert results[0] == results[1]


@needs_core
@pytest.mark.parametrize("language", ["pt", "en"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_twins_agree_on_prose(language, lowercase):
    lines = bundled(language, 300_000).splitlines()
    results = [train_vocab(lines, vocab_size=4000, lowercase=lowercase, impl=impl) for impl in ("reference", "cpp")]
    assert results[0] == results[1]
    assert len(results[0].tokens) == 4000


@both
def test_any_split_threads_and_order_give_the_same(impl, tmp_path, monkeypatch):
    text = bundled("pt", 400_000 if impl == "cpp" else 60_000)
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    expected = train_vocab([text], vocab_size=3000, lowercase=False, threads=1, impl=impl)
    lines = text.split("\n")
    random.Random(0).shuffle(lines)
    for threads in (1, 2, 7):
        same = {"vocab_size": 3000, "lowercase": False, "threads": threads, "impl": impl}
        assert train_vocab(lines, **same) == expected
        assert train_vocab(iter(lines), **same) == expected
        assert train_vocab([path], **same) == expected
        assert train_vocab(str(path), **same) == expected
    # the blocks of a file are bounded below by the longest run
    monkeypatch.setattr(word_counts, "_BLOCK_BYTES", LONGEST_RUN + 64)
    monkeypatch.setattr(word_counts, "_BATCH_CHARS", 100)
    assert train_vocab(path, vocab_size=3000, lowercase=False, impl=impl) == expected
    assert train_vocab(lines, vocab_size=3000, lowercase=False, impl=impl) == expected


# ---- faults ----


@both
def test_bad_arguments(impl, tmp_path):
    def fails(match, source=("ab",), error=InputError, **options):
        with pytest.raises(error, match=match) as caught:
            train_vocab(source, impl=impl, **options)
        assert "\n" not in str(caught.value)

    fails("vocab_size=5: .* need 8", vocab_size=5, limit_alphabet=10)
    for name in ("vocab_size", "min_frequency", "limit_alphabet", "threads"):
        fails(f"{name}=0", **{name: 0})
    fails("vocab_size", vocab_size=2**40)
    fails("white space", special_tokens=("a b",))
    fails("empty", special_tokens=("",))
    fails("twice", special_tokens=("[X]", "[X]"))
    fails("special_tokens", special_tokens="[X]", error=TypeError)
    fails("lone surrogate", special_tokens=("\ud800",))
    fails("lone surrogate", initial_alphabet="\ud800")
    fails("text 3: character 1 of .* is a lone surrogate", source=["a", "b", "c\ud800"])
    fails("expected str, got int", source=["a", 3], error=TypeError)
    fails("nowhere.txt", source=str(tmp_path / "nowhere.txt"))
    fails("nowhere.txt", source=[tmp_path / "nowhere.txt"])
    for counts in ({"": 1}, {"a": 0}, {"a": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            learn_vocab(counts, impl=impl)
    with pytest.raises(InputError, match="lone surrogate"):
        learn_vocab({"\ud800": 1}, impl=impl)


@both
def test_progress_is_humane_and_ends(impl):
    calls = []
    lines = bundled("en", 100_000).splitlines()
    result = train_vocab(lines, vocab_size=2000, progress=lambda done, total: calls.append((done, total)), impl=impl)
    assert calls[-1] == (len(result.tokens), 2000)
    assert len(calls) < 100
    assert calls == sorted(calls)


@both
def test_an_exception_in_progress_stops_the_work(impl):
    # enough distinct words for more than a tenth of a second of merging
    letters = random.Random(1)
    counts = {"".join(letters.choices("abcdefghij", k=9)): 1 for _ in range(150_000 if impl == "cpp" else 8_000)}

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_vocab(counts, vocab_size=10**6, min_frequency=1, progress=stop, impl=impl)


# ---- Hugging Face ----


@pytest.mark.parametrize("language", ["pt", "en"])
def test_same_pieces_as_hugging_face(language):
    """Its trainer numbers the "##" letters in the order of a hash table, and ties are broken by these numbers: no two
    runs of it agree wholly. With the numbers they have here, given as special tokens, all pieces agree, id by id."""
    tokenizers = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers is not installed")
    lines = bundled(language, 1_500_000).splitlines()
    lowercase = language == "en"
    ours = train_vocab(lines, vocab_size=30_000, lowercase=lowercase).tokens
    letters = takewhile(lambda piece: len(piece.removeprefix("##")) == 1, ours[len(SPECIAL_TOKENS) :])
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=30_000, min_frequency=2, special_tokens=[*SPECIAL_TOKENS, *letters], show_progress=False
    )
    theirs.train_from_iterator(lines, trainer)
    assert len(ours) < 30_000  # to the last pair that occurs twice
    assert ours == [theirs.id_to_token(i) for i in range(theirs.get_vocab_size())]
