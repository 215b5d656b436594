"""Special tokens of one's own, words divided at blanks only, single digits: trained, stored, saved, read elsewhere."""

import pickle
import string

import numpy as np
import pytest
from vocab_texts import both

from fastbert.data import Corpus, write_store
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from support import SMALL, train

LINES = [f"<user> the cat x{i} sat [SEP] on 20{i} mats.[CITE] <user>ok [CITE]" for i in range(40)]
OWN = ["<user>", "[CITE]"]
QUICK = (*SMALL, "--steps", 2, "--evaluations", 0)


def stored(tmp_path, tokenizer, lines=LINES):
    (tmp_path / "a.txt").write_text("\n".join(lines))
    store = write_store(tmp_path / str(len(list(tmp_path.iterdir()))), Corpus([str(tmp_path / "a.txt")]), tokenizer)
    return store.gather([0], [store.num_tokens])


@both
def test_own_special_tokens_are_one_token_each(tmp_path, impl):
    tokenizer = Tokenizer.train(LINES, vocab_size=300, lowercase=False, special_tokens=OWN, impl=impl)
    ids = [tokenizer.token_to_id(token) for token in OWN]
    assert ids == [5, 6] and not {"<", "CITE", "user"} & set(tokenizer.vocab), "what they hold is not counted"
    tokens = tokenizer.encode(LINES[0], add_special_tokens=False).tokens
    assert tokens.count("<user>") == tokens.count("[CITE]") == 2
    inside = stored(tmp_path, tokenizer)
    assert [int((inside == i).sum()) for i in ids] == [80, 80], "they are learned as tokens"
    assert not np.isin(inside, [tokenizer.sep_id, tokenizer.unk_id]).any(), "[SEP] stays ordinary text"
    tokenizer.save(tmp_path / "v")
    for again in (Tokenizer.load(tmp_path / "v", impl), pickle.loads(pickle.dumps(tokenizer))):
        assert again == tokenizer and again.encode(LINES[1]).ids == tokenizer.encode(LINES[1]).ids
        assert np.array_equal(stored(tmp_path, again), inside)


@both
def test_files_and_texts_give_the_same_vocabulary(tmp_path, impl):
    (tmp_path / "a.txt").write_text("\n".join(LINES))
    options = {"vocab_size": 300, "special_tokens": OWN, "impl": impl}
    assert Tokenizer.train(tmp_path / "a.txt", **options) == Tokenizer.train(LINES, **options)
    (tmp_path / "a.txt").write_bytes(b"ok\nbad \xff\n")
    with pytest.raises(InputError, match="line 2"):
        Tokenizer.train(tmp_path / "a.txt", **options)


@pytest.mark.parametrize("tokens", [["a b"], ["<x>", "<x>"], ["[SEP]"], [""], ["##x"]])
def test_special_tokens_that_cannot_be(tokens):
    with pytest.raises(InputError, match="special_tokens"):
        Tokenizer.train(LINES, special_tokens=tokens)


@both
def test_words_divided_at_blanks_only(tmp_path, impl):
    lines = ["C1=CC=CC=C1 CC(=O)O", "C1=CC=CC=C1 N#N"] * 30
    tokenizer = Tokenizer.train(lines, 200, lowercase=False, split_punctuation=False, impl=impl)
    assert tokenizer.encode(lines[0], add_special_tokens=False).tokens[0] == "C1=CC=CC=C1"
    printable = "".join(c for c in string.printable if not c.isspace())
    large = Tokenizer.train(lines, 2000, lowercase=False, split_punctuation=False, impl=impl)
    assert large.unk_id not in large.encode_batch([printable, printable[::-1]]).input_ids
    assert tokenizer.decode(tokenizer.encode(lines[0]).ids, clean_up=False) == lines[0]


@both
def test_single_digits(tmp_path, impl):
    lines = ["in 2024 and 1999 room x12y"] * 30
    tokenizer = Tokenizer.train(lines, 2000, single_digits=True, impl=impl)
    assert tokenizer.encode("2024 x12y", add_special_tokens=False).tokens == [*"2024", "x", *"12", "y"]
    assert not [piece for piece in tokenizer.vocab if len(piece.strip("#")) > 1 and set(piece) & set("0123456789")]
    assert "2024" in Tokenizer.train(lines, 2000, impl=impl).vocab


def test_the_options_reach_the_run(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "a.txt").write_text("\n\n".join(LINES * 3))
    given = ("--special-tokens", *OWN, "--split", "whitespace", "--single-digits")
    train("--data", "a.txt", *given, "--output", "run", *QUICK, cwd=tmp_path)
    tokenizer = Tokenizer.load(tmp_path / "run")
    assert set(OWN) <= set(tokenizer.special_tokens) and tokenizer.options.single_digits
    assert not tokenizer.options.split_punctuation
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    for line in (*LINES[:3], "a.b 3.14 [MASK]!", "x\u00a0y\u3000z é\u0301"):
        assert theirs(line)["input_ids"] == tokenizer.encode(line).ids
    (tmp_path / "b.txt").write_text("\n\n".join("<bot> the cat <user>" for _ in range(90)))
    more = ("--data", "b.txt", "--init", "run", "--special-tokens", "<bot>", "--output", "more")
    done = train(*more, *QUICK, cwd=tmp_path)
    assert "1 new" in done.stdout, done.stderr
    grown = Tokenizer.load(tmp_path / "more")
    assert grown.vocab == [*tokenizer.vocab, "<bot>"] and grown.encode("<bot><user>").tokens[1:3] == ["<bot>", "<user>"]
    for bad in (("--special-tokens", "a b"), ("--init", "run", "--split", "whitespace"), ("--special-tokens", "[SEP]")):
        done = train("--data", "b.txt", *bad, "--output", "bad", *QUICK, code=2, cwd=tmp_path)
        assert bad[-2] in done.stderr and not (tmp_path / "bad").exists()
