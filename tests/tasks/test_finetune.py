"""Fine-tuning and prediction as a person uses them: every task memorizes twenty lines, and what the output holds."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from finetuning_cases import DATA, FILES, figures, options

import fastbert
from fastbert.finetune import FinetuneOptions, main
from fastbert.predict import PredictOptions
from fastbert.predict import main as predict
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.tasks.examples import read_examples
from fastbert.tasks.model import TaskSettings

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- memorization ----
@pytest.mark.parametrize(
    ("task", "measure", "least"),
    [
        ("classification", "accuracy", 1.0),
        ("pairs", "pearson", 0.95),
        ("tagging", "f1", 1.0),
        ("qa", "exact_match", 0.9),
    ],
)
def test_twenty_lines_are_memorized(tuned, task, measure, least):
    found = figures(tuned(task))
    assert found["summary"]["eval"][measure]["mean"] >= least
    names = {path.name for path in tuned(task).iterdir()}
    assert names == {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "finetune.json",
        "predictions.jsonl", "options.toml", "README.md",
    }  # fmt: skip


def test_classes_of_texts(tuned, capsys):
    bert = fastbert.load(tuned("classification"))
    one = bert.classify("Que filme lindo, saí do cinema cantando.")
    assert one["label"] == "good" and one["score"] == max(one["scores"].values())
    assert sum(one["scores"].values()) == pytest.approx(1.0)
    several = bert.classify(["Dull, slow and far too long.", "Que filme lindo, saí do cinema cantando."])
    assert [answer["label"] for answer in several] == ["bad", "good"]
    assert several[1]["scores"]["good"] == pytest.approx(one["scores"]["good"], abs=1e-5)
    assert bert.classify([]) == []
    capsys.readouterr()
    predict(PredictOptions(str(tuned("classification")), ["Dull, slow and far too long."]))
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == "Dull, slow and far too long." and second.split()[1] == "bad"


def test_stock_transformers_says_the_same(tuned):
    transformers = pytest.importorskip("transformers")
    for task, name in (
        ("classification", "AutoModelForSequenceClassification"),
        ("pairs", "AutoModelForSequenceClassification"),
        ("tagging", "AutoModelForTokenClassification"),
    ):
        directory = tuned(task)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        peer = getattr(transformers, name).from_pretrained(directory).eval()
        bert = fastbert.load(directory)
        examples = read_examples(str(DATA / FILES[task]), bert.task_model.settings.task)
        for example in examples[:6]:
            if task == "tagging":
                encoded = tokenizer(example.tokens, is_split_into_words=True, return_tensors="pt")
                with torch.no_grad():
                    guesses = peer(**encoded).logits[0].argmax(-1).tolist()
                words = encoded.word_ids()
                firsts = [i for i, w in enumerate(words) if w is not None and w != words[i - 1]]
                said = [peer.config.id2label[guesses[i]] for i in firsts]
                assert said == example.tags
                continue
            encoded = tokenizer(*[t for t in (example.text, example.pair) if t], return_tensors="pt")
            with torch.no_grad():
                logits = peer(**encoded).logits[0]
            mine = bert.classify(example.text, example.pair)
            if task == "pairs":
                assert mine == pytest.approx(logits.item(), abs=1e-4)
            else:
                probabilities = logits.softmax(-1)
                assert mine["scores"] == pytest.approx(
                    {peer.config.id2label[i]: p.item() for i, p in enumerate(probabilities)}, abs=1e-4
                )


def test_numbers_and_similarity_of_pairs(tuned):
    bert = fastbert.load(tuned("pairs"))
    alike = bert.similarity("Chove muito em Recife hoje.", "Hoje chove bastante em Recife.")
    other = bert.similarity("The train is fast.", "Bananas are yellow.")
    assert alike > 4 and other < 1  # on the scale of the labels
    assert bert.similarity(["The train is fast."], ["Bananas are yellow."]) == [pytest.approx(other, abs=1e-5)]
    with pytest.raises(InputError, match="fine-tuned on pairs of texts"):
        bert.classify("one text")
    with pytest.raises(InputError, match="2 first and 1 second"):
        bert.similarity(["a", "b"], ["c"])


def test_similarity_without_a_head_is_the_cosine(pretrained):
    bert = fastbert.load(pretrained / "classic")
    same, other = bert.similarity(["um gato", "um gato"], ["um gato", "the sea is calm"])
    assert same == pytest.approx(1.0, abs=1e-5) and other < same
    vectors = bert.embed(["um gato", "the sea is calm"])
    assert other == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    with pytest.raises(InputError, match=r"no head for classification.*fastbert\.finetune"):
        bert.classify("um gato")


def test_entities_with_their_characters(tuned, tmp_path):
    bert = fastbert.load(tuned("tagging"))
    text = "Clara Nunes mora em Recife."
    found = bert.tag(text)
    assert [(e["entity"], e["text"]) for e in found] == [("PER", "Clara Nunes"), ("LOC", "Recife")]
    assert all(text[e["start"] : e["end"]] == e["text"] and 0.5 < e["score"] <= 1 for e in found)
    predict(PredictOptions(str(tuned("tagging")), [str(DATA / "entities.jsonl")], output=str(tmp_path / "out.jsonl")))
    rows = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["tags"] for row in rows] == [e.tags for e in read_examples(str(DATA / "entities.jsonl"), "tagging")]


def test_answers_with_their_characters(tuned, tmp_path, capsys):
    bert = fastbert.load(tuned("qa"))
    context = json.loads((DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()[0])["context"]
    best = bert.answer("Quando a ponte foi inaugurada?", context)
    assert best["answer"] == "1932" == context[best["start"] : best["end"]]
    assert bert.answer("De que cor é a ponte?", context)["answer"] == ""
    three = bert.answer(["Quando a ponte foi inaugurada?"] * 2, context, top_k=3)
    assert len(three) == 2 and three[0][0]["answer"] == "1932"
    assert three[0][0]["score"] >= three[0][1]["score"] >= three[0][2]["score"]
    spans = sorted((answer["start"], answer["end"]) for answer in three[0])
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "answers do not overlap"
    (tmp_path / "context.txt").write_text(context, encoding="utf-8")
    predict(
        PredictOptions(str(tuned("qa")), [str(tmp_path / "context.txt")], question="Quando a ponte foi inaugurada?")
    )
    assert "1932" in capsys.readouterr().out
    with pytest.raises(InputError, match="fine-tuned for qa, not classification"):
        bert.classify("text")


def test_predictions_and_confusion_are_written(tuned):
    found = figures(tuned("classification"))
    assert found["confusion"] == [[10, 0], [0, 10]]
    rows = (tuned("classification") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["predicted"] for row in rows] == [
        e.label for e in read_examples(str(DATA / "sentiment.jsonl"), "classification")
    ]


# ---- options ----
def test_seeds_best_checkpoint_and_test_file(pretrained, tmp_path, capsys):
    file = str(DATA / "sentiment.jsonl")
    main(options(pretrained, "classification", tmp_path / "out", epochs=4, seeds=3, evaluations=1, test=file))
    found = figures(tmp_path / "out")
    values = [row["eval"]["accuracy"] for row in found["seeds"]]
    assert found["summary"]["eval"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert found["summary"]["eval"]["accuracy"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    for row in found["seeds"]:  # the final figures are those of the best evaluation on the way
        assert row["eval"]["accuracy"] == pytest.approx(max(h["accuracy"] for h in row["history"]))
        assert row["test"] == row["eval"]
    printed = capsys.readouterr().out
    assert "mean ± deviation of 3 seeds" in printed and "true class (row)" in printed


def test_the_same_seed_gives_the_same_model(pretrained, tmp_path):
    for name in "ab":
        main(options(pretrained, "classification", tmp_path / name, epochs=2, dropout=0.1))
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert same[0] == same[1]
    main(options(pretrained, "classification", tmp_path / "c", epochs=2, dropout=0.1, seed=1))
    assert (tmp_path / "c" / "model.safetensors").read_bytes() != same[0]


def test_evaluations_in_bf16_see_the_weights_as_they_are(pretrained, tmp_path):
    """Kernels keep bf16 images of weights: old ones, if the optimizer writes without their knowing."""
    main(options(pretrained, "pairs", tmp_path / "out", epochs=20, precision="bf16", evaluations=1))
    (row,) = figures(tmp_path / "out")["seeds"]
    assert row["best"] == pytest.approx(row["eval"]["pearson"], abs=0.02) and row["best"] > 0.5


def test_early_stopping(pretrained, tmp_path):
    # nothing changes at this rate, hence no evaluation is better than the first
    main(options(pretrained, "classification", tmp_path / "out", learning_rate=1e-12, evaluations=1, patience=2))
    (row,) = figures(tmp_path / "out")["seeds"]
    assert row["stopped_early"] and len(row["history"]) == 3 and row["best_step"] == 3


def test_without_eval_a_tenth_is_held_out(pretrained, tmp_path):
    main(options(pretrained, "classification", tmp_path / "out", epochs=1, eval=None))
    assert figures(tmp_path / "out")["examples"] == {"train": 18, "eval": 2}


def test_balanced_class_weights_find_the_rare_class(pretrained, tmp_path):
    rows = (DATA / "sentiment.jsonl").read_text(encoding="utf-8").splitlines()
    good = [row for row in rows if '"good"' in row]
    bad = [row for row in rows if '"bad"' in row]
    (tmp_path / "rare.jsonl").write_text("\n".join([*good * 3, bad[0]]), encoding="utf-8")
    (tmp_path / "eval.jsonl").write_text(bad[0], encoding="utf-8")
    found = {}
    for name, weights in (("plain", []), ("balanced", ["balanced"])):
        files = {"train": str(tmp_path / "rare.jsonl"), "eval": str(tmp_path / "eval.jsonl")}
        given = options(pretrained, "classification", tmp_path / name, epochs=3, class_weights=weights)
        main(FinetuneOptions(**(vars(given) | files)))
        row = json.loads((tmp_path / name / "predictions.jsonl").read_text(encoding="utf-8"))
        found[name] = row["score"] if row["predicted"] == "bad" else 1 - row["score"]
    assert found["balanced"] > found["plain"] + 0.1


def test_a_failure_leaves_nothing_behind(pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a", "label": "x"}\n{"text": "b"\n', encoding="utf-8")
    assert (
        run(main, FinetuneOptions, [str(pretrained / "classic"), "--task", "classification", "--train", str(bad)]) == 2
    )
    assert {p.name for p in tmp_path.iterdir()} == {"bad.jsonl"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match="not an empty directory"):
        main(options(pretrained, "classification", tmp_path / "full"))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "dear"


def test_long_sentences_are_tagged_to_the_last_word(tuned):
    bert = fastbert.load(tuned("tagging"))
    text = " ".join(["O gato dorme na cama ."] * 60) + " Clara Nunes mora em Recife ."
    assert len(bert.tokenizer.encode(text).ids) > 2 * bert.model.config.max_position_embeddings
    assert [(e["entity"], e["text"]) for e in bert.tag(text)][-2:] == [("PER", "Clara Nunes"), ("LOC", "Recife")]


def test_a_model_with_a_head_can_be_tuned_again(tuned, tmp_path):
    shutil.copytree(tuned("classification"), tmp_path / "model")
    main(options(tmp_path, "tagging", tmp_path / "again", "model", epochs=1))
    assert fastbert.load(tmp_path / "again").task_model.settings.task == "tagging"


def test_settings_survive(tuned):
    assert fastbert.load(tuned("qa")).task_model.settings == TaskSettings("qa", max_length=128, unanswerable=True)
