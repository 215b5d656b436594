"""Stock transformers and fastbert give the same logits, in both directions, padded and packed."""

import numpy as np
import pytest
import torch
from hf_models import spread, transformers

import fastbert
from fastbert.batch import PackedBatch, pack
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.errors import InputError
from fastbert.weights.huggingface import config_from_hf, config_to_hf
from support import SPECIAL, change_json

TOLERANCE = 1e-4  # max |Δ logit| in fp32
B, L = 3, 40


def small_config(arch, **changes):
    return BertConfig.preset("tiny", arch=arch, vocab_size=130, max_position_embeddings=64, **changes)


def padded_inputs(holes=True):
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 130, (B, L), generator=generator)
    mask = torch.ones(B, L, dtype=torch.long)
    mask[0, 25:] = 0
    mask[1, :7] = 0  # left padding
    if holes:
        mask[2, [3, 11, 12]] = 0
    types = (torch.arange(L) > 17).long().expand(B, L)
    return ids, mask, types


def peer_of(directory, arch):
    name = {"classic": "BertForPreTraining", "roformer": "RoFormerForMaskedLM", "modern": "ModernBertForMaskedLM"}[arch]
    return getattr(transformers, name).from_pretrained(directory, attn_implementation="eager").eval()


def peer_logits(peer, ids, mask, types, arch):
    with torch.no_grad():
        if arch == "classic":
            out = peer(ids, attention_mask=mask, token_type_ids=types)
            return out.prediction_logits, out.seq_relationship_logits
        kwargs = {"token_type_ids": types} if arch == "roformer" else {}
        return peer(ids, attention_mask=mask, **kwargs).logits, None


def assert_same(ours, peer, arch):
    # inside a window we count real tokens (as unpadding peers do), eager transformers counts columns
    ids, mask, types = padded_inputs(holes=ours.config.window is None)
    logits, relationship = peer_logits(peer, ids, mask, types, arch)
    with torch.no_grad():
        out = ours(ids, mask, None if arch == "modern" else types)
    real = mask.bool()
    assert (out.prediction_logits - logits)[real].abs().max() <= TOLERANCE
    assert (out.prediction_logits[~real] == 0).all()
    assert logits[real].std() > 0.5, "logits too flat to tell models apart"
    if arch == "classic":
        first = real[:, 0]  # the peer pools column 0, also where it is padding
        assert (out.seq_relationship_logits - relationship)[first].abs().max() <= TOLERANCE
    # packed: the same real tokens without the padding
    batch, kept = pack(ids, mask, None if arch == "modern" else types)
    with torch.no_grad():
        packed = ours(batch)
    assert (packed.prediction_logits - logits.flatten(0, 1)[kept]).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("classic", {}),
        ("classic", {"gelu_approximate": "tanh"}),
        ("roformer", {}),
        ("modern", {}),
        ("modern", {"window": 4, "global_attention_every": 2, "rope_theta": 160_000.0, "num_hidden_layers": 4}),
    ],
    ids=["classic", "classic-tanh", "roformer", "modern", "modern-windows"],
)
def test_transformers_reads_what_we_write(arch, changes, tmp_path):
    ours = spread(BertForPreTraining(small_config(arch, **changes)))
    ours.save_pretrained(tmp_path)
    assert_same(ours, peer_of(tmp_path, arch), arch)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("changes", [{}, {"window": 4}, {"window": 4, "global_attention_every": 2}])
def test_a_configuration_comes_back_as_it_was(layers, changes):
    config = small_config("modern", num_hidden_layers=layers, **changes)
    written = config_to_hf(config)
    assert config_to_hf(config_from_hf(written)) == written


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
def test_we_read_what_transformers_writes(arch, tmp_path):
    BertForPreTraining(small_config(arch)).save_pretrained(tmp_path / "a")
    peer = spread(peer_of(tmp_path / "a", arch))
    peer.save_pretrained(tmp_path / "b")
    ours = BertForPreTraining.from_pretrained(tmp_path / "b")
    assert ours.fresh == []
    assert_same(ours, peer, arch)


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
def test_auto_model_for_masked_lm_reads_a_run(arch, tmp_path):
    ours = spread(BertForPreTraining(small_config(arch)))
    ours.save_pretrained(tmp_path)
    peer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids, mask, types = padded_inputs()
    kwargs = {} if arch == "modern" else {"token_type_ids": types}
    with torch.no_grad():
        theirs = peer(ids, attention_mask=mask, **kwargs).logits
        mine = ours(ids, mask, None if arch == "modern" else types).prediction_logits
    assert (mine - theirs)[mask.bool()].abs().max() <= TOLERANCE


