"""BERT's relatives: the same logits as transformers, from what it writes and of what we write, heads included."""

import dataclasses

import pytest
import torch
from hf_models import FAMILIES, inputs, peer

from fastbert.batch import pack
from fastbert.model import BertForPreTraining
from fastbert.tasks.model import TaskModel

TOLERANCE = 1e-4
HEADS = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
    "ForQuestionAnswering": "qa",
}


def logits_of(model, ids, mask):
    with torch.no_grad():
        ids = torch.where(mask.bool(), ids, model.config.pad_token_id)
        return model(ids, attention_mask=mask)


def load_again(directory, model):
    return type(model).from_pretrained(directory, attn_implementation="eager").eval()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_lm_both_ways(family, tied, tmp_path):
    theirs = peer(family, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path / "a")
    ours = BertForPreTraining.from_pretrained(tmp_path / "a")
    assert ours.config.tie_word_embeddings == tied
    assert not [name for name in ours.fresh if name.startswith("head.")]
    ids, mask = inputs()
    wanted = logits_of(theirs, ids, mask).logits
    with torch.no_grad():
        mine = ours(ids, mask).prediction_logits
    real = mask.bool()
    assert wanted[real].std() > 0.5
    assert (mine - wanted)[real].abs().max() <= TOLERANCE
    ours.save_pretrained(tmp_path / "b")
    again = logits_of(load_again(tmp_path / "b", theirs), ids, mask).logits
    assert (again - wanted)[real].abs().max() <= TOLERANCE


@pytest.mark.parametrize("suffix", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_task_heads_both_ways(family, suffix, tmp_path):
    theirs = peer(family, suffix, num_labels=2 if suffix == "ForQuestionAnswering" else 3)
    theirs.save_pretrained(tmp_path / "a")
    ours = TaskModel.from_pretrained(tmp_path / "a")
    assert ours.settings.task == HEADS[suffix]
    ids, mask = inputs()
    real = mask.bool()
    out = logits_of(theirs, ids, mask)
    batch, _ = pack(ids, mask)
    if suffix == "ForQuestionAnswering":
        wanted = torch.stack([out.start_logits, out.end_logits], -1)[real]
    else:
        wanted = out.logits if suffix == "ForSequenceClassification" else out.logits[real]
    if suffix == "ForTokenClassification":
        batch = dataclasses.replace(batch, masked_index=torch.arange(batch.num_tokens))
    with torch.no_grad():
        assert (ours(batch) - wanted).abs().max() <= TOLERANCE
    ours.save_pretrained(tmp_path / "b")
    again = logits_of(load_again(tmp_path / "b", theirs), ids, mask)
    for name in ("logits", "start_logits", "end_logits"):
        if name in again:
            rows = slice(None) if suffix == "ForSequenceClassification" else real
            assert (again[name] - out[name])[rows].abs().max() <= TOLERANCE


def test_an_electra_discriminator_is_an_encoder(tmp_path):
    theirs = peer("electra", "ForPreTraining")
    theirs.save_pretrained(tmp_path)
    ours = BertForPreTraining.from_pretrained(tmp_path)
    assert any(name.startswith("head.") for name in ours.fresh)
    ids, mask = inputs()
    with torch.no_grad():
        wanted = theirs.electra(ids, attention_mask=mask).last_hidden_state[mask.bool()]
        assert (ours.encode(pack(ids, mask)[0]) - wanted).abs().max() <= TOLERANCE


def test_a_base_model_is_read_without_prefix(tmp_path):
    for family in ("bert", "roberta", "distilbert", "electra", "modernbert"):
        theirs = peer(family, "Model")
        theirs.save_pretrained(tmp_path / family)
        ours = BertForPreTraining.from_pretrained(tmp_path / family)
        ids, mask = inputs()
        wanted = logits_of(theirs, ids, mask).last_hidden_state[mask.bool()]
        with torch.no_grad():
            assert (ours.encode(pack(ids, mask)[0]) - wanted).abs().max() <= TOLERANCE
