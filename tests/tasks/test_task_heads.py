"""Every head gives in stock transformers what it gives here, in both directions."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hf_models import spread, transformers
from safetensors.torch import load_file, save_file

from fastbert.batch import pack
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.tasks.examples import QuestionExample, TextExample
from fastbert.tasks.methods import read_head
from fastbert.tasks.model import TaskModel, TaskSettings, spread_rows
from fastbert.tasks.prediction import answer, classify
from fastbert.text import Tokenizer
from support import SPECIAL, change_json

TOLERANCE = 1e-4  # max |Δ logit| in fp32
B, L = 3, 40
FAMILY = {"classic": "Bert", "roformer": "RoFormer", "modern": "ModernBert"}
CLASS = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "qa": "ForQuestionAnswering",
}
LABELS = {"classification": ("bad", "fair", "good"), "tagging": ("O", "B-PER", "I-PER")}
CASES = [(arch, task) for arch in FAMILY for task in CLASS]


def settings(task):
    return TaskSettings(task, LABELS.get(task, ()))


def ours_of(arch, task, pooling="cls"):
    config = BertConfig.preset("tiny", arch=arch, vocab_size=130, max_position_embeddings=64)
    torch.manual_seed(1)  # logits that differ enough to tell heads apart
    return spread(TaskModel(BertForPreTraining(config), settings(task), pooling=pooling))


def inputs(arch):
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 130, (B, L), generator=generator)
    mask = torch.ones(B, L, dtype=torch.long)
    mask[0, 25:] = 0
    mask[1, 9:] = 0
    types = (torch.arange(L) > 5).long().expand(B, L)
    return ids, mask, None if arch == "modern" else types


def peer_logits(peer, arch, task):
    ids, mask, types = inputs(arch)
    with torch.no_grad():
        out = peer(ids, attention_mask=mask, **({} if types is None else {"token_type_ids": types}))
    if task == "qa":
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits


def our_logits(model, arch, task):
    ids, mask, types = inputs(arch)
    batch, kept = pack(ids, mask, types)
    if task == "tagging":
        batch = type(batch)(**{**vars(batch), "masked_index": torch.arange(batch.num_tokens)})
    with torch.no_grad():
        logits = model(batch)
    return logits, kept


def assert_same(model, peer, arch, task):
    theirs = peer_logits(peer, arch, task)
    ours, kept = our_logits(model, arch, task)
    if task in ("tagging", "qa"):
        theirs = theirs.flatten(0, 1)[kept]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE
    assert theirs.std() > 0.1, "logits too flat to tell heads apart"


def peer_of(directory, arch, task):
    return getattr(transformers, FAMILY[arch] + CLASS[task]).from_pretrained(directory).eval()


@pytest.mark.parametrize(("arch", "task"), CASES)
def test_transformers_reads_our_head(arch, task, tmp_path, random_start):
    model = ours_of(arch, task)
    model.save_pretrained(tmp_path)
    auto = {"tagging": "AutoModelForTokenClassification", "qa": "AutoModelForQuestionAnswering"}
    name = auto.get(task, "AutoModelForSequenceClassification")
    peer, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert type(peer).__name__ == FAMILY[arch] + CLASS[task]
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    # RoFormer's table of sinusoids is no weight: the peer makes it itself
    assert all("embed_positions" in key for key in report["missing_keys"])
    assert_same(model, peer.eval(), arch, task)
    if task in LABELS:
        assert peer.config.id2label == dict(enumerate(LABELS[task]))


@pytest.mark.parametrize(("arch", "task"), CASES)
def test_we_read_the_head_of_transformers(arch, task, tmp_path):
    ours_of(arch, task).save_pretrained(tmp_path / "a")
    change_json(tmp_path / "a" / "config.json", "fastbert")
    peer = spread(peer_of(tmp_path / "a", arch, task))
    peer.save_pretrained(tmp_path / "b")
    model = TaskModel.from_pretrained(tmp_path / "b")
    assert (model.settings.task, model.settings.labels) == (task, LABELS.get(task, ()))
    assert_same(model, peer, arch, task)


def test_a_modernbert_that_pools_the_mean(tmp_path):
    model = ours_of("modern", "classification", pooling="mean")
    model.save_pretrained(tmp_path)
    assert_same(model, peer_of(tmp_path, "modern", "classification"), "modern", "classification")
    assert TaskModel.from_pretrained(tmp_path).pooling == "mean"


@pytest.mark.parametrize("task", CLASS)
def test_the_loss_is_the_peers(task, tmp_path, random_start):
    model = ours_of("classic", task)
    model.save_pretrained(tmp_path)
    peer = peer_of(tmp_path, "classic", task)
    ids, mask, types = inputs("classic")
    mask[:] = 1  # the peer's span loss counts padding
    batch, _ = pack(ids, mask, types)
    wanted = {
        "classification": torch.tensor([2, 0, 1]),
        "regression": torch.tensor([0.5, -1.0, 3.0]),
        "tagging": torch.randint(0, 3, (B, L), generator=torch.Generator().manual_seed(3)),
        "qa": torch.tensor([[3, 5], [0, 0], [7, 7]]),
    }[task]
    labels = {"start_positions": wanted[:, 0], "end_positions": wanted[:, 1]} if task == "qa" else {"labels": wanted}
    if task == "tagging":
        batch = type(batch)(**{**vars(batch), "masked_index": torch.arange(batch.num_tokens)})
        wanted = wanted.flatten()
    theirs = peer(ids, attention_mask=mask, token_type_ids=types, **labels).loss
    mine = model.loss(batch, wanted)
    assert abs(mine.item() - theirs.item()) <= 1e-5
    theirs.backward()
    mine.backward()
    gradients = model.backbone.embeddings.position.weight.grad, peer.bert.embeddings.position_embeddings.weight.grad
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5
    assert gradients[1].abs().max() > 1e-4


def test_spread_rows_marks_what_is_no_token():
    batch, _ = pack(torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 1], [1, 0, 0]]))
    spread_out = spread_rows(torch.arange(8.0).view(4, 2), batch)
    np.testing.assert_array_equal(spread_out[1, :, 0].numpy(), [6.0, -np.inf, -np.inf])


def test_heads_that_cannot_be_read_say_why(tmp_path):
    model = ours_of("classic", "classification")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k != "classifier.bias"}, path)
    with pytest.raises(InputError, match=r"classifier\.bias is missing"):
        TaskModel.from_pretrained(tmp_path)
    save_file(state | {"classifier.weight": torch.zeros(7, 128)}, path)
    with pytest.raises(InputError, match=r"classifier\.weight is of shape \(7, 128\), expected \(3, 128\)"):
        TaskModel.from_pretrained(tmp_path)
    save_file({k: v for k, v in state.items() if "pooler" not in k}, path)
    with pytest.raises(InputError, match=r"pooler\.bias"):
        TaskModel.from_pretrained(tmp_path)
    change_json(tmp_path / "config.json", architectures=["BertForPreTraining"])
    with pytest.raises(InputError, match="BertForPreTraining"):
        TaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"problem_type": "regression"}, "problem_type"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "id2label.*'a'"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "id2label"),
        ({"id2label": ["a", "b", "c"]}, "id2label"),
    ],
)
def test_answers_that_would_not_be_those_of_transformers_are_refused(tmp_path, fields, named):
    ours_of("classic", "classification").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **fields)
    with pytest.raises(InputError, match=named):
        TaskModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(("limit", "longest"), [(16, 16), (1000, 64), (1e30, 64), (None, 64)])
def test_a_head_of_others_truncates_where_their_tokenizer_does(tmp_path, limit, longest):
    model = ours_of("classic", "classification")
    model.save_pretrained(tmp_path)
    own = TaskModel.from_pretrained(tmp_path).settings
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
    assert TaskModel.from_pretrained(tmp_path).settings == own
    change_json(tmp_path / "config.json", "fastbert")
    assert TaskModel.from_pretrained(tmp_path).settings.max_length == longest


def test_only_models_that_say_so_answer_that_there_is_no_answer(tmp_path):
    ours_of("classic", "qa").save_pretrained(tmp_path)
    assert TaskModel.from_pretrained(tmp_path).settings.unanswerable
    change_json(tmp_path / "config.json", "fastbert")
    model = TaskModel.from_pretrained(tmp_path)
    assert not model.settings.unanswerable
    with torch.no_grad():
        model.classifier.bias.fill_(0.0)
        model.classifier.weight.fill_(0.0)  # every span is as likely as none
    tokenizer = Tokenizer([*SPECIAL, *"abcdefgh"])
    examples = [QuestionExample("", "", "a b", "c d e f")]
    (found,) = answer(model.eval(), tokenizer, examples, top_k=20)
    (also,) = answer(model, tokenizer, examples, top_k=20, unanswerable=True)
    assert "" not in [a["answer"] for a in found] and "" in [a["answer"] for a in also]


@pytest.mark.parametrize(
    ("fields", "file", "sigmoid"),
    [
        ({"problem_type": None}, {}, True),
        ({"problem_type": "regression"}, {}, False),
        ({"problem_type": None}, {"activation_fn": "torch.nn.modules.linear.Identity"}, False),
        ({"problem_type": "regression"}, {"activation_fn": "torch.nn.modules.activation.Sigmoid"}, True),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, {}, False),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, {}, False),
    ],
)
def test_a_single_number_as_cross_encoders_give_it(tmp_path, fields, file, sigmoid):
    ours_of("classic", "regression").save_pretrained(tmp_path)
    assert not TaskModel.from_pretrained(tmp_path).settings.sigmoid
    change_json(tmp_path / "config.json", "fastbert", **{"problem_type": None} | fields)
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"} | file))
    model = TaskModel.from_pretrained(tmp_path)
    tokenizer = Tokenizer([*SPECIAL, *"abcdefgh"])
    (found,) = classify(model, tokenizer, [TextExample("", "a b", "c")])
    model.settings = replace(model.settings, sigmoid=False)
    (logit,) = classify(model, tokenizer, [TextExample("", "a b", "c")])
    assert found == pytest.approx(1 / (1 + np.exp(-logit)) if sigmoid else logit, abs=1e-6)


def test_another_activation_is_refused(tmp_path):
    ours_of("classic", "regression").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", "fastbert", sbert_ce_default_activation_function="torch.nn.Tanh")
    with pytest.raises(InputError, match="Tanh"):
        TaskModel.from_pretrained(tmp_path)


def test_a_head_that_is_not_supported_is_named(tmp_path):
    ours_of("classic", "classification").save_pretrained(tmp_path)
    backbone = BertForPreTraining.from_pretrained(tmp_path)
    change_json(tmp_path / "config.json", architectures=["BertForMultipleChoice"])
    with pytest.warns(UserWarning, match="BertForMultipleChoice"):
        assert read_head(tmp_path, backbone) is None
    for kind in ("BertModel", "BertForMaskedLM", "BertLMHeadModel"):
        change_json(tmp_path / "config.json", architectures=[kind])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_head(tmp_path, backbone) is None
