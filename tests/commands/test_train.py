"""The command as a person uses it: a whole run, stopping, resuming, and every kind of bad input."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fastbert
from support import SMALL, command, process, records, train, write_corpus

ROOT = Path(__file__).resolve().parents[2]

DIALOGUE = [
    "Bom dia, senhora Clara!",
    "Bom dia, como vai o seu filho?",
    "Vai bem, obrigada, entrou na escola.",
    "Que escola ele escolheu?",
    "A escola nova, perto do rio.",
    "Eu nunca passei por esse lado da cidade.",
    "Vale a pena, há um jardim com laranjeiras.",
    "Então levo as crianças no domingo.",
    "Domingo costuma chover nesta época.",
    "Nesse caso, esperamos pelo sol.",
]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One short run, with its output."""
    folder = tmp_path_factory.mktemp("run")
    corpus = write_corpus(folder / "corpus.txt")
    done = train("--data", corpus, "--output", folder / "out", "--steps", 60, "--evaluations", 3, *SMALL, cwd=folder)
    return folder / "out", done.stdout


def test_a_run_leaves_everything_behind(finished_run):
    run, printed = finished_run
    names = {p.name for p in run.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json",
        "run.json", "metrics.jsonl", "curves.png", "tensorboard", "checkpoints", "tokens",
    }  # fmt: skip
    assert not [n for n in names if n.endswith(".tmp")]
    assert (run / "model.safetensors").stat().st_mode == (run / "config.json").stat().st_mode
    assert list((run / "tensorboard").iterdir())
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((run / "run.json").read_text())
    assert facts["options"]["steps"] == 60 and facts["hardware"]["cpu"] and facts["result"]["steps"] == 60
    held = records(run, "heldout")
    assert held[-1]["loss"] < held[0]["loss"] and held[-1]["masked_tokens"] > 0
    assert "unseen documents" in printed and "8,192" in printed
    assert "fastbert.predict" in printed


def test_transformers_reads_the_run(finished_run):
    transformers = pytest.importorskip("transformers", reason="the peer that reads the run")
    run, _ = finished_run
    bert = fastbert.load(run)
    text = "o gato preto [MASK] na cama azul"
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    encoded = tokenizer(text, return_tensors="pt")
    assert encoded["input_ids"][0].tolist() == list(bert.tokenizer.encode(text).ids)
    assert tokenizer.mask_token_id == bert.tokenizer.mask_id == 4
    model = transformers.AutoModelForMaskedLM.from_pretrained(run).eval()
    with torch.no_grad():
        theirs = model(**encoded).logits
        ours = bert.model(encoded["input_ids"]).prediction_logits
    assert (theirs - ours).abs().max() <= 1e-4


def test_predict_command_and_fill_mask_agree(finished_run):
    run, _ = finished_run
    bert = fastbert.load(run)
    texts = ["o gato preto [MASK] na cama", "a [MASK] feliz come [MASK] com queijo"]
    one, two = bert.fill_mask(texts[0], top_k=3), bert.fill_mask(texts, top_k=3)[1]
    assert len(one) == 3 and one[0].keys() == {"score", "token", "token_str", "sequence"}
    assert one[0]["score"] >= one[1]["score"] and one[0]["token_str"] in one[0]["sequence"]
    assert len(two) == 2 and two[1][0]["sequence"].count("[MASK]") == 1
    options = ("fastbert.predict", run, "--top-k", "3")
    done = process(*options, "--json", input="\n".join(texts), cwd=run)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert lines[0]["masks"][0][0]["token"] == one[0]["token"]
    assert lines[0]["masks"][0][0]["score"] == pytest.approx(one[0]["score"], abs=1e-5)
    shown = command(*options, texts[0], cwd=run)
    assert one[0]["token_str"] in shown.stdout and "%" in shown.stdout


