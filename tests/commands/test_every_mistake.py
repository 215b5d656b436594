"""Every command × the same list of mistakes: one line and exit code 2, never a traceback, nothing half-written.

A mistake changes the model, the file, the output directory or the options of a command line that would work. Where a
command has no such part, the mistake does not concern it and is skipped.
"""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastbert import (
    contrastive,
    embed,
    evaluate,
    export,
    finetune,
    generate,
    info,
    predict,
    report,
    roofline,
    tokenize,
    train,
)
from fastbert import tune as tuning
from fastbert.config import BertConfig
from fastbert.inspect import __main__ as inspect
from fastbert.model import BertForPreTraining
from fastbert.system.cli import run
from fastbert.text import Tokenizer

# command → how it runs, and a command line that works: M a model, F a file, O what it writes
COMMANDS = {
    "train": (train.main, train.TrainOptions, "--data F --output O --preset tiny --steps 1"),
    "predict": (predict.main, predict.PredictOptions, "M F --output O"),
    "finetune": (finetune.main, finetune.FinetuneOptions, "M --task classification --train F --output O"),
    "contrastive": (contrastive.main, contrastive.ContrastiveOptions, "M --train F --output O"),
    "embed": (embed.main, embed.EmbedOptions, "M F --output O.npy"),
    "inspect": (inspect.main, inspect.InspectOptions, "F --html O"),
    "generate": (generate.main, generate.GenerateOptions, "M o --length 2"),
    "export": (export.main, export.ExportOptions, "M O --output hidden"),
    "report": (report.main, report.ReportOptions, "M --output O"),
    "tokenize": (tokenize.main, tokenize.TokenizeOptions, "--data F --tokenizer M --output O"),
    "evaluate text": (evaluate.evaluate_text, evaluate.TextOptions, "--hyp F --ref F --model M"),
    "evaluate human make": (evaluate.human_make, evaluate.MakeOptions, "--system A=F --output O"),
    "evaluate human score": (evaluate.human_score, evaluate.ScoreOptions, "M F"),
    "info": (info.main, info.InfoOptions, ""),
    "roofline": (roofline.main, roofline.RooflineOptions, "--preset tiny"),
    "tune": (tuning.main, tuning.TuneOptions, "--output O"),
}


WORKS_ALONE = ("train", "info", "roofline", "tune")
SLOW = (("export", "nan"), ("export", "taken.txt"), ("train", "picture.png"))  # works, and takes seconds


