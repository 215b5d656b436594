"""Labels as people have them: several per text, numbers with names, classes that training has never seen."""

import json
from collections import Counter

import numpy as np
import pytest
from finetuning_cases import DATA, figures, options

import fastbert
from fastbert.finetune import main
from fastbert.system.errors import InputError
from fastbert.tasks import scores
from fastbert.tasks.examples import FieldNames, Notes, QuestionExample, TaggedExample, TextExample, read_examples
from fastbert.tasks.held_out import stratified
from fastbert.tasks.model import TaskModel

pytestmark = pytest.mark.usefixtures("one_thread")


def write(path, *records):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return str(path)


# ---- several labels per text ----
@pytest.mark.parametrize(
    ("given", "fields", "expected"),
    [
        ([["a", "b"], [], "c"], {}, [("a", "b"), (), ("c",)]),
        (["a; b", "", "c;c"], {"label_separator": ";"}, [("a", "b"), (), ("c",)]),
        ([[1, 0, 1], [0, 0, 0]], {}, [("0", "2"), ()]),
        ([[True, False], [False, True]], {"label_names": ("x", "y")}, [("x",), ("y",)]),
        ([[0, 2], [1]], {"label_names": ("x", "y", "z")}, [("x", "z"), ("y",)]),
    ],
)
def test_lists_of_labels(tmp_path, given, fields, expected):
    path = write(tmp_path / "x.jsonl", *({"text": "a", "label": label} for label in given))
    examples = read_examples(path, "classification", fields=FieldNames(**fields))
    assert [e.label for e in examples] == expected


def several_labels(tmp_path):
    """The sentiment fixture with its language as a second label, and texts without any."""
    rows = [json.loads(line) for line in (DATA / "sentiment.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [{"text": r["text"], "label": [r["label"]] * (r["label"] == "good") + ["long"] * (len(r["text"]) > 40)}
               for r in rows]  # fmt: skip
    assert len({tuple(r["label"]) for r in records}) == 4
    return write(tmp_path / "several.jsonl", *records), records


@pytest.mark.parametrize("threshold", ["0.5", "auto"])
def test_several_labels_are_learned_and_served(pretrained, tmp_path, threshold):
    path, records = several_labels(tmp_path)
    made = {"train": path, "eval": path, "threshold": threshold, "epochs": 50}
    main(options(pretrained, "classification", tmp_path / "out", **made))
    kept = figures(tmp_path / "out")
    assert kept["summary"]["eval"]["micro_f1"]["mean"] > 0.95 and kept["by_class"]["good"]["support"] == 10
    bert = fastbert.load(tmp_path / "out")
    answers = bert.classify([r["text"] for r in records])
    right = sum(set(answer["labels"]) == set(r["label"]) for answer, r in zip(answers, records, strict=True))
    assert right >= 18 and list(answers[0]["scores"]) == ["good", "long"]
    assert len(bert.task_model.settings.thresholds) == 2
    bert.save(tmp_path / "copy")
    assert TaskModel.from_pretrained(tmp_path / "copy").settings == bert.task_model.settings


def test_a_head_for_several_labels_is_that_of_transformers(pretrained, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the peer compared with")
    import torch

    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        pretrained / "classic", num_labels=3, problem_type="multi_label_classification"
    ).eval()
    theirs.save_pretrained(tmp_path)
    fastbert.Tokenizer.load(pretrained / "classic").save(tmp_path)
    bert = fastbert.load(tmp_path)
    text = "Que filme lindo."
    encoded = bert.tokenizer.encode(text)
    with torch.no_grad():
        wanted = torch.sigmoid(theirs(torch.tensor([encoded.ids])).logits)[0].numpy()
    found = bert.classify(text)
    np.testing.assert_allclose(list(found["scores"].values()), wanted, atol=1e-5)
    assert found["labels"] == [f"LABEL_{i}" for i in range(3) if wanted[i] >= 0.5]


def test_the_figures_of_several_labels_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="the peer compared with")
    random = np.random.default_rng(0)
    true, guessed = random.random((50, 4)) < 0.4, random.random((50, 4)) < 0.5
    measured, by_label = scores.multilabel_scores(true, guessed, "abcd")
    assert measured["micro_f1"] == pytest.approx(sklearn.f1_score(true, guessed, average="micro"))
    assert measured["macro_f1"] == pytest.approx(sklearn.f1_score(true, guessed, average="macro"))
    assert measured["exact_match"] == pytest.approx(sklearn.accuracy_score(true, guessed))
    assert by_label["c"]["precision"] == pytest.approx(sklearn.precision_score(true[:, 2], guessed[:, 2]))


