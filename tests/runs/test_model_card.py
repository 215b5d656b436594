"""README.md of runs and fine-tuned models: Hugging Face's format, the run's own figures, never over an edited one."""

import json

import pytest

from fastbert.runs.model_card import NAME, embedding_card, finetuned_card, run_card, write_card
from support import SMALL, command, write_corpus

DESCRIPTION = {
    "used_options": {
        "data": ["bundled:pt", "/home/someone/secret/livro.txt"],
        "objective": "mlm",
        "arch": "modern",
        "heldout_fraction": 0.05,
    },
    "model": {"num_hidden_layers": 4, "vocab_size": 8192, "max_position_embeddings": 512},
    "result": {"loss": 3.25, "perplexity": 25.79, "accuracy": 0.34, "steps": 100, "tokens": 200_000},
    "hardware": {"cpu": "a | b"},
    "versions": {"torch": "2"},
}


def card_of(text):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    return huggingface_hub.ModelCard(text)


def figures(card):
    return {result.metric_type: result.metric_value for result in card.data.eval_results}


def test_a_card_of_a_run_is_read_by_huggingface_hub():
    text = run_card('a "quoted": name', DESCRIPTION, 5_000_000)
    card = card_of(text)
    data = card.data
    assert data.library_name == "transformers" and data.pipeline_tag == "fill-mask" and data.language == ["pt"]
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "loss": 3.25,
        "perplexity": 25.79,
        "accuracy": 0.34,
    }
    assert data.model_name == 'a "quoted": name'
    assert (
        "modern" in data.tags
        and "livro.txt" in text
        and "someone" not in text
        and "5,000,000" in text
        and "## Limits" in text
    )


def test_a_card_that_a_person_edited_is_left_alone(tmp_path):
    assert write_card(tmp_path, "one") and write_card(tmp_path, "two")
    path = tmp_path / NAME
    assert path.read_text().startswith("two\n")
    path.write_text(path.read_text().replace("two", "mine"))
    assert not write_card(tmp_path, "three") and path.read_text().startswith("mine")
    path.write_text("written by hand")
    assert not write_card(tmp_path, "three") and path.read_text() == "written by hand"


def test_runs_and_fine_tuned_models_have_one(tmp_path):
    write_corpus(tmp_path / "a.txt", 20)
    command("fastbert.train", "--data", "a.txt", "--output", "run", "--steps", 2, *SMALL, cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "run.json").read_text())["result"]
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert samples and samples[0]["examples"][0]["guesses"]
    card = card_of((tmp_path / "run" / NAME).read_text())
    assert figures(card)["loss"] == pytest.approx(result["loss"], rel=1e-4)
    rows = [{"text": f"o gato {i}", "label": "bom" if i % 2 else "ruim"} for i in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--task", "classification", "--train", "t.jsonl", "--epochs", 1, "--threads", 1, "--output", "tuned")
    command("fastbert.finetune", "run", *arguments, cwd=tmp_path)
    record = json.loads((tmp_path / "tuned" / "finetune.json").read_text())
    card = card_of((tmp_path / "tuned" / NAME).read_text())
    assert card.data.pipeline_tag == "text-classification" and card.data.model_name == "tuned"
    accuracy = record["summary"]["eval"]["accuracy"]["mean"]
    assert figures(card)["accuracy"] == pytest.approx(accuracy, abs=1e-5)
    assert "bom, ruim" in card.text
    assert (tmp_path / "tuned" / NAME).read_text().startswith(finetuned_card("tuned", record))
    command("fastbert.contrastive", "run", "--train", "a.txt", "--output", "emb", cwd=tmp_path)
    assert card_of((tmp_path / "emb" / NAME).read_text()).data.library_name == "sentence-transformers"


def test_usage_of_each_kind_names_a_method_that_is_there():
    import re

    from fastbert.bert import Bert

    options = {"pooling": "mean", "epochs": 1, "batch_size": 2, "learning_rate": 1, "temperature": 1, "seed": 0}
    cards = [run_card("a", DESCRIPTION, 1), embedding_card("a", "m", "t", options, 128)]
    called = {name for card in cards for name in re.findall(r"bert\.(\w+)\(|load\(\"DIRECTORY\"\)\.(\w+)\(", card)}
    assert called and all(hasattr(Bert, name) or name == "load" for pair in called for name in pair if name)
