"""Tiny pretrained encoders, made once for all tests of tasks."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for finetuning_cases
from finetuning_cases import DATA, options

from fastbert.config import BertConfig
from fastbert.finetune import main
from fastbert.model import BertForPreTraining
from fastbert.text import Tokenizer


@pytest.fixture(scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def tuned(pretrained, tmp_path_factory):
    """Task → directory of a model that memorized its fixture; each is trained once."""
    folder = tmp_path_factory.mktemp("tuned")
    arch = {"classification": "modern", "pairs": "classic", "tagging": "roformer", "qa": "classic"}

    def of(task):
        if not (folder / task).exists():
            # tokens as questions and answers share are few: the small one takes its time
            epochs = {"qa": 120, "pairs": 80}.get(task, 40)
            main(options(pretrained, task, folder / task, arch[task], epochs=epochs))
        return folder / task

    return of
