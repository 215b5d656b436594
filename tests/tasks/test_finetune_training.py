"""The parts of a fine-tuning: optimizer, pooling, batches, rows of token ids."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from finetuning_cases import DATA, figures, options
from safetensors.torch import load_file

from fastbert.finetune import main
from fastbert.system.errors import InputError
from fastbert.tasks.examples import QuestionExample, TaggedExample, read_examples
from fastbert.tasks.features import span_rows, text_rows, token_rows
from fastbert.tasks.finetuning import load_backbone, new_model, read_data
from fastbert.tasks.model import TaskSettings
from fastbert.tasks.training import Recipe, Vocabulary, _optimizers, epoch_batches, train
from fastbert.text import Tokenizer
from support import change_json

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the optimizer that pretrained it, and what a head reads ----
@pytest.mark.parametrize(
    ("name", "text", "optimizer"),
    [
        ("run.json", '{"options": {"optimizer": "muon"}}', "muon"),
        ("run.json", '{"options": {"optimizer": "adamw"}}', "adamw"),
        ("finetune.json", '{"recipe": {"optimizer": "muon"}}', "muon"),
        ("run.json", '{"options": 3}', "adamw"),
        ("run.json", "not JSON", "adamw"),
        ("other.json", "{}", "adamw"),
    ],
)
def test_the_optimizer_is_that_of_the_pretraining(pretrained, tmp_path, capsys, name, text, optimizer):
    model = tmp_path / "model"
    shutil.copytree(pretrained / "modern", model)
    (model / name).write_text(text, encoding="utf-8")
    made = options(pretrained, "classification", tmp_path / "out", epochs=1, learning_rate=None)
    main(dataclasses.replace(made, model=str(model)))
    recipe = figures(tmp_path / "out")["recipe"]
    assert recipe["optimizer"] == optimizer
    assert recipe["learning_rate"] == (1e-3 if optimizer == "muon" else 3e-4)
    said = "Muon at 0.01 and AdamW at 0.001" if optimizer == "muon" else "AdamW at 0.0003"
    assert f"batches of 8, {said}, fp32" in capsys.readouterr().out


def test_muon_turns_the_matrices_of_the_layers_and_nothing_else(pretrained):
    model = new_model(load_backbone(pretrained / "modern", 0.0), TaskSettings("classification", ("a", "b")), 0.0)
    adamw, muon = _optimizers(model, Recipe(optimizer="muon", learning_rate=0.5, muon_learning_rate=0.25)).values()
    names = {id(p): name for name, p in model.named_parameters()}
    turned, rest = ({names[id(p)] for g in o.param_groups for p in g["params"]} for o in (muon, adamw))
    assert turned and all(name.startswith("backbone.encoder.layers.") for name in turned)
    assert {"backbone.embeddings.word.weight", "backbone.head.dense.weight", "classifier.weight"} <= rest
    assert not turned & rest and all(model.get_parameter(name).ndim == 2 for name in turned)
    assert [g["peak"] for o in (adamw, muon) for g in o.param_groups] == [0.5, 0.5, 0.25]
    assert len(_optimizers(model, Recipe())) == 1


def test_layers_have_rates_of_their_own_and_frozen_ones_none(pretrained):
    model = new_model(load_backbone(pretrained / "modern", 0.0), TaskSettings("classification", ("a", "b")), 0.0)
    names = {id(p): name for name, p in model.named_parameters()}

    def peaks(**recipe):
        optimizers = _optimizers(model, Recipe(learning_rate=1.0, muon_learning_rate=2.0, **recipe)).values()
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        return {names[id(p)]: group["peak"] for group in groups for p in group["params"]}

    rates = peaks(layer_decay=0.5, optimizer="muon")
    assert rates["classifier.weight"] == 1.0 and rates["backbone.embeddings.word.weight"] == 0.125
    assert rates["backbone.encoder.layers.1.attention.out.weight"] == 1.0
    assert rates["backbone.encoder.layers.0.attention.out.weight"] == 0.5
    every, frozen = peaks(), peaks(freeze="1")
    assert set(every) - set(frozen) == {n for n in every if ".embeddings." in n or ".layers.0." in n}
    assert not [n for n in peaks(freeze="all") if ".embeddings." in n or ".layers." in n]
    assert set(every) - set(peaks(freeze="embeddings")) == {n for n in every if ".embeddings." in n}
    assert peaks() == every  # what was frozen is free again


@pytest.mark.parametrize("freeze", ["embeddings", "1", "all"])
def test_frozen_weights_stay_and_the_others_learn(pretrained, tmp_path, freeze):
    main(options(pretrained, "classification", tmp_path / "out", epochs=2, freeze=freeze, label_smoothing=0.1))
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained / "classic", tmp_path / "out"))
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    frozen = {"embeddings": (".embeddings.",), "1": (".embeddings.", ".layer.0."), "all": (".embeddings.", ".layer.")}
    assert changed and not [name for name in changed if any(part in name for part in frozen[freeze])]
    assert any(".layer.1." in name for name in changed) == (freeze != "all")


def test_muon_learns_too(pretrained, tmp_path):
    main(options(pretrained, "classification", tmp_path / "out", "modern", epochs=15, optimizer="muon"))
    assert figures(tmp_path / "out")["summary"]["eval"]["accuracy"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("written", "asked", "pooling"),
    [
        (None, "auto", "mean"),
        ("cls", "auto", "cls"),
        ("mean", "auto", "mean"),
        ("cls", "mean", "mean"),
        (None, "cls", "cls"),
    ],
)
def test_modern_heads_read_what_the_model_says_else_the_mean(pretrained, tmp_path, written, asked, pooling):
    model = tmp_path / "model"
    shutil.copytree(pretrained / "modern", model)
    if written:
        change_json(model / "config.json", classifier_pooling=written)
    made = options(pretrained, "classification", tmp_path / "out", epochs=1, pooling=asked)
    main(dataclasses.replace(made, model=str(model)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["classifier_pooling"] == pooling


def test_the_mean_is_not_for_heads_that_read_the_first_token(pretrained, tmp_path):
    with pytest.raises(InputError, match="--pooling mean: heads of this architecture read"):
        main(options(pretrained, "classification", tmp_path / "out", "classic", pooling="mean"))
    assert not (tmp_path / "out").exists()


# ---- parts ----
def test_batches_of_an_epoch_have_equal_tokens_and_every_row_once():
    lengths = np.random.default_rng(0).integers(5, 60, 1000)
    batches = epoch_batches(lengths, 32, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    tokens = np.array([lengths[batch].sum() for batch in batches])
    assert len(batches) == 32 and abs(tokens - tokens.mean()).max() <= 60
    assert batches != epoch_batches(lengths, 32, seed=1, epoch=1)
    assert batches == epoch_batches(lengths, 32, seed=1, epoch=0)


def test_training_the_used_pieces_only_gives_the_same_model(pretrained):
    """With no weight decay the smaller embedding changes nothing."""
    tokenizer = Tokenizer.load(pretrained / "classic")
    found = []
    for small in (False, True):
        data = read_data(
            "classification", tokenizer, train=str(DATA / "sentiment.jsonl"), eval=str(DATA / "sentiment.jsonl")
        )
        torch.manual_seed(0)
        model = new_model(load_backbone(pretrained / "classic", 0.0), data.settings, 0.0)
        vocabulary = Vocabulary(data.train.rows, data.eval.rows) if small else None
        whole = vocabulary.shrink(model) if vocabulary else None
        recipe = Recipe(epochs=2, batch_size=8, evaluations=0, weight_decay=0.0, learning_rate=1e-3)
        train(model, data.train.rows, recipe, lambda m: {})
        if vocabulary:
            assert model.backbone.embeddings.word.weight.shape[0] < whole.shape[0]
            vocabulary.restore(model, whole)
        found.append(model.hf_state())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-5, rtol=1e-4)


def test_token_rows_predict_every_word_once(pretrained):
    tokenizer = Tokenizer.load(pretrained / "classic")
    examples = [TaggedExample("", ["casa"] * 50), TaggedExample("", ["\u200b", "x" * 300, "fim"])]
    rows = token_rows(examples, tokenizer, 16, [[0] * 50, [0, 1, 2]])
    words = zip(rows.origins, rows.positions, strict=True)
    predicted = [(e, w + i) for (e, w), positions in words for i in range(len(positions))]
    assert predicted == [(0, i) for i in range(50)] + [(1, i) for i in range(3)]
    assert max(len(row) for row in rows.ids) <= 16
    assert all(row[place] not in (tokenizer.cls_id, tokenizer.sep_id)
               for row, positions in zip(rows.ids, rows.positions, strict=True) for place in positions)  # fmt: skip


def test_windows_cover_the_context_and_point_at_the_answer(pretrained):
    tokenizer = Tokenizer.load(pretrained / "classic")
    words = [f"palavra{i}" for i in range(80)]
    context = " ".join(words)
    start = context.index("palavra57")
    example = QuestionExample("", "1", "Quem?", context, [("palavra57 palavra58", start)])
    rows = span_rows([example], tokenizer, 64, 24, labelled=True)
    assert len(rows) > 2
    covered = np.zeros(len(context), bool)
    hits = 0
    for (first, last), offsets in zip(rows.targets, rows.offsets, strict=True):
        for a, b in offsets[offsets[:, 0] >= 0]:
            covered[a:b] = True
        if first:
            hits += 1
            assert context[offsets[first, 0] : offsets[last, 1]] == "palavra57 palavra58"
    assert hits and all(covered[i] or context[i] == " " for i in range(len(context)))


def test_rows_of_pairs_have_types(pretrained):
    tokenizer = Tokenizer.load(pretrained / "classic")
    rows = text_rows(read_examples(str(DATA / "pairs.jsonl"), "regression")[:1], tokenizer, 64)
    encoded = tokenizer.encode("O gato dorme na cama.", "Um gato está dormindo na cama.")
    assert rows.ids[0].tolist() == encoded.ids and rows.types[0].tolist() == encoded.type_ids
