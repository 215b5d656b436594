"""A user's mistake is one line and exit code 2: commands that use a model, with bad models, texts and files."""

import json
import sys

import pytest
import torch

from fastbert import contrastive, evaluate, finetune, generate, predict, report
from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.tasks.model import TaskModel, TaskSettings
from fastbert.text import Tokenizer

COMMANDS = {
    "predict": (predict.main, predict.PredictOptions),
    "generate": (generate.main, generate.GenerateOptions),
    "finetune": (finetune.main, finetune.FinetuneOptions),
    "contrastive": (contrastive.main, contrastive.ContrastiveOptions),
    "report": (report.main, report.ReportOptions),
    "evaluate text": (evaluate.evaluate_text, evaluate.TextOptions),
    "evaluate human score": (evaluate.human_score, evaluate.ScoreOptions),
}
LONG = " ".join(["gato"] * 99)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of several kinds, and files that are and are not what the commands expect."""
    root = tmp_path_factory.mktemp("mistakes")
    tokenizer = Tokenizer.train(["o gato dorme na casa"], vocab_size=60, min_frequency=1)

    def model(name, task=None, labels=(), **config):
        torch.manual_seed(0)
        made = BertForPreTraining(
            BertConfig.preset("tiny", vocab_size=len(tokenizer), max_position_embeddings=32, **config)
        )
        (TaskModel(made, TaskSettings(task, labels)) if task else made).save_pretrained(root / name)
        tokenizer.save(root / name)

    model("plain")
    model("one-type", type_vocab_size=1)
    model("classes", "classification", ("a", "b"))
    model("classes-one-type", "classification", ("a", "b"), type_vocab_size=1)
    model("answers", "qa")
    (root / "nothing").mkdir()
    (root / "damaged").mkdir()
    (root / "damaged" / "config.json").write_text("{")
    (root / "texts.txt").write_text("o gato\na casa\n")
    (root / "empty.txt").write_text("")
    (root / "latin1.txt").write_bytes("não\n".encode("latin-1"))
    (root / "train.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": t[0]}) + "\n" for t in ("o gato", "a casa"))
    )
    (root / "pairs.jsonl").write_text(json.dumps({"text_a": "o", "text_b": "a", "label": 1}) + "\n")
    return root


SAME = [  # for each command that begins with a model
    (["{}/nowhere"], "nowhere"),
    (["{}/nothing"], "nothing"),
    (["{}/damaged"], "damaged"),
    (["{}/texts.txt"], "texts.txt"),
    (["{}/plain", "--no-such-option"], "--no-such-option"),
    (["{}/plain", "--device", "cuda:77"], "cuda:77"),
    (["{}/plain", "--device", "abacus"], "abacus"),
]
REST = {"predict": ["o [MASK]"], "generate": ["o"],
        "finetune": ["--task", "classification", "--train", "{}/train.jsonl"],
        "contrastive": ["--train", "{}/texts.txt", "--output", "{}/out"]}  # fmt: skip
MISTAKES = [
    *((name, [*arguments, *rest], named) for name, rest in REST.items() for arguments, named in SAME),
    ("predict", ["{}/plain", "sem máscara"], "[MASK]"),
    ("predict", ["{}/plain", f"[MASK] {LONG}"], "tokens"),
    ("predict", ["{}/plain", "o gato", "--next", LONG], "tokens"),
    ("predict", ["{}/one-type", "o gato", "--next", "a casa"], "type_vocab_size"),
    ("predict", ["{}/plain", "o [MASK]", "--top-k", "0"], "--top-k"),
    ("predict", ["{}/plain", "o [MASK]", "--pair", "x"], "--pair"),
    ("predict", ["{}/plain", "o [MASK]", "--max-answer-tokens", "9"], "--max-answer-tokens"),
    ("predict", ["{}/plain", "{}/latin1.txt"], "latin1.txt"),
    ("predict", ["{}/plain", "o [MASK]", "--output", "{}/texts.txt/x"], "texts.txt"),
    ("predict", ["{}/classes", "o gato", "--question", "?"], "--question"),
    ("predict", ["{}/classes-one-type", "o gato", "--pair", "a casa"], "type_vocab_size"),
    ("predict", ["{}/answers", "o gato"], "--question"),
    ("predict", ["{}/answers", "o gato", "--question", "?", "--max-answer-tokens", "0"], "--max-answer-tokens"),
    ("generate", ["{}/plain", LONG], "tokens"),
    ("generate", ["{}/plain", "--seed", str(2**63)], "seed"),
    ("generate", ["{}/plain", "--temperature", "-1"], "temperature"),
    ("generate", ["{}/plain", "--length", "0"], "length"),
    ("finetune", ["{}/plain", "--task", "poetry", "--train", "{}/train.jsonl"], "--task"),
    ("finetune", ["{}/plain", "--task", "qa", "--train", "{}/train.jsonl"], "train.jsonl"),
    ("finetune", ["{}/plain", "--task", "classification", "--train", "{}/nowhere.jsonl"], "nowhere.jsonl"),
    ("finetune", ["{}/plain", *REST["finetune"], "--seed", str(2**63)], "--seed"),
    ("finetune", ["{}/plain", *REST["finetune"], "--learning-rate", "nan"], "--learning-rate"),
    ("finetune", ["{}/plain", *REST["finetune"], "--max-answer-tokens", "0"], "--max-answer-tokens"),
    ("finetune", ["{}/plain", *REST["finetune"], "--output", "{}/plain"], "--output"),
    ("finetune", ["{}/one-type", "--task", "pairs", "--train", "{}/pairs.jsonl"], "pairs.jsonl"),
    ("contrastive", ["{}/plain", "--train", "{}/latin1.txt", "--output", "{}/out"], "latin1.txt"),
    ("contrastive", ["{}/plain", "--train", "{}/empty.txt", "--output", "{}/out"], "empty.txt"),
    ("contrastive", ["{}/plain", "--train", "{}/texts.txt", "--output", "{}/plain"], "--output"),
    ("contrastive", ["{}/plain", "--train", "{}/texts.txt", "--output", "{}/out", "--seed", "-1"], "--seed"),
    ("report", [], "no run"),
    ("predict", [], "MODEL"),
    ("generate", [], "MODEL"),
    ("finetune", [], "MODEL"),
    ("contrastive", [], "MODEL"),
    ("report", ["{}/nowhere"], "nowhere"),
    ("report", ["{}/plain"], "run.json"),
    ("evaluate text", ["--hyp", "{}/nowhere.txt"], "nowhere.txt"),
    ("evaluate text", ["--hyp", "{}/texts.txt", "--model", "{}/nowhere"], "nowhere"),
    ("evaluate text", ["--hyp", "{}/empty.txt", "--model", "{}/plain"], "empty.txt"),
    ("evaluate text", ["--hyp", "{}/texts.txt", "--ref", "{}/latin1.txt"], "latin1.txt"),
    ("evaluate human score", ["{}/nothing", "{}/texts.txt"], "key.json"),
    ("evaluate human score", ["{}/train.jsonl", "{}/texts.txt"], "train.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "named"), MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISTAKES)])
def test_a_mistake_is_one_line(folder, monkeypatch, capsys, name, arguments, named):
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    assert run(*COMMANDS[name], [a.replace("{}", str(folder)) for a in arguments], prog=name) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and named in printed, printed
    assert {path.name for path in folder.iterdir()} == before


def test_a_missing_package_is_named_with_its_extra(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    arguments = ["--hyp", str(folder / "texts.txt"), "--ref", str(folder / "texts.txt"), "--metrics", "bleu"]
    assert run(*COMMANDS["evaluate text"], arguments, prog="evaluate text") == 2
    assert "fastbert[metrics]" in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, 3, [None], ["a", 3]], ids=str)
@pytest.mark.parametrize("method", ["embed", "fill_mask", "score", "classify"])
def test_values_that_are_no_texts(folder, method, value):
    import fastbert

    bert = fastbert.load(folder / ("classes" if method == "classify" else "plain"))
    with pytest.raises(fastbert.InputError, match=r"text \d"):
        getattr(bert, method)(value)


def test_one_long_line_does_not_stop_a_file(folder, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text(f"o [MASK] dorme\n[MASK] {LONG}\na [MASK]\n")
    assert run(*COMMANDS["predict"], [str(folder / "plain"), str(tmp_path / "lines.txt"), "--json"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2 and "text 2" in printed.err
