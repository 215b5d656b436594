"""A checkpoint is whole or refused, and gives back every bit."""

import pytest
import torch

from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.optim.optimizers import Optimizers
from fastbert.optim.schedules import Schedule
from fastbert.runs import checkpoint
from fastbert.system.errors import InputError


def trained_a_little(steps=2, optimizer="muon"):
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig.preset("tiny", vocab_size=90, num_hidden_layers=1))
    optimizers = Optimizers(model, optimizer=optimizer)
    for _ in range(steps):
        one_step(model, optimizers)
    return model, optimizers


def one_step(model, optimizers):
    ids = torch.randint(5, 90, (2, 9))
    model(ids, labels=ids).loss.backward()
    optimizers.step(0.5)


def save(run, step, model, optimizers, **kwargs):
    tensors = optimizers.state_tensors() | {"random/cpu": torch.get_rng_state()}
    return checkpoint.save(run, step, model.state_dict(), model.config, tensors, {"tokens": 7}, **kwargs)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_goes_on_bit_for_bit(tmp_path, optimizer):
    model, optimizers = trained_a_little(optimizer=optimizer)
    save(tmp_path, 2, model, optimizers)
    for _ in range(3):
        one_step(model, optimizers)

    again = BertForPreTraining(model.config)
    other = Optimizers(again, optimizer=optimizer)
    found = checkpoint.load_newest(tmp_path, warn=pytest.fail)
    assert found.step == 2 and found.state == {"tokens": 7}
    again.load_state_dict(found.model)
    other.load_state_tensors({n: t for n, t in found.tensors.items() if not n.startswith("random/")})
    torch.set_rng_state(found.tensors["random/cpu"])
    for _ in range(3):
        one_step(again, other)
    real = model.config.vocab_size
    for name, tensor in model.state_dict().items():
        mine = again.state_dict()[name]
        if name in ("embeddings.word.weight", "head.bias"):  # rows beyond the vocabulary are not saved
            tensor, mine = tensor[:real], mine[:real]
        assert torch.equal(mine, tensor), name


def test_every_file_cut_or_changed_is_noticed(tmp_path):
    directory = save(tmp_path, 2, *trained_a_little())
    for path in sorted(directory.iterdir()):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (b"", whole[: len(whole) // 2], whole[:-3], flipped):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=f"{path.name}.*delete that directory"):
                checkpoint.load(directory)
        path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: missing"):
            checkpoint.load(directory)
        path.write_bytes(whole)
    checkpoint.load(directory)


def test_newest_whole_one_is_found_and_the_damaged_one_named(tmp_path):
    model, optimizers = trained_a_little()
    for step in (1, 2, 3):
        save(tmp_path, step, model, optimizers, retention=2)
    assert checkpoint.list_steps(tmp_path) == [2, 3]
    (tmp_path / "checkpoints" / "step-3" / "model.safetensors").write_bytes(b"short")
    said = []
    assert checkpoint.load_newest(tmp_path, warn=said.append).step == 2
    assert len(said) == 1 and "step-3" in said[0]
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.load_newest(tmp_path / "elsewhere", warn=pytest.fail)


def test_a_failed_save_leaves_the_old_ones_alone(tmp_path, monkeypatch):
    model, optimizers = trained_a_little()
    save(tmp_path, 1, model, optimizers)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write_all", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2, model, optimizers)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    assert checkpoint.load_newest(tmp_path, warn=pytest.fail).step == 1


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    model, optimizers = trained_a_little()
    save(tmp_path, 1, model, optimizers)
    with torch.no_grad():
        model.encoder.layers[0].attention.out.weight[3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match=r"attention\.out"):
        save(tmp_path, 2, model, optimizers)
    assert checkpoint.list_steps(tmp_path) == [1]


def test_which_checkpoints_stay(tmp_path):
    assert checkpoint.RetentionPolicy(2, 0).dropped([1, 2, 3, 4]) == [1, 2]
    assert checkpoint.RetentionPolicy(1, 2).dropped([1, 2, 3, 4, 5]) == [1, 3]
    assert checkpoint.RetentionPolicy(0, 0).dropped([1, 2, 3]) == []
    model, optimizers = trained_a_little()
    (tmp_path / "checkpoints" / ".step-9.partial").mkdir(parents=True)  # of a process that was killed
    for step in range(1, 6):
        save(tmp_path, step, model, optimizers, retention=checkpoint.RetentionPolicy(last=1, every=2))
    save(tmp_path, 5, model, optimizers)  # again: in its place
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-4", "step-5"]
    checkpoint.load(tmp_path / "checkpoints" / "step-5")


def test_tensors_of_every_kind_come_back(tmp_path):
    tensors = {
        "scalar": torch.tensor(3.5), "half": torch.randn(3).bfloat16(), "empty": torch.zeros(0, 4),
        "turned": torch.randn(3, 5).T, "bytes": torch.arange(7, dtype=torch.uint8), "long": torch.arange(3),
    }  # fmt: skip
    listed = checkpoint.write_tensors(tensors, tmp_path / "t.safetensors")
    found = checkpoint.huggingface.read_safetensors(tmp_path / "t.safetensors")
    assert listed["bytes"] == (tmp_path / "t.safetensors").stat().st_size
    assert found.keys() == tensors.keys() and all(torch.equal(found[n], t) for n, t in tensors.items())
    assert all(found[n].dtype == t.dtype for n, t in tensors.items())


def test_a_checkpoint_is_a_model_directory(tmp_path):
    model, optimizers = trained_a_little()
    directory = save(tmp_path, 2, model, optimizers)
    loaded = BertForPreTraining.from_pretrained(directory)
    assert torch.equal(loaded.embeddings.word.weight[:90], model.embeddings.word.weight[:90])


def test_groups_of_parameters():
    model, optimizers = trained_a_little(steps=0)
    names = {part: [n for g in o.param_groups for n in g["param_names"]] for part, o in optimizers.parts.items()}
    assert sorted(names["muon"] + names["adamw"]) == sorted(n for n, _ in model.named_parameters())
    assert all(n.startswith("encoder.layers.") and n.endswith("weight") and "norm" not in n for n in names["muon"])
    plain = optimizers.parts["adamw"].param_groups[1]
    assert plain["weight_decay"] == 0.0 and all(p.ndim == 1 for p in plain["params"])


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(warmup=0.1, decay=0.5)
    assert schedule(0.05) == pytest.approx(0.5)
    assert schedule(0.1) == schedule(0.3) == schedule(0.5) == 1.0
    assert schedule(0.75) == pytest.approx(0.5)
    assert 0 < schedule(0.0) < 0.01 and 0 < schedule(1.0) < 0.01