@pytest.mark.parametrize("arch", ["classic", "roformer", "modern"])
def test_loss_and_gradients_equal_the_peers(arch, tmp_path, random_start):
    ours = spread(BertForPreTraining(small_config(arch)))
    ours.save_pretrained(tmp_path)
    peer = peer_of(tmp_path, arch)
    ids, mask, types = padded_inputs()
    labels = torch.where((torch.arange(L) % 5 == 1) & mask.bool(), ids, -100)
    relation = torch.tensor([0, -100, 1])
    if arch == "classic":
        theirs = peer(ids, attention_mask=mask, token_type_ids=types, labels=labels, next_sentence_label=relation).loss
        mine = ours(ids, mask, types, labels, relation).loss
    else:
        kwargs = {} if arch == "modern" else {"token_type_ids": types}
        theirs = peer(ids, attention_mask=mask, labels=labels, **kwargs).loss
        mine = ours(ids, mask, None if arch == "modern" else types, labels=labels).loss
    assert abs(mine.item() - theirs.item()) <= 1e-5
    theirs.backward()
    mine.backward()
    name = "model.embeddings.tok_embeddings" if arch == "modern" else "embeddings.word_embeddings"
    name = {"classic": "bert.", "roformer": "roformer.", "modern": ""}[arch] + name
    wanted = peer.get_parameter(f"{name}.weight").grad
    # the peer's padding_idx drops the gradient of [PAD]'s row; no [PAD] is in these inputs
    assert (ours.embeddings.word.weight.grad[:130] - wanted).abs().max() <= 1e-5
    assert wanted.abs().max() > 1e-3


def test_packed_loss_equals_padded_loss():
    model = spread(BertForPreTraining(small_config("classic")))
    ids, mask, types = padded_inputs()
    mask[1] = 1
    labels = torch.where((torch.arange(L) % 5 == 1) & mask.bool(), ids, -100)
    padded = model(ids, mask, types, labels, torch.tensor([0, 1, -100])).loss
    batch, kept = pack(ids, mask, types)
    flat = labels.flatten()[kept]
    rows = (flat != -100).nonzero().squeeze(1)
    packed = PackedBatch(
        **{**vars(batch), "masked_index": rows, "labels": flat[rows], "next_sentence_label": torch.tensor([0, 1, -100])}
    )
    out = model(packed)
    assert out.prediction_logits is None
    assert abs(out.loss.item() - padded.item()) <= 1e-6


def test_old_names_and_bare_encoders_are_read(tmp_path):
    """gamma/beta names, a .bin file, no prefix and no heads: what old or sentence-embedding checkpoints look like."""
    model = spread(BertForPreTraining(small_config("classic")))
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    old = {
        k.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
        if k.startswith("bert.")
    }
    torch.save(old, tmp_path / "pytorch_model.bin")
    change_json(tmp_path / "config.json", "model_type", "architectures")
    loaded = fastbert.BertForPreTraining.from_pretrained(tmp_path)
    assert {name.split(".")[0] for name in loaded.fresh} == {"head", "next_sentence"}
    batch, _ = pack(padded_inputs()[0])
    with torch.no_grad():
        np.testing.assert_array_equal(loaded.encode(batch).numpy(), model.encode(batch).numpy())
    pieces = [*SPECIAL, *map(chr, range(97, 123))]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    with pytest.raises(InputError, match="no masked-LM head"):
        fastbert.load(tmp_path).fill_mask("a [MASK]")


def test_a_pickle_with_code_in_it_is_refused(tmp_path):
    import pickle

    BertForPreTraining(small_config("classic")).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*safetensors"):
        BertForPreTraining.from_pretrained(tmp_path)


def test_a_roformer_with_trained_sinusoids_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    BertForPreTraining(small_config("roformer")).save_pretrained(tmp_path / "a")
    peer_of(tmp_path / "a", "roformer").save_pretrained(tmp_path)
    BertForPreTraining.from_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["roformer.encoder.embed_positions.weight"] += 0.1
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="embed_positions"):
        BertForPreTraining.from_pretrained(tmp_path)


def test_damaged_directories_say_which_file(tmp_path):
    model = BertForPreTraining(small_config("modern"))
    with pytest.raises(InputError, match="no such directory"):
        BertForPreTraining.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no config\.json"):
        BertForPreTraining.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 5, 200, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
            BertForPreTraining.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    BertForPreTraining(small_config("modern", num_hidden_layers=1)).save_pretrained(tmp_path / "one")
    (tmp_path / "one" / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    with pytest.raises(InputError, match="not a whole encoder"):
        BertForPreTraining.from_pretrained(tmp_path / "one")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="model_type 'gpt2'"):
        BertForPreTraining.from_pretrained(tmp_path)
