"""A fine-tuning that diverges or is interrupted keeps its best weights; a head is kept where its labels agree."""

import dataclasses
import json

import pytest
import torch
from finetuning_cases import DATA, figures, options

import fastbert
from fastbert.finetune import main
from fastbert.system.errors import InputError
from fastbert.tasks import guarded
from fastbert.tasks.model import TaskModel
from fastbert.tasks.saved_training import NAME
from support import at_step, ctrl_c

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS_PER_EPOCH = 3  # twenty lines, batches of 8


def interrupt(loss):
    raise KeyboardInterrupt


@pytest.mark.parametrize("task", ["classification", "pairs"])
def test_a_wild_learning_rate_ends_in_one_line_and_no_output(pretrained, tmp_path, task):
    with pytest.raises(InputError, match=r"step \d+: .*learning rate") as caught:
        main(options(pretrained, task, tmp_path / "out", learning_rate=1e9, evaluations=0))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("act", "code", "reason"),
    [(lambda loss: loss * float("nan"), 2, "diverged"), (lambda loss: loss * 1e9, 2, "diverged"),
     (interrupt, 130, "interrupted")],
    ids=["nan", "explosion", "Ctrl-C"],
)  # fmt: skip
def test_the_best_weights_so_far_are_kept(pretrained, tmp_path, monkeypatch, act, code, reason):
    at_step(monkeypatch, TaskModel, "loss", 2 * STEPS_PER_EPOCH + 1, act)
    made = options(pretrained, "classification", tmp_path / "out", evaluations=1, epochs=10, seeds=1)
    assert main(made) == code
    (row,) = figures(tmp_path / "out")["seeds"]
    assert row[reason] and row["steps"] == 2 * STEPS_PER_EPOCH and len(row["history"]) == 2
    assert row["eval"]["accuracy"] == pytest.approx(max(h["accuracy"] for h in row["history"]))
    assert all(torch.isfinite(p).all() for p in fastbert.load(tmp_path / "out").task_model.parameters())


def test_an_interruption_ends_the_seeds_too_and_before_the_first_step_leaves_nothing(pretrained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, TaskModel, "loss", 2, interrupt)
        assert main(options(pretrained, "classification", tmp_path / "out", seeds=3)) == 130
    assert len(figures(tmp_path / "out")["seeds"]) == 1
    at_step(monkeypatch, TaskModel, "loss", 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(options(pretrained, "classification", tmp_path / "none"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def kill(loss):
    raise SystemExit(137)


@pytest.mark.parametrize(
    ("stop", "more"),
    [(ctrl_c, {}), (kill, {}), (ctrl_c, {"seeds": 2}), (ctrl_c, {"optimizer": "muon", "evaluations": 0})],
    ids=["Ctrl-C", "killed", "second seed", "Muon, no evaluations"],
)
def test_a_training_goes_on_to_the_same_bits(pretrained, tmp_path, monkeypatch, stop, more):
    usual = {"evaluations": 1, "epochs": 4, "dropout": 0.1, **more}
    made = options(pretrained, "classification", tmp_path / "out", **usual)
    assert main(made) == 0
    (tmp_path / "out").rename(tmp_path / "whole")
    at = 2 * STEPS_PER_EPOCH + 1 + (usual.get("seeds", 1) - 1) * 4 * STEPS_PER_EPOCH
    with monkeypatch.context() as patch:
        patch.setattr(guarded, "SAVE_EVERY_S", 0.0)
        at_step(patch, TaskModel, "loss", at, stop)
        if stop is kill:
            with pytest.raises(SystemExit):
                main(made)
            assert not (tmp_path / "out").exists()
        else:
            assert main(made) == 130 and (tmp_path / "out" / NAME).is_file()
    resumed = dataclasses.replace(made, resume=True)
    with pytest.raises(InputError, match="--epochs"):
        main(dataclasses.replace(resumed, epochs=5.0))
    assert main(resumed) == 0 and not (tmp_path / "out" / NAME).exists()
    for file in ("model.safetensors", "predictions.jsonl"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    wanted, found = (
        [{k: v for k, v in row.items() if k != "training_s"} for row in figures(tmp_path / name)["seeds"]]
        for name in ("whole", "out")
    )
    assert found == wanted
    with pytest.raises(InputError, match="no unfinished training"):
        main(resumed)
    with pytest.raises(InputError, match="--output"):
        main(dataclasses.replace(resumed, output=None))


@pytest.mark.parametrize("task", ["classification", "pairs", "tagging", "qa"])
def test_further_training_starts_from_the_head(tuned, tmp_path, capsys, task):
    """With a learning rate that changes nothing the figures stay."""
    made = options(tuned(task).parent, task, tmp_path / "out", task, epochs=1, learning_rate=1e-12)
    main(made)
    assert "head" in capsys.readouterr().out
    before, after = figures(tuned(task))["summary"]["eval"], figures(tmp_path / "out")["summary"]["eval"]
    for measure, value in before.items():
        assert after[measure]["mean"] == pytest.approx(value["mean"], abs=1e-3), measure


def test_a_file_with_fewer_labels_keeps_the_others(tuned, tmp_path):
    rows = (DATA / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    few = [row for row in rows if "LOC" not in row]
    (tmp_path / "few.jsonl").write_text("\n".join(few), encoding="utf-8")
    made = options(tuned("tagging").parent, "tagging", tmp_path / "out", "tagging", epochs=1, learning_rate=1e-12)
    main(dataclasses.replace(made, train=str(tmp_path / "few.jsonl")))
    labels = [fastbert.load(path).task_model.settings.labels for path in (tuned("tagging"), tmp_path / "out")]
    assert labels[0] == labels[1]


def test_a_head_that_does_not_fit_is_replaced_and_named(tuned, tmp_path, capsys):
    rows = (DATA / "sentiment.jsonl").read_text(encoding="utf-8").replace('"good"', '"fine"')
    (tmp_path / "other.jsonl").write_text(rows, encoding="utf-8")
    made = options(tuned("classification").parent, "classification", tmp_path / "out", "classification", epochs=1)
    file = str(tmp_path / "other.jsonl")
    main(dataclasses.replace(made, train=file, eval=file))
    assert "note: the model's head, for classification (bad, good)" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "fine"}


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_saved_copy_has_the_head(tuned, tmp_path, task):
    bert = fastbert.load(tuned(task))
    bert.save(tmp_path / "copy")
    copy, text = fastbert.load(tmp_path / "copy"), "Clara Nunes mora em Recife."
    ask = {"classification": "classify", "tagging": "tag"}[task]
    assert getattr(copy, ask)(text) == getattr(bert, ask)(text)