def test_a_threshold_has_the_best_f1():
    random = np.random.default_rng(1)
    true, chances = random.random((40, 2)) < 0.3, random.random((40, 2)).round(1)

    def f1(column, threshold):
        return scores.multilabel_scores(true[:, [column]], chances[:, [column]] >= threshold, "x")[0]["micro_f1"]

    for column, found in enumerate(scores.best_thresholds(true, chances)):
        assert f1(column, found) == max(f1(column, t) for t in np.arange(0.0, 1.05, 0.05))
    assert scores.best_thresholds(np.zeros((3, 1), bool), np.ones((3, 1))) == [0.5]


# ---- numbers with names ----
def test_integer_tags_have_names(tmp_path):
    path = write(tmp_path / "x.jsonl", {"tokens": ["Ana", "mora"], "ner_tags": [1, 0]})
    (example,) = read_examples(path, "tagging", fields=FieldNames(label_names=("O", "B-PER", "I-PER")))
    assert example.tags == ["B-PER", "O"]
    with pytest.raises(InputError, match="--label-names"):
        read_examples(path, "tagging")
    with pytest.raises(InputError, match="1 label names"):
        read_examples(path, "tagging", fields=FieldNames(label_names=("O",)))


# ---- entities by their characters ----
@pytest.mark.parametrize("as_list", [False, True])
def test_entities_by_characters_become_tags(tmp_path, as_list):
    text = "Clara Nunes mora em São Paulo-SP."
    spans = [(0, 11, "PER"), (20, 29, "LOC")]
    given = [[*span] if as_list else dict(zip(("start", "end", "label"), span, strict=True)) for span in spans]
    path = write(tmp_path / "x.jsonl", {"text": text, "label" if as_list else "entities": given, "id": 3})
    notes = Notes()
    (example,) = read_examples(path, "tagging", notes=notes)
    assert example.tokens == ["Clara", "Nunes", "mora", "em", "São", "Paulo-SP", "."]
    assert example.tags == ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    assert len(notes.lines()) == 2  # a field that is not used, and an entity that ends within a word


@pytest.mark.parametrize(
    "entity", [[0, 99, "X"], [3, 3, "X"], ["0", 2, "X"], [1, 2], 7, [0, 3, ""], [0, 1, "X"]], ids=str
)
def test_entities_that_are_not_in_the_text(tmp_path, entity):
    path = write(tmp_path / "x.jsonl", {"text": " ab", "entities": [entity]})
    with pytest.raises(InputError, match="line 1: entity"):
        read_examples(path, "tagging")
    twice = write(tmp_path / "y.jsonl", {"text": "ab", "entities": [[0, 2, "X"], [1, 2, "Y"]]})
    with pytest.raises(InputError, match="overlaps"):
        read_examples(twice, "tagging")


# ---- what training has not seen ----
def test_labels_that_training_has_not_seen_count_as_missed(pretrained, tmp_path, capsys):
    train = write(tmp_path / "t.jsonl", *({"text": "bom dia", "label": "x"}, {"text": "chove", "label": "y"}) * 4)
    held = write(tmp_path / "e.jsonl", {"text": "bom dia", "label": "x"}, {"text": "chove", "label": "z"})
    main(options(pretrained, "classification", tmp_path / "out", train=train, eval=held, epochs=12))
    assert "'z'" in capsys.readouterr().out
    kept = figures(tmp_path / "out")
    assert kept["summary"]["eval"]["accuracy"]["mean"] == 0.5 and kept["by_class"]["z"]["recall"] == 0
    assert fastbert.load(tmp_path / "out").task_model.settings.labels == ("x", "y")


def test_entities_that_training_has_not_seen_count_as_missed():
    true, guessed = [["B-PER", "O", "B-ORG"]], [["B-PER", "O", "O"]]
    labels = ["O", "B-PER", "I-PER"]
    assert scores.tagging_scores(true, guessed, labels)["recall"] == 0.5
    assert scores.by_entity(true, guessed, labels) == {
        "ORG": {"precision": 0, "recall": 0, "f1": 0, "support": 1},
        "PER": {"precision": 1, "recall": 1, "f1": 1, "support": 1},
    }


# ---- what is held out ----
def test_the_held_out_tenth_has_the_shares_of_the_classes():
    labels = ["a"] * 170 + ["b"] * 29 + ["c"]
    examples = [TextExample("", "", label=label) for label in labels]
    order = np.random.default_rng(0).permutation(200).tolist()
    held = stratified(examples, order, 20)
    assert Counter(labels[i] for i in held) == {"a": 17, "b": 3}
    numbers = [TextExample("", "", label=float(i)) for i in range(100)]
    held = sorted(stratified(numbers, np.random.default_rng(0).permutation(100).tolist(), 10))
    assert [i // 10 for i in held] == list(range(10))
    questions = [QuestionExample("", "", "", "", [("x", 0)] if i % 4 else []) for i in range(40)]
    held = stratified(questions, list(range(40)), 8)
    assert sum(not questions[i].answers for i in held) == 2
    assert len(stratified([TaggedExample("", ["a"], ["O"])] * 5, [3, 1, 0, 2, 4], 2)) == 2
