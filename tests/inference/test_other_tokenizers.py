"""Checkpoints whose tokenizer is not BERT's WordPiece, end to end: filling, scoring, vectors, heads, saved again."""

import json

import numpy as np
import pytest
import torch
from hf_models import peer
from hf_tokenizers import KINDS, transformers

import fastbert
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from support import command

# tokenizer → the model that has it
PAIRS = {"modernbert": "modernbert", "roberta": "roberta", "xlm_roberta": "xlm-roberta", "course": "bert"}
TEXTS = ["She opened the door and went out.", "O rei não dorme; a menina come pão!", "x"]


def ids_of(tokenizer):
    return {f"{name}_token_id": i for name, i in (("pad", tokenizer.pad_id), ("bos", tokenizer.cls_id))}


@pytest.fixture(scope="module", params=PAIRS)
def both(request, tmp_path_factory):
    """(ours, the model of transformers, its tokenizer, the directory)."""
    root = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](root)
    tokenizer = Tokenizer.load(root)
    model = peer(PAIRS[request.param], vocab_size=len(tokenizer), **ids_of(tokenizer))
    model.save_pretrained(root)
    return fastbert.load(root, precision="fp32"), model, transformers.AutoTokenizer.from_pretrained(root), root


def test_fill_mask_as_the_pipeline(both):
    ours, model, tokenizer, _ = both
    pipe = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=4)
    for text in (f"She opened the {ours.tokenizer.mask_token} and went out.", f"{ours.tokenizer.mask_token} rei"):
        mine, theirs = ours.fill_mask(text, top_k=4), pipe(text)
        assert [g["token"] for g in mine] == [g["token"] for g in theirs]
        assert np.allclose([g["score"] for g in mine], [g["score"] for g in theirs], atol=1e-4)
        if tokenizer.backend_tokenizer.decoder is not None:
            assert [g["token_str"] for g in mine] == [tokenizer.decode([g["token"]]) for g in mine]
    with pytest.raises(InputError, match=ours.tokenizer.mask_token.strip("[]<>")):
        ours.fill_mask("nothing to fill")


def test_joint_filling_with_words_of_several_pieces(both):
    ours, *_ = both
    text = f"The {ours.tokenizer.mask_token} sleeps."
    best = ours.fill_mask(text, method="beam", candidates=["door", "menina"], top_k=2)
    assert {guess["token_strs"][0].strip() for guess in best} == {"door", "menina"}
    assert all(guess["sequence"].replace(" ", "").lower() in ("thedoorsleeps.", "themeninasleeps.") for guess in best)
    assert ours.fill_mask(text, max_pieces=2, top_k=1)[0]["sequence"]


def test_scores_and_generation(both):
    ours, model, tokenizer, _ = both
    encoded = tokenizer(TEXTS[0], return_tensors="pt")
    ids = encoded.input_ids[0]
    inside = [i for i, mark in enumerate(ours.tokenizer.encode(TEXTS[0]).special_tokens_mask) if not mark]
    total = 0.0
    for i in inside:
        masked = ids.clone()
        masked[i] = tokenizer.mask_token_id
        with torch.no_grad():
            total += model(masked[None]).logits[0, i].log_softmax(-1)[ids[i]].item()
    assert abs(ours.score(TEXTS[0], method="pll") - total) <= 1e-3
    assert ours.score(TEXTS[:2]) and len(ours.generate("She", length=4)) > 3


def test_vectors_are_means_of_hidden_states(both):
    ours, model, tokenizer, _ = both
    vectors = ours.embed(TEXTS, normalize=False)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            hidden = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert np.abs(hidden.mean(0).numpy() - vector).max() <= 1e-4


def test_saved_and_read_by_transformers(both, tmp_path):
    ours, model, tokenizer, _ = both
    ours.save(tmp_path)
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        a, b = stock(text, return_tensors="pt"), tokenizer(text, return_tensors="pt")
        assert torch.equal(a.input_ids, b.input_ids)
        with torch.no_grad():
            assert (again(**a).logits - model(**b).logits).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_as_the_text_classifier(kind, tmp_path):
    KINDS[kind](tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    model = peer(PAIRS[kind], "ForSequenceClassification", vocab_size=len(tokenizer), num_labels=3, **ids_of(tokenizer))
    model.save_pretrained(tmp_path)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = fastbert.load(tmp_path)
    for pair in (None, TEXTS[1]):
        encoded = stock(TEXTS[0], pair, return_tensors="pt")
        with torch.no_grad():
            wanted = model(**encoded).logits.softmax(-1)[0].tolist()
        assert np.allclose(list(ours.classify(TEXTS[0], pair)["scores"].values()), wanted, atol=1e-4)


def test_questions_as_transformers_frames_them(both, tmp_path):
    from fastbert.tasks.examples import QuestionExample
    from fastbert.tasks.features import span_rows

    ours, _, tokenizer, _ = both
    rows = span_rows(
        [QuestionExample("here", "0", "Who sleeps?", TEXTS[1])],
        ours.tokenizer,
        64,
        8,
        labelled=False,
    )
    encoded = tokenizer("Who sleeps?", TEXTS[1])
    assert rows.ids[0].tolist() == encoded.input_ids
    assert rows.types[0].tolist() == encoded.get("token_type_ids", [0] * len(encoded.input_ids))


@pytest.mark.parametrize(("kind", "task"), [("roberta", "classification"), ("xlm_roberta", "tagging")])
def test_finetuned_by_command(kind, task, tmp_path):
    root = tmp_path / "model"
    KINDS[kind](root)
    tokenizer = Tokenizer.load(root)
    peer(PAIRS[kind], vocab_size=len(tokenizer), **ids_of(tokenizer)).save_pretrained(root)
    rows = [{"text": f"bom dia {i}" if i % 2 else f"que pena {i}", "label": str(i % 2)} for i in range(24)]
    if task == "tagging":
        rows = [{"tokens": ["bom", "dia", "Ana"], "tags": ["O", "O", "B-PER"]} for _ in range(24)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command(
        "fastbert.finetune", root, "--task", task, "--train", "train.jsonl", "--output", "tuned", "--epochs", 1,
        "--threads", 1, cwd=tmp_path,
    )  # fmt: skip
    tuned = fastbert.load(tmp_path / "tuned")
    assert tuned.tokenizer == tokenizer
    assert tuned.tag("bom dia Ana") is not None if task == "tagging" else tuned.classify("bom dia")["label"] in "01"


def test_more_pieces_than_rows(tmp_path):
    KINDS["roberta"](tmp_path)
    peer("roberta", vocab_size=len(Tokenizer.load(tmp_path)) - 1).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="vocab_size"):
        fastbert.load(tmp_path)
