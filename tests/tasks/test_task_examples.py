"""Files of labelled examples: every shape that is taken; one line with file, line and remedy for the rest."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from fastbert.config import BertConfig
from fastbert.finetune import FinetuneOptions, main
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.system.errors import InputError
from fastbert.tasks import scores
from fastbert.tasks.examples import FieldNames, Notes, looks_like_numbers, read_examples, word_spans
from fastbert.tasks.labels import class_weights, label_ids, label_names, tag_names
from fastbert.text import Tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tasks"


def write(folder, *rows, name="data.jsonl"):
    path = folder / name
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows),
        encoding="utf-8",
        errors="surrogateescape",  # so that a row can hold a byte that is not UTF-8
    )
    return str(path)


# ---- shapes ----
def test_texts_pairs_and_their_other_names(tmp_path):
    path = write(tmp_path, {"text": "a", "label": 1}, {"text": "b", "label": "x"}, {"sentence": "c", "label": True})
    assert [(e.text, e.pair, e.label) for e in read_examples(path, "classification")] == [
        ("a", None, "1"), ("b", None, "x"), ("c", None, "true"),
    ]  # fmt: skip
    path = write(tmp_path, {"text_a": "a", "text_b": "b", "label": 0}, {"text": "c", "text_pair": "d", "label": 1})
    assert [(e.text, e.pair) for e in read_examples(path, "classification")] == [("a", "b"), ("c", "d")]
    path = write(
        tmp_path, {"premissa": "a", "hipotese": "b", "nota": "3,5"}, {"premissa": "a", "hipotese": "b", "nota": 2}
    )
    fields = FieldNames("premissa", "hipotese", "nota")
    with pytest.raises(InputError, match="line 1: label '3,5'"):
        read_examples(path, "regression", fields=fields)


def test_csv_tsv_and_compressed_files(tmp_path):
    path = write(tmp_path, "text,label", '"uma, com vírgula",bom', "duas,mau", name="data.csv")
    assert [(e.text, e.label) for e in read_examples(path, "classification")] == [
        ("uma, com vírgula", "bom"), ("duas", "mau"),
    ]  # fmt: skip
    path = write(tmp_path, "tokens\ttags", "Ana mora aqui\tB-PER O O", name="data.tsv")
    assert read_examples(path, "tagging")[0].tags == ["B-PER", "O", "O"]
    path = write(tmp_path, "context,question,answer,answer_start", "o rio é largo,o quê?,o rio,0", name="qa.csv")
    assert read_examples(path, "qa")[0].answers == [("o rio", 0)]
    with gzip.open(tmp_path / "data.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"text": "é", "label": "x"}\n')
    assert read_examples(str(tmp_path / "data.jsonl.gz"), "classification")[0].text == "é"


@pytest.mark.parametrize(
    "answers",
    [
        {"text": "rio", "answer_start": 2},
        {"text": ["rio"], "answer_start": [2]},
        [{"text": "rio", "answer_start": 2}],
        [{"text": "rio", "start": 2}],
        {"text": ["rio"]},
    ],
)
def test_answers_in_every_layout(tmp_path, answers):
    path = write(tmp_path, {"context": "o rio", "question": "?", "answers": answers})
    (example,) = read_examples(path, "qa")
    assert example.answers == [("rio", 2)] and example.gold_texts == ["rio"]


@pytest.mark.parametrize("answers", [None, [], {"text": [], "answer_start": []}, {"text": "", "answer_start": None}])
def test_questions_without_an_answer(tmp_path, answers):
    path = write(tmp_path, {"context": "o rio", "question": "?", "answers": answers})
    assert read_examples(path, "qa")[0].answers == []


def test_squads_own_file(tmp_path):
    question = {"id": "7", "question": "?", "answers": [{"text": "rio", "answer_start": 2}]}
    nested = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "o rio", "qas": [question]}]}]}
    for indent in (None, 2):
        (tmp_path / "squad.json").write_text(json.dumps(nested, indent=indent))
        (example,) = read_examples(str(tmp_path / "squad.json"), "qa")
        assert (example.id, example.context, example.answers) == ("7", "o rio", [("rio", 2)])


def test_an_answer_elsewhere_than_it_says_is_found_and_told(tmp_path):
    record = {"context": "o rio e o rio largo", "question": "?", "answers": {"text": "rio", "answer_start": 9}}
    notes = Notes()
    (example,) = read_examples(write(tmp_path, record), "qa", notes=notes)
    assert example.answers == [("rio", 10)]
    (line,) = notes.lines()
    assert "nearest occurrence" in line and "data.jsonl: line 1" in line


def test_numbers_are_told_from_classes_by_their_decimal_points(tmp_path):
    def kind(*labels):
        return looks_like_numbers(write(tmp_path, *({"text": "a", "label": x} for x in labels)), FieldNames())

    assert kind(3.5, 2) and kind("3.5", "2")
    assert not kind(0, 1) and not kind("0", "1") and not kind("a", 1.5) and not kind(True, 1.0)


def test_words_of_running_text():
    text = "A d. Rita (42 anos) pagou R$ 3,50 ao sr. D'Ávila-Sá!"
    words = "A d . Rita ( 42 anos ) pagou R $ 3,50 ao sr . D'Ávila-Sá !".split()
    assert [text[a:b] for a, b in word_spans(text)] == words


# ---- habits of public data sets: understood, or named ----
HABITS = [
    ("QNLI", {"question": "q", "sentence": "s", "label": "entailment", "idx": 0}, ("q", "s", "entailment"), ["'idx'"]),
    ("QQP", {"question1": "a", "question2": "b", "label": 0}, ("a", "b", "0"), []),
    ("BoolQ", {"question": "a", "passage": "b", "label": True}, ("a", "b", "true"), []),
    ("SICK", {"sentence_A": "a", "sentence_B": "b", "label": 1}, ("a", "b", "1"), []),
    ("a tweet", {"tweet": "a", "class": 1}, ("a", None, "1"), []),
    ("targets", {"text": "a", "target": 1}, ("a", None, "1"), []),
    ("a title", {"title": "t", "text": "a", "label": 1}, ("a", None, "1"), ["'title'"]),
    ("pandas floats", {"text": "a", "label": 1.0}, ("a", None, "1"), []),
    ("two labels", {"text": "a", "label": "x", "score": 3}, ("a", None, "x"), ["'score'"]),
]


@pytest.mark.parametrize(("name", "record", "expected", "noted"), HABITS, ids=[h[0] for h in HABITS])
def test_fields_are_used_or_named(tmp_path, name, record, expected, noted):
    notes = Notes()
    (example,) = read_examples(write(tmp_path, record), "classification", notes=notes)
    assert (example.text, example.pair, example.label) == expected
    assert len(notes.lines()) == len(noted) and all(n in line for n, line in zip(noted, notes.lines(), strict=True))


@pytest.mark.parametrize(
    ("labels", "kept", "noted"),
    [
        ([0, 1, 2] * 20 + [-1], 60, "'-1'"),  # SNLI from Hugging Face
        (["e", "n", "c"] * 20 + ["-"], 60, "'-'"),  # SNLI's own files
        ([-1, 0, 1] * 5, 15, "'-1'"),  # sentiment: a class, which is said
        (["+", "-"] * 5, 10, None),
    ],
)
def test_missing_labels_are_left_out_and_classes_are_not(tmp_path, labels, kept, noted):
    notes = Notes()
    path = write(tmp_path, *({"text": "a", "label": label} for label in labels))
    assert len(read_examples(path, "classification", notes=notes)) == kept
    assert [noted in line for line in notes.lines()] == ([True] if noted else [])


def test_a_test_set_without_labels_is_refused(tmp_path):
    path = write(tmp_path, *[{"text": "a", "label": -1}] * 3)
    with pytest.raises(InputError, match=r"line 1: .*'-1'"):
        read_examples(path, "classification")


@pytest.mark.parametrize(
    ("name", "content", "tags"),
    [
        ("ner.conll", "-DOCSTART- -X- -X- O\n\nMaria NNP B-NP B-PER\nmora VBZ B-VP O\n\nEla PRP B-NP O\n",
         [["B-PER", "O"], ["O"]]),
        ("ner.bio", "Maria\tB-PER\n#\tO\n\n\nEla\tO", [["B-PER", "O"], ["O"]]),
        ("ner.txt", "Maria I-PER\nClara I-PER\n", [["B-PER", "I-PER"]]),
        ("pos.conllu", "# text = Vamos ao mar\n1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_\n"
         "2-3\tao\t_\t_\t_\t_\t_\t_\t_\t_\n"
         "2\ta\ta\tADP\t_\t_\t4\tcase\t_\t_\n", [["VERB", "ADP"]]),
    ],
)  # fmt: skip
def test_column_files(tmp_path, name, content, tags):
    (tmp_path / name).write_text(content, encoding="utf-8")
    examples = read_examples(str(tmp_path / name), "tagging")
    assert [e.tags for e in examples] == tags and examples[0].tokens[0] in ("Maria", "Vamos")


# ---- faults: the place, and the field or option ----
FAULTS = [
    ("classification", ['{"text": "a"'], "line 1"),
    ("classification", [{"text": "a", "label": "x"}, '{"text": "a" 1}'], r"line 2: .*character 14"),
    ("classification", [{"text": "é", "label": "x"}, '{"text": "\udce9", "label": "x"}'], r"line 2: byte 43"),
    ("classification", [{"text": "a", "label": "x"}, 1], "line 2"),
    ("classification", [{"texto": "a", "label": "x"}], r"line 1: .*'text'.*'texto', 'label'.*--text-field"),
    ("classification", [{"text": "a", "classe": "x"}], r"line 1: .*'label'.*--label-field"),
    ("classification", [{"text": "a", "label": 3.5}], r"line 1: label 3\.5 .*--task regression"),
    ("classification", [{"text": "a", "label": None}], "line 1: label None"),
    ("classification", [{"text": "a", "label": ["x", None]}], r"line 1: label None"),
    ("classification", [{"text": "a", "label": {"x": 1}}], r"line 1: label \{'x': 1\}"),
    ("classification", [{"text": "a", "label": ""}], "line 1: label ''"),
    ("classification", [{"text": 7, "label": "x"}], "line 1: field 'text' is 7"),
    ("classification", [{"text": ["a", "b"], "label": "x"}], "line 1: field 'text'"),
    ("classification", [{"text_a": "a", "label": "x"}], "line 1: has no field 'text_b'"),
    ("classification", ['{"text": "\\ud800", "label": "x"}'], "line 1: .*surrogate"),
    ("regression", [{"text": "a", "label": "muito"}], "line 1: label 'muito'"),
    ("regression", [{"text": "a", "label": "3,5"}], "line 1: label '3,5'"),
    ("regression", ['{"text": "a", "label": NaN}'], "line 1: label nan"),
    ("tagging", [{"tokens": ["a", "b"], "tags": ["B-PER", "O"]}, {"tokens": ["a", "b"], "tags": ["O", "I-PER"]}],
     "line 2: tag 2 is 'I-PER' after 'O'"),
    ("tagging", [{"tokens": ["a", "b"], "tags": ["B-LOC", "I-PER"]}], "line 1: tag 2 is 'I-PER' after 'B-LOC'"),
    ("tagging", [{"tokens": ["a", "b"], "tags": ["O"]}], "line 1: .*2 tokens and 1 tags"),
    ("tagging", [{"tokens": ["a"], "tags": [3]}], "line 1: tags"),
    ("tagging", [{"tokens": [], "tags": []}], "line 1: has no tokens"),
    ("qa", [{"context": "c", "question": "q"}], "line 1: has no field 'answers'"),
    ("qa", [{"question": "q", "answers": []}], "line 1: has no field 'context'"),
    ("qa", [{"context": "o rio", "question": "q", "answers": {"text": "mar", "answer_start": 2}}],
     "line 1: the answer 'mar'"),
    ("qa", [{"context": "o rio", "question": "q", "answers": {"text": "rio", "answer_start": "x"}}],
     "line 1: answer_start is 'x'"),
    ("qa", [{"context": "o rio", "question": "q", "answers": "rio"}], "line 1: answers is 'rio'"),
    ("qa", [{"context": "o rio", "question": "q", "answers": {"text": ["rio"], "answer_start": [1, 2]}}],
     "line 1: .*answer_start"),
    ("qa", [{"data": [{"paragraphs": [{"qas": [{"question": "q"}]}]}]}], "SQuAD"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "rows", "message"), FAULTS, ids=[f"{f[0]}-{i}" for i, f in enumerate(FAULTS)])
def test_faults_name_file_line_and_remedy(tmp_path, task, rows, message):
    path = write(tmp_path, *rows)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(path, task)
    assert str(caught.value).startswith(path) and "\n" not in str(caught.value)


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_examples(str(tmp_path / "none.jsonl"), "qa")
    with pytest.raises(InputError, match=r"empty\.jsonl"):
        read_examples(write(tmp_path, name="empty.jsonl"), "qa")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match=r"blank\.jsonl"):
        read_examples(str(tmp_path / "blank.jsonl"), "qa")
    with pytest.raises(InputError, match=r"data\.txt"):
        read_examples(write(tmp_path, "some text", name="data.txt"), "classification")
    with pytest.raises(InputError, match=r"bad\.csv: line 3: "):
        read_examples(write(tmp_path, "text,label", "a,b", "c", name="bad.csv"), "classification")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(["a b c d e f g"], vocab_size=40, min_frequency=1)
    BertForPreTraining(BertConfig.preset("tiny", vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save(folder)
    return str(folder)


def command(model, folder, train, *more, task="classification"):
    given = [model, "--task", task, "--train", train, "--output", str(folder / "out"), "--threads", "1", *more]
    return run(main, FinetuneOptions, given)


def test_the_command_prints_one_line_and_writes_nothing(model, tmp_path, capfd):
    train = write(tmp_path, {"text": "a b", "label": "x"}, {"text": "c", "label": "y"}, name="train.jsonl")
    several = write(tmp_path, {"text": "a", "label": ["x", "y"]}, {"text": "c", "label": []}, name="several.jsonl")
    ok = ("--eval", train)
    same = write(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "label": "x"}, name="same.jsonl")
    mixed = write(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "text_b": "c", "label": "y"}, name="mixed.jsonl")
    before = sorted(tmp_path.iterdir())
    for file, arguments, named in (
        (train, ("--label-smoothing", "1"), "--label-smoothing 1.0"),
        (train, ("--layer-decay", "0"), "--layer-decay 0.0"),
        (train, ("--freeze", "7", *ok), "--freeze 7"),
        (train, ("--threshold", "2"), "--threshold 2"),
        (several, ok, f"{train}: line 1"),
        (train, ("--class-weights", "q=2", *ok), "--class-weights q=2"),
        (train, ("--metric", "pearson", *ok), "--metric pearson"),
        (train, ("--metric", "f1", "--task", "tagging"), f"{train}: line 1"),
        (train, ("--epochs", "0"), "--epochs 0.0"),
        (train, ("--epochs", "inf"), "--epochs inf"),
        (train, ("--seed", str(2**63)), "--seed"),
        (train, ("--patience", "1", "--evaluations", "0"), "--patience"),
        (train, ("--device", "abacus", *ok), "--device abacus"),
        (train, ("--device", "cuda:77", *ok), "--device cuda:77"),
        (train, ("--task", "pairs"), "--task pairs"),
        (same, ok, f"{same}: line 1"),
        (mixed, ("--eval", mixed), f"{mixed}: line 2"),
    ):
        assert command(model, tmp_path, file, *arguments) == 2
        printed = capfd.readouterr()
        assert printed.err.startswith("error: ") and named in printed.err, printed.err
        assert len(printed.err.splitlines()) == 1 and sorted(tmp_path.iterdir()) == before


# ---- labels and figures ----
def test_labels_and_weights():
    assert label_names(["10", "9", "2"]) == ["2", "9", "10"]
    assert tag_names(["I-A", "B-B", "B-A"]) == ["O", "B-A", "I-A", "B-B", "I-B"]
    assert label_ids([("f", "b")], ["a", "b"]) == [1]
    assert class_weights(["balanced"], ["a", "b"], [30, 10]) == pytest.approx([2 / 3, 2.0])
    assert class_weights(["b=3"], ["a", "b"], [30, 10]) == [1.0, 3.0]
    assert class_weights([], ["a", "b"], [1, 1]) is None
    with pytest.raises(InputError, match="b=-1"):
        class_weights(["b=-1"], ["a", "b"], [1, 1])


def test_figures_equal_scikit_learns_and_scipys():
    metrics = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for classes in (2, 4):
        true, guessed = rng.integers(0, classes, (2, 200))
        found = scores.classification_scores(scores.confusion(true, guessed, classes))
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, guessed))
        assert found["macro_f1"] == pytest.approx(metrics.f1_score(true, guessed, average="macro"))
        assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(true, guessed))
        if classes == 2:
            assert found["f1"] == pytest.approx(metrics.f1_score(true, guessed))
    constant = scores.classification_scores(scores.confusion(np.array([0, 1]), np.array([1, 1]), 2))
    assert constant["mcc"] == 0.0
    true, guessed = rng.integers(0, 6, 100).astype(float), rng.normal(size=100).round(1)
    found = scores.regression_scores(true, guessed)
    assert found["pearson"] == pytest.approx(stats.pearsonr(true, guessed)[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(true, guessed)[0])
    assert scores.regression_scores(true, np.ones(100))["pearson"] == 0.0


def test_entities_are_counted_as_seqeval_counts_them():
    seqeval = pytest.importorskip("seqeval.metrics")
    true = [["B-A", "I-A", "O", "B-B"], ["O", "B-A"]]
    guessed = [["B-A", "O", "O", "B-B"], ["I-A", "B-A"]]
    found = scores.tagging_scores(true, guessed)
    assert found["f1"] == pytest.approx(seqeval.f1_score(true, guessed))
    assert found["token_accuracy"] == pytest.approx(4 / 6)


def test_answers_are_scored_by_squads_rules():
    found = scores.answer_scores(["the Rio.", "", "mar azul"], [["rio", "outro"], [], ["mar verde"]])
    assert found == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx((1 + 1 + 0.5) / 3)}
    assert scores.answer_scores(["a b", "c"], [["c"], ["c", "d", "e"]]) == {"exact_match": 0.5, "f1": 0.5}


def test_the_best_is_known():
    assert scores.better("mse", 1.0, 2.0) and not scores.better("accuracy", 1.0, 1.0) and scores.better("f1", 0.1, None)


# ---- real files, where they are ----
@pytest.mark.skipif(not SHARED.is_dir(), reason="the task files are not part of the repository")
@pytest.mark.parametrize(
    ("name", "task", "field"),
    [
        ("rotten_tomatoes/all", "classification", None), ("mrpc/train", "classification", None),
        ("cola/train", "classification", None), ("rte/dev", "classification", None),
        ("trec_qc/train", "classification", None), ("stsb/train", "regression", None),
        ("assin1/ptbr-train", "regression", "similarity"), ("assin1/ptbr-train", "classification", "entailment"),
        ("ner_lenerbr/train", "tagging", None), ("ner_wnut17/train", "tagging", None),
        ("faquad/train", "qa", None), ("faquad/dev", "qa", None),
    ],
)  # fmt: skip
def test_public_data_sets_are_taken_as_they_are(name, task, field):
    examples = read_examples(str(SHARED / f"{name}.jsonl"), task, fields=FieldNames(label=field))
    assert len(examples) > 50
