"""What a trained vocabulary can spell: every character that fits, as Hugging Face keeps it, and printable ASCII."""

import random
import string
import unicodedata

import numpy as np
import pytest
from vocab_texts import bundled

from fastbert.text import Tokenizer
from fastbert.text.word_counts import SPECIAL_TOKENS

SCRIPTS = {
    "ideographs": (0x4E00, 6501, 1), "ideographs beyond 16 bits": (0x20000, 3000, 1), "Hangul": (0xAC00, 3000, 4),
    "Egyptian": (0x13000, 1071, 3), "Yi": (0xA000, 1165, 3), "Vai and Ethiopic": (0x1200, 350, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_many_characters_as_hugging_face_keeps(name):
    """What fits into the vocabulary is never [UNK]; what does not is no more than theirs."""
    tokenizers = pytest.importorskip("tokenizers")
    first, number, length = SCRIPTS[name]
    draw, letters = random.Random(name), [chr(first + i) for i in range(number)]
    letters = [char for char in letters if unicodedata.category(char)[0] in "LNS"]
    words = ["".join(draw.choices(letters, k=length)) for _ in range(4000)] + letters
    lines = [" ".join(words[i : i + 30]) for i in range(0, len(words), 30)]
    for size in (8192, 3000):
        ours = Tokenizer.train(lines, size, lowercase=False)
        theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
        )
        theirs.train_from_iterator(lines, trainer)
        # theirs grows beyond the size that is asked for where the characters alone need more
        same_size = theirs.get_vocab_size() <= size
        forms = {char for word in words for char in word} | {f"##{char}" for word in words for char in word[1:]}
        unknown = [int(np.isin(t, 1).sum()) for t in (ours.encode_batch(lines).input_ids, _ids(theirs, lines))]
        assert len(ours) <= size
        if len(forms) + len(SPECIAL_TOKENS) <= size:
            assert unknown[0] == 0
        if same_size:
            assert unknown[0] <= unknown[1]
            assert forms & theirs.get_vocab().keys() <= set(ours.vocab)


def _ids(theirs, lines):
    return np.concatenate([encoding.ids for encoding in theirs.encode_batch(lines)])


@pytest.mark.parametrize("language", ["pt", "en"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_the_vocabulary_of_the_bundled_texts_spells_printable_ascii(language, lowercase):
    tokenizer = Tokenizer.train(bundled(language, 10**8).splitlines(), 8192, lowercase=lowercase)
    draw, printable = random.Random(language), [char for char in string.printable if not char.isspace()]
    words = ["".join(printable), *("".join(draw.choices(printable, k=12)) for _ in range(3000)), "NASA", "COVID-19"]
    assert len(tokenizer) == 8192 and tokenizer.unk_id not in tokenizer.encode_batch(words).input_ids
