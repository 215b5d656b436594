"""A default run read by stock transformers: nothing in it is missing or of another vocabulary."""

import logging

import pytest

from fastbert.text import Tokenizer
from support import train, write_corpus

transformers = pytest.importorskip("transformers")
QUICK = "--steps 2 --preset tiny --max-length 32 --batch-tokens 256 --evaluations 0 --threads 1".split()


@pytest.mark.parametrize("arch", ["modern", "classic"])
def test_ids_and_lengths_are_those_of_the_run(tmp_path, caplog, arch):
    write_corpus(tmp_path / "corpus.txt")
    train("--data", "corpus.txt", "--output", "run", "--arch", arch, *QUICK, cwd=tmp_path)
    transformers.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        config = transformers.AutoConfig.from_pretrained(tmp_path / "run")
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    assert not [r.message for r in caplog.records if "token" in r.message or "vocab" in r.message]
    ours = Tokenizer.load(tmp_path / "run")
    for name, expected in (("bos", ours.cls_id), ("cls", ours.cls_id), ("eos", ours.sep_id), ("sep", ours.sep_id)):
        found = getattr(config, f"{name}_token_id", None)
        assert found == (expected if arch == "modern" else None), name
    assert config.pad_token_id == ours.pad_id
    assert tokenizer.model_max_length == config.max_position_embeddings == 512
    assert len(tokenizer("gato " * 900, truncation=True)["input_ids"]) == 512
