"""--help shows the options of train in sections; a plan settles all of them once."""

from dataclasses import FrozenInstanceError, fields, replace
from types import SimpleNamespace

import pytest
import torch

from fastbert.distributed.world import World
from fastbert.optim.schedules import DEFAULT_LEARNING_RATE, BatchRamp, RateSchedule
from fastbert.system.cli import in_sections
from fastbert.text import Tokenizer
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.new_model import Architecture
from fastbert.training.options import TrainOptions
from fastbert.training.plan import DEFAULT_MINUTES, MEMORIZATION_STEPS, TINY_CORPUS_TOKENS, TrainingPlan, make_plan
from fastbert.training.prepare_data import TrainingText

TOKENIZER = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bom", "dia"])


def test_every_option_is_in_a_section_of_the_help():
    sections = fields(in_sections(TrainOptions))
    assert [section.name for section in sections] == list(TrainOptions.help_sections)
    listed = [option.name for section in sections for option in fields(section.type)]
    assert listed == [option.name for option in fields(TrainOptions)]


def plan(num_tokens=10**6, unseen=True, memorization=None, ranks=1, **changes) -> TrainingPlan:
    options = replace(TrainOptions(), **changes)
    store = SimpleNamespace(num_tokens=num_tokens, manifest=SimpleNamespace(files=[]))
    text = TrainingText(TOKENIZER, store)
    evaluation = EvaluationText(None, store, None, unseen, "", memorization)
    return make_plan(options, Architecture.of(options), text, evaluation, torch.device("cpu"), World(size=ranks))


def test_defaults_follow_text_device_and_objective():
    usual, tiny = plan(), plan(num_tokens=TINY_CORPUS_TOKENS - 1)
    assert (usual.preset, usual.arch, usual.batch_tokens, usual.threads) == ("mini", "modern", 2048, None)
    assert (tiny.preset, tiny.threads) == ("tiny", 1)
    assert plan(objective="mlm+nsp").arch == "classic" and plan(max_length=4096).batch_tokens == 4096
    assert (usual.minutes, usual.steps) == (DEFAULT_MINUTES, None) and plan(steps=7).minutes is None
    assert usual.learning_rate is None and usual.config.vocab_size == len(TOKENIZER)
    with pytest.raises(FrozenInstanceError):
        usual.seed = 1


def test_strings_are_parsed():
    settled = plan(mask_rate="0.3:0.15", batch_ramp="512:0.3", micro_batch_tokens=128, precision="bf16", dropout=0.1)
    assert settled.mask_rate == RateSchedule(0.3, 0.15) and settled.batch_ramp == BatchRamp(512, 4, 0.3)
    assert settled.micro_batches == 4 and settled.pass_tokens == 128 and settled.dtype == torch.bfloat16
    assert settled.config.hidden_dropout_prob == 0.1
    two = plan(batch_ramp="512:0.3", micro_batch_tokens=128, ranks=2)
    assert two.micro_batches == 2 and two.pass_tokens == 128 and two.mode == "ddp"


def test_a_text_to_memorize_has_fixed_hyperparameters_and_its_own_length():
    settled = plan(unseen=False, memorization=object())
    assert settled.steps == MEMORIZATION_STEPS and settled.minutes is None and settled.stop_when_memorized
    assert settled.learning_rate == DEFAULT_LEARNING_RATE and settled.weight_decay is not None
    given = plan(unseen=False, memorization=object(), steps=5, learning_rate=0.5)
    assert given.steps == 5 and not given.stop_when_memorized and given.learning_rate == 0.5
