"""LoRA adapters: what peft makes of them on the model they were trained on is what we answer."""

import json
import sys

import pytest
import torch
from finetuning_cases import figures, options
from hf_models import peer, transformers

import fastbert
from fastbert.finetune import main
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
SUFFIX = {"classification": "SequenceClassification", "tagging": "TokenClassification", "qa": "QuestionAnswering",
          "pairs": "SequenceClassification"}  # fmt: skip
CASES = [
    ("bert", "classification"), ("bert", "qa"), ("bert", "pairs"), ("roberta", "classification"),
    ("distilbert", "classification"), ("electra", "tagging"), ("roformer", "classification"),
    ("modernbert", "classification"), ("modernbert", "tagging"),
]  # fmt: skip


@pytest.fixture(scope="module")
def base(pretrained, tmp_path_factory):
    """Family → directory of a random model with the fixtures' vocabulary."""
    folder = tmp_path_factory.mktemp("bases")
    tokenizer = Tokenizer.load(pretrained / "classic")

    def of(family):
        if not (folder / family).exists():
            peer(family, vocab_size=len(tokenizer), max_position_embeddings=130).save_pretrained(folder / family)
            tokenizer.save(folder / family, token_type_ids=family in ("bert", "electra", "roformer"))
        return folder / family

    return of


@pytest.mark.parametrize(("family", "task"), CASES)
def test_peft_reads_the_adapter(base, tmp_path, family, task):
    peft = pytest.importorskip("peft", reason="the peer that reads the adapter")
    made = options(base(family).parent, task, tmp_path / "out", family, epochs=3, lora=4, max_length=64)
    assert main(made) == 0
    tuned = fastbert.load(tmp_path / "out")
    outputs = tuned.task_model.settings.num_outputs
    auto = getattr(transformers, "AutoModelFor" + SUFFIX[task])
    torch.manual_seed(7)
    stock = auto.from_pretrained(base(family), **({} if task == "qa" else {"num_labels": outputs}))
    theirs = peft.PeftModel.from_pretrained(stock, tmp_path / "out" / "adapter").eval()
    ours = auto.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([tuned.tokenizer.encode("Clara Nunes mora em Recife.").ids])
    with torch.no_grad():
        wanted, found = theirs(ids), ours(ids)
    for name in ("start_logits", "end_logits") if task == "qa" else ("logits",):
        assert (wanted[name] - found[name]).abs().max() <= 1e-4
    with theirs.disable_adapter(), torch.no_grad():
        assert (theirs(ids)[0] - found[0]).abs().max() > 1e-3
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["base_model_name_or_path"] == str(base(family))


def test_only_the_adapter_and_the_head_learn(pretrained, tmp_path):
    pytest.importorskip("peft", reason="writes the adapter's configuration")
    assert main(options(pretrained, "classification", tmp_path / "out", epochs=40, lora=8, learning_rate=5e-3)) == 0
    assert figures(tmp_path / "out")["seeds"][0]["eval"]["accuracy"] > 0.9
    before, after = fastbert.load(pretrained / "classic").model, fastbert.load(tmp_path / "out").model
    assert torch.equal(before.embeddings.word.weight, after.embeddings.word.weight)
    for old, new in zip(before.encoder.layers, after.encoder.layers, strict=True):
        assert torch.equal(old.feed_forward.up.weight, new.feed_forward.up.weight)
        q, k, v = (new.attention.qkv.weight - old.attention.qkv.weight).detach().chunk(3)
        assert not k.any() and torch.linalg.matrix_rank(q) <= 8 and torch.linalg.matrix_rank(v) <= 8 and q.any()


def test_what_is_refused(pretrained, tmp_path, monkeypatch):
    made = {"pretrained": pretrained, "task": "classification", "output": tmp_path / "out"}
    for more, named in (({"optimizer": "muon"}, "muon"), ({"freeze": "all"}, "--freeze all")):
        with pytest.raises(InputError, match=named):
            main(options(**made, lora=4, **more))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"fastbert\[lora\]"):
        main(options(**made, lora=4))
    assert not (tmp_path / "out").exists()