def test_predict_refuses_clearly(finished_run, tmp_path):
    run, _ = finished_run
    for arguments, expected in (
        ([run, "no mask here"], "no [MASK] in"),
        ([tmp_path / "nowhere", "a [MASK]"], "no such directory"),
        ([run, "a [MASK]", "--top-k", 0], "--top-k 0"),
        ([run, "[MASK] " + "gato " * 600], "shorten it"),
        ([run, "a [MASK]", "--next", "b"], "next-sentence head"),
    ):
        done = command("fastbert.predict", *arguments, code=2, cwd=tmp_path)
        assert expected in done.stderr, (done.stderr, expected)
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--objective", "mlm+nsp", "--dropout", "0.1"),
        ("--batch-ramp", "64:0.8", "--window", "4", "--mask-rate", "0.3:0.15"),
    ],
    ids=["modern", "classic-nsp", "schedules"],
)
def test_resume_is_bit_identical(tmp_path, extra):
    corpus = write_corpus(tmp_path / "corpus.txt")
    common = ("--data", corpus, "--steps", 24, "--evaluations", 2, *SMALL, *extra)
    train(*common, "--output", tmp_path / "whole", cwd=tmp_path)
    first = train(*common, "--output", tmp_path / "parts", "--stop-after", 12, cwd=tmp_path)
    assert "--resume" in first.stdout, first.stderr
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    train("--resume", "--output", tmp_path / "parts", cwd=tmp_path)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []
    steps = [record["step"] for record in records(tmp_path / "parts")]
    assert steps == sorted(steps)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    command = [sys.executable, "-m", "fastbert.train", "--data", str(corpus), "--output", "out", "--steps", "100000"]
    running = subprocess.Popen(
        [*command, *map(str, SMALL)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "out" / "metrics.jsonl"
    for _ in range(2400):
        if metrics.exists() and metrics.read_text():
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    printed, errors = running.communicate(timeout=240)
    assert running.returncode == 128 + signal.SIGINT, errors
    assert "everything is saved" in printed and f"--resume --output {tmp_path / 'out'}" in printed
    assert "Traceback" not in errors
    assert list((tmp_path / "out" / "checkpoints").glob("step-*"))
    bert = fastbert.load(tmp_path / "out")  # a stopped run can be used already
    assert bert.fill_mask("o gato [MASK]")


def test_options_of_a_run_cannot_change_on_resume(finished_run, tmp_path):
    run, _ = finished_run
    done = train("--resume", "--output", run, "--mask-rate", 0.2, code=2, cwd=tmp_path)
    assert "--mask-rate cannot change" in done.stderr


def test_dialogue_is_learned_by_heart(tmp_path):
    """Ten lines, mlm+nsp, no other option: every hidden word and every next-sentence answer right."""
    (tmp_path / "dialogue.txt").write_text("\n".join(DIALOGUE) + "\n", encoding="utf-8")
    done = train("--data", "dialogue.txt", "--objective", "mlm+nsp", "--output", "out", cwd=tmp_path)
    assert "memorized" in done.stdout
    bert = fastbert.load(tmp_path / "out")
    asked = wrong = 0
    for line in DIALOGUE:
        words = line.split()
        for place, word in enumerate(words):
            bare = word.strip(".,!?")
            hidden = " ".join([*words[:place], word.replace(bare, "[MASK]"), *words[place + 1 :]])
            asked += 1
            wrong += bert.fill_mask(hidden)[0]["token_str"] != bare
    assert (asked, wrong) == (sum(len(line.split()) for line in DIALOGUE), 0)
    for i, first in enumerate(DIALOGUE):
        for j, second in enumerate(DIALOGUE):
            if i != j:
                assert (bert.next_sentence(first, second) > 0.5) == (j == i + 1), (first, second)


# ---- bad input: one line, exit code 2, nothing left behind ----
def refused(tmp_path, *arguments, expected, output="out", **environment):
    done = train(*arguments, "--output", output, "--steps", 3, *SMALL, code=2, cwd=tmp_path, **environment)
    lines = [line for line in done.stderr.strip().splitlines() if "warn" not in line.lower()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in expected if isinstance(expected, tuple) else (expected,):
        assert part in lines[0], (part, lines[0])
    assert "Traceback" not in done.stderr
    return done


def test_bad_data_is_refused_and_leaves_nothing(tmp_path):
    good = write_corpus(tmp_path / "good.txt")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes("Olá, coração\n".encode("latin-1"))
    (tmp_path / "binary.txt").write_bytes(b"abc\x00def" * 10)
    (tmp_path / "rows.jsonl").write_text('{"texto": "a b"}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "a b"}\n{"text": \n')
    for data, extra, expected in (
        ("missing.txt", (), "missing.txt"),
        ("empty.txt", (), "empty.txt"),
        ("latin1.txt", (), ("latin1.txt", "byte 2", "UTF-8")),
        ("binary.txt", (), ("binary.txt", "byte 3")),
        ("rows.jsonl", ("--text-field", "text"), ("rows.jsonl", "'text'", "texto")),
        ("broken.jsonl", (), ("broken.jsonl", "2")),
    ):
        refused(tmp_path, "--data", data, *extra, expected=expected)
        assert not (tmp_path / "out").exists(), data
    refused(tmp_path, "--data", good, "--init", "nowhere", expected="nowhere")
    assert not (tmp_path / "out").exists()


def test_a_token_store_is_taken_as_it_is(tmp_path, finished_run):
    """No text is read and nothing is tokenized again: the text is gone."""
    from fastbert.text import Tokenizer
    from fastbert.tokenize import TokenizeOptions
    from fastbert.tokenize import main as tokenize

    run, _ = finished_run
    corpus = write_corpus(tmp_path / "corpus.txt")
    tokenize(TokenizeOptions(output=tmp_path / "store", data=(str(corpus),), tokenizer=run))
    corpus.unlink()
    arguments = ("--data", "store", "--evaluations", 1, *SMALL)
    train(*arguments, "--output", "out", "--steps", 4, "--stop-after", 2, cwd=tmp_path)
    train("--resume", "--output", "out", cwd=tmp_path)
    assert not (tmp_path / "out" / "tokens").exists()
    assert Tokenizer.load(tmp_path / "out").fingerprint() == Tokenizer.load(run).fingerprint()
    # the same text, tokenized by the run itself, trains alike
    write_corpus(corpus)
    train("--data", corpus, "--tokenizer", run, "--evaluations", 1, *SMALL, "--output", "same", "--steps", 4,
                 cwd=tmp_path)  # fmt: skip
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "same")]
    assert weights[0] == weights[1]

    other = tmp_path / "other"
    other.mkdir()
    (other / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", encoding="utf-8")
    done = train(*arguments, "--tokenizer", other, "--output", "refused", "--steps", 2, code=2, cwd=tmp_path)
    assert "another vocabulary" in done.stderr.splitlines()[-1], done.stderr


def test_own_heldout_text(tmp_path):
    """--eval-data is scored, and nothing of --data is kept back; the records tell the time of training alone."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    heldout = write_corpus(tmp_path / "heldout.txt", documents=5)
    done = train(
        *("--data", corpus, "--eval-data", heldout, "--eval-tokens", 64, "--output", tmp_path / "run"),
        *("--steps", 20, "--evaluations", 3, *SMALL),
        cwd=tmp_path,
    )
    assert "on unseen documents" in done.stdout and "of 5 documents" in done.stdout
    run = tmp_path / "run"
    first, second, last = records(run, "heldout")
    assert first["evaluation_s"] == 0.0 < second["evaluation_s"] < last["evaluation_s"] < last["elapsed_s"]
    assert (
        first["elapsed_s"] < second["elapsed_s"] <= last["elapsed_s"] - (last["evaluation_s"] - second["evaluation_s"])
    )
    from fastbert.data import TokenStore

    tokens = TokenStore.open(run / "eval_tokens").num_tokens
    # 64 tokens of it during the run, at the end all of it: 15 % of the tokens are asked for
    assert first["masked_tokens"] < 64 and last["masked_tokens"] == pytest.approx(0.15 * tokens, rel=0.35)


def test_an_empty_heldout_text_is_refused(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    done = train("--data", corpus, "--eval-data", "empty.txt", "--steps", 2, *SMALL, code=2, cwd=tmp_path)
    assert "empty.txt" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_bad_output_directories(tmp_path, finished_run):
    run, _ = finished_run
    corpus = write_corpus(tmp_path / "corpus.txt")
    refused(tmp_path, "--data", corpus, expected=("already has a run", "--resume"), output=run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    refused(tmp_path, "--data", corpus, expected="not an empty directory", output="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not touch"
    refused(tmp_path, "--data", corpus, expected="cannot be written", output=corpus / "below")
    refused(tmp_path, "--data", corpus, expected="cannot be written", output="/proc/fastbert")


def test_bad_options(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    for extra, expected in (
        (("--minutes", 1), "--minutes and --steps"),
        (("--objective", "mlm+nsp", "--arch", "modern"), "classic"),
        (("--mask-rate", 1.5), "--mask-rate 1.5"),
        (("--mask-rate", "0.3:x"), "--mask-rate"),
        (("--max-length", 4), "--max-length 4"),
        (("--max-length", 512), "--batch-tokens 256"),
        (("--batch-ramp", "100"), "--batch-ramp 100: FROM must divide --batch-tokens (256)"),
        (("--window", 8, "--arch", "roformer"), "--window 8"),
        (("--window", -8), "--window -8"),
        (("--preset", "huge"), "huge"),
        (("--no-such-option", 1), "--no-such-option"),
    ):
        # the later of two equal options counts, so each of these overrides the small settings
        done = train("--data", corpus, "--output", "out", "--steps", 3, *SMALL, *extra, code=2, cwd=tmp_path)
        assert expected in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_sequence_length_beyond_the_model(tmp_path, finished_run):
    run, _ = finished_run
    corpus = write_corpus(tmp_path / "corpus.txt")
    done = train(
        "--data", corpus, "--output", "out", "--init", run, "--max-length", 600, "--batch-tokens", 1200,
        code=2, cwd=tmp_path,
    )  # fmt: skip
    assert "--max-length 600" in done.stderr and "512 positions" in done.stderr
    assert not (tmp_path / "out").exists()
    done = train("--data", corpus, "--output", "out", "--init", run, "--arch", "classic", code=2, cwd=tmp_path)
    assert "are modern" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    train("--data", corpus, "--output", "out", "--steps", 20, "--stop-after", 4, *SMALL, cwd=tmp_path)
    weights = tmp_path / "out" / "checkpoints" / "step-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = train("--resume", "--output", "out", code=2, cwd=tmp_path)
    assert "step-4/model.safetensors" in done.stderr and "truncated" in done.stderr


def test_a_full_disk_is_said_in_one_line(tmp_path):
    """A file size limit stands in for a full disk: the same error code path, without a file system of our own."""
    corpus = write_corpus(tmp_path / "corpus.txt")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "from fastbert.system.cli import run;"
        "from fastbert.train import main, TrainOptions; sys.exit(run(main, TrainOptions))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--data", str(corpus), "--output", "out", "--steps", "4", *map(str, SMALL)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert "step 4 cannot be written (File too large)" in done.stderr and "start again" in done.stderr
    assert not (tmp_path / "out").exists()
