"""Whatever a checkpoint says is honoured, harmless, or refused by name: config.json and the tensors' names."""

import json
import warnings

import pytest
import torch
from hf_models import inputs, peer
from safetensors.torch import load_file, save_file

from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.weights.config_fields import HARMLESS, HONOURED, ONLY
from support import change_json

BERT_BASE = {"pooler_fc_size": 768, "directionality": "bidi", "gradient_checkpointing": False, "_name_or_path": "x"}


@pytest.fixture
def checkpoint(tmp_path):
    """A BERT of transformers, its answer, and where it lies."""
    model = peer("bert")
    model.save_pretrained(tmp_path)
    ids, mask = inputs()
    with torch.no_grad():
        wanted = model(ids, attention_mask=mask).logits[mask.bool()]

    class Checkpoint:
        path, logits = tmp_path, wanted

        def configure(self, **fields):
            change_json(tmp_path / "config.json", **fields)

        def rename(self, change):
            state = load_file(tmp_path / "model.safetensors")
            save_file(change(state), tmp_path / "model.safetensors", metadata={"format": "pt"})

        def refused(self, match):
            with pytest.raises(InputError, match=match) as error:
                BertForPreTraining.from_pretrained(tmp_path)
            return str(error.value)

        def check(self):
            ours = BertForPreTraining.from_pretrained(tmp_path)
            with torch.no_grad():
                mine = ours(ids, mask).prediction_logits[mask.bool()]
            assert (mine - wanted).abs().max() <= 1e-4
            return ours

    return Checkpoint()


# ---- config.json ----
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("position_embedding_type", "relative_key"),
        ("pruned_heads", {"0": [1]}),
        ("directionality", "left"),
        ("hidden_act", "relu"),
        ("quantization_config", {"load_in_8bit": True}),
        ("auto_map", {"AutoModel": "modeling.py--Model"}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("adapters", {"config_map": {}}),
        ("share_layers", True),
        ("model_type", "deberta-v2"),
    ],
)
def test_fields_that_would_change_an_answer_are_refused(checkpoint, field, value):
    checkpoint.configure(**{field: value})
    error = checkpoint.refused(rf"config\.json.*{'activation' if field == 'hidden_act' else field}")
    assert "\n" not in error


def test_fields_that_cannot_matter_are_read_over(checkpoint):
    checkpoint.configure(**dict.fromkeys(HARMLESS, 1) | BERT_BASE, share_layers=None)
    checkpoint.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("norm_bias", True),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("layer_types", ["sliding_attention", "full_attention"] * 2),
        ("layer_types", ["full_attention"] * 3),
        ("layer_types", ["chunked_attention"] * 4),
        ("rope_parameters", {"full_attention": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
        ("rope_parameters", {"full_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    ],
)
def test_modernberts_fields(tmp_path, field, value):
    peer("modernbert").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **{field: value})
    with pytest.raises(InputError, match=rf"config\.json.*{field}"):
        BertForPreTraining.from_pretrained(tmp_path)


def test_modernbert_without_decoder_bias(tmp_path):
    model = peer("modernbert", decoder_bias=False)
    model.save_pretrained(tmp_path)
    ids, mask = inputs()
    with torch.no_grad():
        wanted = model(ids, attention_mask=mask).logits[mask.bool()]
        mine = BertForPreTraining.from_pretrained(tmp_path)(ids, mask).prediction_logits[mask.bool()]
    assert (mine - wanted).abs().max() <= 1e-4


def test_no_field_stands_in_two_tables():
    every = set().union(*HONOURED.values())
    assert not every & HARMLESS and not every & set(ONLY) and not HARMLESS & set(ONLY)


# ---- names of tensors ----
def test_prefixes_of_wrappers_are_read(checkpoint):
    original = load_file(checkpoint.path / "model.safetensors")
    for prefix in ("module.", "_orig_mod.", "model.", "encoder.", "bert.", "base_model.model.", "module.model."):
        checkpoint.rename(lambda _, p=prefix: {p + name: tensor for name, tensor in original.items()})
        assert not [name for name in checkpoint.check().fresh if name.startswith("head.")]


def test_the_bias_under_the_decoder_and_old_names(checkpoint):
    def change(state):
        state["cls.predictions.decoder.bias"] = state.pop("cls.predictions.bias")
        state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }

    checkpoint.rename(change)
    assert checkpoint.check().config.tie_word_embeddings


def test_an_untied_decoder_counts_whatever_the_configuration_says(checkpoint):
    generator = torch.Generator().manual_seed(3)
    other = torch.randn(130, 32, generator=generator)
    checkpoint.rename(lambda state: state | {"cls.predictions.decoder.weight": other})
    ours = BertForPreTraining.from_pretrained(checkpoint.path)
    theirs = type(peer("bert")).from_pretrained(checkpoint.path)
    ids, mask = inputs()
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=mask).logits[mask.bool()]
        assert (ours(ids, mask).prediction_logits[mask.bool()] - wanted).abs().max() <= 1e-4
    assert (wanted - checkpoint.logits).abs().max() > 1


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.2.output.dense.weight",
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight",
        "base_model.model.lora_B.weight",
        "crf.transitions",
        "bert.encoder.layer.0.output.adapter.down.weight",
        "bert.encoder.layer.0.attention.self.distance_embedding.weight",
        "bert.embeddings.word_embeddings.weight_format.absmax",
        "second.embeddings.word_embeddings.weight",
    ],
)
def test_tensors_that_would_change_an_answer_are_refused(checkpoint, name):
    checkpoint.rename(lambda state: state | {name: torch.zeros(3, 3)})
    error = checkpoint.refused(r"Try: ")
    assert str(checkpoint.path) in error and name.split(".")[0] in error


