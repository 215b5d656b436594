"""A file is there whole or not at all."""

import pytest
import torch

from fastbert.config import BertConfig
from fastbert.model import BertForPreTraining
from fastbert.system.atomic_write import written_whole
from fastbert.weights.huggingface import write_model


def test_a_failure_keeps_what_was_there_and_leaves_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    with written_whole(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as temporary:
        temporary.write_text("half of the sec")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_model_that_cannot_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch):
    config = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32)
    write_model(BertForPreTraining(config).state_dict(), config, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = BertForPreTraining(config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "config.json.tmp")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_model(other.state_dict(), config, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
