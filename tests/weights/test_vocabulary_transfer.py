"""Rows go with their pieces to another vocabulary, and what is saved answers in stock transformers as here."""

from types import SimpleNamespace

import pytest
import torch

from fastbert.bert import Bert
from fastbert.text import Tokenizer
from fastbert.text.tokenizer_files import TokenizerOptions
from fastbert.training.setup import build_model
from fastbert.weights.state_dict import VOCABULARY_ROWS
from fastbert.weights.vocabulary_transfer import VocabularyTransfer
from support import make_model

OLD = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcsorg",
    *(f"##{c}" for c in "abcsorg"),
    "gato",
    "##os",
]
NEW = ["##os", "rosca", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##gras", "a", "gato", "ω", "bω", "##s", "o"]
CASED = TokenizerOptions(lowercase=False)


@pytest.fixture
def old():
    return Tokenizer(OLD, CASED)


def ids(*pieces):
    return tuple(OLD.index(piece) for piece in pieces)


def test_sources(old):
    transfer = VocabularyTransfer.between(old, Tokenizer(NEW, CASED))
    expected = {
        "##os": ids("##os"), "[PAD]": ids("[PAD]"), "[MASK]": ids("[MASK]"), "gato": ids("gato"),
        "rosca": ids("r", "##os", "##c", "##a"), "##gras": ids("##g", "##r", "##a", "##s"), "ω": (), "bω": ids("b"),
    }  # fmt: skip
    assert {piece: transfer.sources[NEW.index(piece)] for piece in expected} == expected
    assert (transfer.kept, transfer.new, transfer.unwritable) == (10, 4, 1)
    assert transfer.dropped == len(OLD) - 10 and not transfer.identity
    assert "10 rows kept, 4 new, 12 dropped" in str(transfer)
    assert VocabularyTransfer.between(old, Tokenizer(OLD, CASED)).identity


def test_special_tokens_go_by_their_role(old):
    """Whatever they are called: only the five ids of the tokenizers count."""
    other = Tokenizer([*NEW, "<mask>"], CASED)
    other.mask_id = len(NEW)
    transfer = VocabularyTransfer.between(old, other)
    assert transfer.sources[len(NEW)] == ids("[MASK]")


def test_duplicates_and_empty_lines_stay_in_place():
    vocab = [*OLD, "", "gato", "gato"]
    transfer = VocabularyTransfer.between(Tokenizer(vocab, CASED), Tokenizer([*vocab, "rosca"], CASED))
    assert transfer.sources[: len(vocab)] == tuple((i,) for i in range(len(vocab))) and transfer.new == 1


def test_an_uncased_vocabulary_writes_a_cased_piece():
    uncased = Tokenizer(OLD, TokenizerOptions(lowercase=True))
    transfer = VocabularyTransfer.between(uncased, Tokenizer([*NEW, "Gáto", "##Ó"], CASED))
    assert transfer.sources[-2:] == (ids("gato"), ids("##o"))


def test_rows_are_the_mean_of_their_sources(old):
    transfer = VocabularyTransfer.between(old, Tokenizer(NEW, CASED))
    table = torch.randn(64, 3)
    rows = transfer.rows(table, 64)
    for piece in ("##os", "rosca", "bω"):
        sources = list(transfer.sources[NEW.index(piece)])
        torch.testing.assert_close(rows[NEW.index(piece)], table[sources].mean(0))
    torch.testing.assert_close(rows[NEW.index("ω")], table[: len(OLD)].mean(0))
    assert not rows[len(NEW) :].any()
    assert torch.equal(transfer.rows(table[:, 0], 64), rows[:, 0])  # a bias


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
def test_old_and_new_pieces_answer_as_they_should(tmp_path, old, arch, tied):
    """Kept pieces score as before; with the new tokenizer stock transformers gives the same ids and logits."""
    transformers = pytest.importorskip("transformers")
    source = make_model(arch, vocab_size=len(OLD), tie_word_embeddings=tied)
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if name in VOCABULARY_ROWS:
                parameter[len(OLD) :] = 0
    source.save_pretrained(tmp_path / "old")
    new = Tokenizer(NEW, CASED)
    transfer = VocabularyTransfer.between(old, new)
    # what is read from a config.json without the field
    config = source.config.replace(vocab_size=len(new), pad_token_id=new.pad_id, tie_word_embeddings=True)
    plan = SimpleNamespace(init=tmp_path / "old", impl="auto", config=config, transfer=transfer)
    model = build_model(plan).eval()

    assert (model.head.decoder is None) == tied
    kept = [i for i, sources in enumerate(transfer.sources) if len(sources) == 1]
    of_old = torch.tensor([transfer.sources[i][0] for i in kept])
    sentence = ["[CLS]", "gato", "##os", "[MASK]", "o", "[SEP]"]
    here = torch.tensor([[NEW.index(piece) for piece in sentence]])
    there = torch.tensor([[OLD.index(piece) for piece in sentence]])
    with torch.no_grad():
        now, before = model(here).prediction_logits[0], source(there).prediction_logits[0]
        torch.testing.assert_close(now[:, kept], before[:, of_old], rtol=1e-5, atol=1e-4)
        # a logit is linear in row and bias: that of a new piece is the mean of its sources'
        mean = before[:, list(transfer.sources[NEW.index("rosca")])].mean(1)
        torch.testing.assert_close(now[:, NEW.index("rosca")], mean, rtol=1e-5, atol=1e-4)

    model.save_pretrained(tmp_path / "new")
    new.save(tmp_path / "new", token_type_ids=arch != "modern")
    text = "gatos rosca [MASK] a"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    assert theirs(text)["input_ids"] == new.encode(text).ids and NEW.index("rosca") in new.encode(text).ids
    stock = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new").eval()
    batch = torch.tensor([new.encode(text).ids])
    with torch.no_grad():
        torch.testing.assert_close(model(batch).prediction_logits, stock(batch).logits, rtol=1e-4, atol=1e-4)
    assert Bert(model, new).fill_mask("gato [MASK]", top_k=1)