def test_other_tensors_are_named(checkpoint):
    checkpoint.rename(lambda state: state | {"my_head.weight": torch.zeros(2, 2)})
    with pytest.warns(UserWarning, match=r"my_head\.weight"):
        checkpoint.check()


def test_task_heads_and_buffers_need_no_word(checkpoint):
    more = {"bert.embeddings.position_ids": torch.arange(64)[None], "classifier.weight": torch.zeros(2, 32)}
    checkpoint.rename(lambda state: state | more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.check()


def test_rows_must_be_those_of_the_configuration(checkpoint):
    checkpoint.configure(vocab_size=129)  # the padding to 64 rows once hid this
    checkpoint.refused("vocab_size")


def test_quantized_weights_are_refused(checkpoint):
    name = "bert.encoder.layer.0.output.dense.weight"
    checkpoint.rename(lambda state: state | {name: state[name].to(torch.int8)})
    checkpoint.refused(r"feed_forward\.down.*int8")


# ---- files ----
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read(checkpoint, kind):
    state = load_file(checkpoint.path / "model.safetensors")
    (checkpoint.path / "model.safetensors").unlink()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = sorted(state)
    places = {name: f"{stem}-0000{1 + (i > 9)}-of-00002.{kind}" for i, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: state[name] for name in names if places[name] == file}
        save_file(part, checkpoint.path / file) if kind == "safetensors" else torch.save(part, checkpoint.path / file)
    index = checkpoint.path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    checkpoint.check()
    index.write_text(json.dumps({"weight_map": places | {"x": f"../{stem}.{kind}"}}))
    checkpoint.refused("leaves the directory")
    index.write_text(json.dumps({"weight_map": places | {"x": f"{stem}-00003.{kind}"}}))
    checkpoint.refused("00003")


def test_a_state_dict_within_a_checkpoint(checkpoint):
    state = load_file(checkpoint.path / "model.safetensors")
    (checkpoint.path / "model.safetensors").unlink()
    torch.save({"state_dict": {"model." + k: v for k, v in state.items()}}, checkpoint.path / "pytorch_model.bin")
    checkpoint.check()


def test_adapters_and_other_formats_are_named(checkpoint):
    (checkpoint.path / "model.safetensors").rename(checkpoint.path / "tf_model.h5")
    checkpoint.refused(r"tf_model\.h5")
    (checkpoint.path / "adapter_config.json").write_text("{}")
    checkpoint.refused(r"adapter_config\.json")