def folder_of_mistakes(root: Path) -> None:
    """A model and files that work, and beside them those that do not."""
    tokenizer = Tokenizer.train(["o gato dorme na casa azul"], vocab_size=70, min_frequency=1)
    torch.manual_seed(0)
    config = BertConfig.preset("tiny", vocab_size=len(tokenizer), max_position_embeddings=32, num_hidden_layers=1)
    BertForPreTraining(config).save_pretrained(root / "model")
    tokenizer.save(root / "model")
    changes = {
        "not-json": lambda d: (d / "config.json").write_text("{"),
        "a-list": lambda d: (d / "config.json").write_text("[1]"),
        "no-weights": lambda d: (d / "model.safetensors").unlink(),
        "cut-weights": lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:500]),
        "other-weights": lambda d: save_file({"x": torch.zeros(3)}, d / "model.safetensors"),
        "no-config": lambda d: (d / "config.json").unlink(),
        "no-vocabulary": lambda d: [(d / name).unlink() for name in ("vocab.txt", "tokenizer.json")],
        "empty-vocabulary": lambda d: [(d / "tokenizer.json").unlink(), (d / "vocab.txt").write_text("")],
    }
    for name, value in {"text-width": '"wide"', "negative-width": "-4", "odd-heads": "37", "huge": "10**30"}.items():
        field = {"odd-heads": "num_attention_heads"}.get(name, "hidden_size")
        changes[name] = lambda d, field=field, value=value: (d / "config.json").write_text(
            json.dumps(json.loads((d / "config.json").read_text()) | {field: eval(value)})
        )
    for name, change in changes.items():
        shutil.copytree(root / "model", root / name)
        change(root / name)
    (root / "nothing").mkdir()
    for name, fields in (("gap", {"0": "a", "2": "b"}), ("twice", {"0": "a", "1": "a"})):
        shutil.copytree(root / "model", root / f"labels-{name}")
        config = json.loads((root / "model" / "config.json").read_text())
        config |= {"architectures": ["BertForSequenceClassification"], "id2label": fields}
        (root / f"labels-{name}" / "config.json").write_text(json.dumps(config))
    # a tensor of another shape, and numbers that are none
    for name, value in (("other-shape", torch.zeros(2, 3)), ("nan", None)):
        shutil.copytree(root / "model", root / name)
        state = load_file(root / name / "model.safetensors")
        key = next(key for key in state if key.endswith("word_embeddings.weight"))
        state[key] = torch.full_like(state[key], float("nan")) if value is None else value
        save_file(state, root / name / "model.safetensors")
    rows = [{"text": t, "label": t[0]} for t in ("o gato dorme", "a casa azul")] * 4
    files = {
        "good.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "empty.txt": "", "empty.jsonl": "", "blank.txt": "\n \n\n", "cut.jsonl": json.dumps(rows[0]) + '\n{"text": "o',
        "numbers.jsonl": "1\n2\n", "no-text.jsonl": '{"a": 1}\n', "null.jsonl": '{"text": null, "label": null}\n' * 2,
        "rows.csv": "text,label\na\nb,c,d\n", "header.csv": "text,label\n", "quote.csv": 'text,label\n"a,b\n',
        "nan.csv": "text,label\na,nan\nb,1\n", "array.csv": "text,label\na,[0 1]\nb,[1 0]\n",
        "two-widths.jsonl": "".join(json.dumps({"text": "a", "label": [0, 1, 1][:n]}) + "\n" for n in (2, 1, 3)),
        "inference.jsonl": '{"premise": "a", "hypothesis": "b", "label": 0}\n' * 2,
        "nested.jsonl": '{"text": ' + "[" * 5000 + "\n", "picture.png": "\x89PNG\r\n", "text.parquet": "no parquet",
        "text.txt.gz": "not compressed", "taken.txt": "a b\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "latin1.txt").write_bytes("não\n".encode("latin-1"))
    (root / "utf16.txt").write_text("o gato\n", encoding="utf-16")
    (root / "nul.jsonl").write_bytes(b'{"text": "a\x00"}\n\x00\x00\n')


MODELS = [
    "nowhere", "nothing", "good.jsonl", "not-json", "a-list", "no-weights", "cut-weights", "other-weights", "no-config",
    "no-vocabulary", "empty-vocabulary", "text-width", "negative-width", "odd-heads", "huge", "other-shape", "nan",
    "labels-gap", "labels-twice",
]  # fmt: skip
FILES = [
    "nowhere.jsonl", "nothing", "empty.txt", "empty.jsonl", "blank.txt", "cut.jsonl", "numbers.jsonl", "no-text.jsonl",
    "null.jsonl", "rows.csv", "header.csv", "quote.csv", "nested.jsonl", "picture.png", "text.parquet", "text.txt.gz",
    "latin1.txt", "utf16.txt", "nul.jsonl", "nan.csv", "array.csv", "two-widths.jsonl", "inference.jsonl",
]  # fmt: skip
OUTPUTS = ["nothing", "taken.txt", "model", "taken.txt/out"]
OPTIONS = [
    ["--no-such-option"], ["--seed", str(2**63)], ["--seed", "-1"], ["--seed", "x"], ["--device", "cuda:77"],
    ["--device", "abacus"], ["--threads", "0"], ["--threads", "-3"], ["--max-length", "0"], ["--max-length", "x"],
    ["--learning-rate", "nan"], ["--learning-rate", "-1"], ["--epochs", "0"], ["--batch-size", "0"], ["--steps", "0"],
    ["--temperature", "0"], ["--top-k", "0"], ["--length", "-1"], ["--points", "99"], ["--tokens", "0"],
    ["--hidden-size", "0"], ["--mask-fraction", "2"], ["--vocab-size", "0"], ["--language", "xx"], ["--seed"],
    ["--label-names", "x", "y"], ["--max-answer-tokens", "0"], ["--dimensions", "0"], ["--min-score", "nan"],
    ["--output"], ["--seed", "1e400"], ["unexpected", "words"],
]  # fmt: skip
MISTAKES = [
    *(("M", name) for name in MODELS), *(("F", name) for name in FILES), *(("O", name) for name in OUTPUTS),
    *(("options", options) for options in OPTIONS), ("nothing at all", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("every")
    folder_of_mistakes(root)
    threads = torch.get_num_threads()
    yield root
    torch.set_num_threads(threads)


def arguments_of(base: str, part: str, value, root: Path) -> list[str] | None:
    """The command line with a mistake; None where it has no such part."""
    if part == "nothing at all":
        return []
    words = base.split()
    if part != "options" and not any(word in (part, f"A={part}", f"{part}.npy") for word in words):
        return None
    paths = {"M": "model", "F": "good.jsonl", "O": "out"}
    if part in paths:
        paths[part] = value
    words = [word.replace("A=F", "A=" + str(root / paths["F"])) for word in words]
    filled = []
    for word in words:
        name = word.removesuffix(".npy")
        filled.append(str(root / paths[name]) + word.removeprefix(name) if name in paths else word)
    return filled + (value if part == "options" else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMMANDS)
def test_no_mistake_gives_a_traceback(root, monkeypatch, name):
    monkeypatch.chdir(root)
    main, options, base = COMMANDS[name]
    before = sorted(path.name for path in root.iterdir())
    wrong, refused = [], 0
    for part, value in MISTAKES:
        arguments = arguments_of(base, part, value, root)
        if arguments is None or (part == "nothing at all" and name in WORKS_ALONE) or (name, value) in SLOW:
            continue
        printed, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            try:
                code = run(main, options, arguments, prog=name)
            except Exception as error:  # what a user would see as a traceback
                code = f"{type(error).__name__}: {error}"[:200]
        lines = [line for line in errors.getvalue().splitlines() if not line.startswith("warning: ")]
        if code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
            refused += 1
        elif code != 0:
            wrong.append((part, value, code, lines[:3]))
        for path in root.iterdir():
            if path.name not in before:
                if code != 0:
                    wrong.append((part, value, "left behind", path.name))
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not wrong, "\n".join(map(str, wrong))
    assert refused >= 25


def test_the_list_is_long():
    assert len(COMMANDS) >= 12 and len(MISTAKES) >= 25
