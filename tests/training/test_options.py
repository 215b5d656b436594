"""--help shows the options of train in sections; a plan settles all of them once."""

from dataclasses import FrozenInstanceError, fields, replace
from types import SimpleNamespace

import pytest
import torch

from fastbert.distributed.world import World
from fastbert.optim.schedules import (
    CONTINUED_HYPERPARAMETERS,
    CONTINUED_SCHEDULE,
    CONTINUED_SHARE,
    DEFAULT_LEARNING_RATE,
    BatchRamp,
    RateSchedule,
    Schedule,
)
from fastbert.system.cli import in_sections
from fastbert.system.errors import InputError
from fastbert.text import Tokenizer
from fastbert.training.evaluation_data import EvaluationText
from fastbert.training.new_model import Architecture
from fastbert.training.options import TrainOptions, check, stored_options
from fastbert.training.plan import DEFAULT_MINUTES, MEMORIZATION_STEPS, TINY_CORPUS_TOKENS, TrainingPlan, make_plan
from fastbert.training.prepare_data import TrainingText
from support import make_model

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
    assert usual.size_open and not any(p.size_open for p in (tiny, plan(steps=7), plan(preset="mini")))
    assert plan(objective="mlm+nsp").arch == "classic" and plan(max_length=4096).batch_tokens == 4096
    assert (usual.minutes, usual.steps) == (DEFAULT_MINUTES, None) and plan(steps=7).minutes is None
    assert usual.learning_rate is None and usual.config.vocab_size == len(TOKENIZER)
    with pytest.raises(FrozenInstanceError):
        usual.seed = 1


def test_cuda_graphs_that_cannot_be_are_refused():
    assert "cpu" in plan().eager_reason
    with pytest.raises(InputError, match="--cuda-graphs on"):
        plan(cuda_graphs="on")


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


def test_weights_that_are_trained_have_rates_of_their_own(tmp_path):
    make_model("modern", vocab_size=len(TOKENIZER)).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    usual, continued = plan(), plan(init=str(tmp_path))
    assert continued.preset == "tiny" and not continued.size_open
    with pytest.raises(InputError, match=r"--preset mini: the weights of --init .* are tiny"):
        plan(init=str(tmp_path), preset="mini")
    assert (usual.optimizer, continued.optimizer) == ("muon", "adamw")
    assert plan(init=str(tmp_path), optimizer="muon").optimizer == "muon"
    (tmp_path / "run.json").write_text('{"options": {"optimizer": "muon"}}')
    assert plan(init=str(tmp_path)).optimizer == "muon"
    assert (usual.schedule, usual.muon_schedule) == (Schedule(0.02, 0.4), Schedule(0.02, 0.8))
    assert (continued.schedule, continued.muon_schedule) == (CONTINUED_SCHEDULE, CONTINUED_SCHEDULE)
    assert plan(optimizer="adamw").schedule == plan(unseen=False).muon_schedule == Schedule(0.02, 0.6)
    one, each = plan(decay=0.5), plan(decay=0.5, muon_decay=0.7)
    assert (one.schedule, one.muon_schedule, each.muon_schedule) == (Schedule(0.02, 0.5),) * 2 + (Schedule(0.02, 0.7),)
    assert (usual.beta1, plan(beta1=0.7).beta1, usual.optimizer_settings["beta1"]) == (0.5, 0.7, 0.5)
    assert continued.beta1 == plan(optimizer="adamw").beta1 == plan(unseen=False).beta1 == 0.9
    assert (usual.vector_scale, continued.vector_scale, plan(vector_scale=2.0).vector_scale) == (8.0, 1.0, 2.0)
    assert (usual.decay_timescale, plan(decay_timescale=0.5).optimizer_settings["decay_timescale"]) == (0.2, 0.5)
    rates = (continued.learning_rate, continued.muon_learning_rate, continued.weight_decay)
    assert rates == CONTINUED_HYPERPARAMETERS["adamw"] and rates[0] < DEFAULT_LEARNING_RATE
    assert plan(init=str(tmp_path)).muon_learning_rate == CONTINUED_HYPERPARAMETERS["muon"][1]
    assert (usual.init_share, continued.init_share) == (0.0, CONTINUED_SHARE["adamw"])
    assert plan(init=str(tmp_path)).init_share == CONTINUED_SHARE["muon"]
    assert plan(init=str(tmp_path), init_share=0.0).init_share == 0.0
    assert plan(init=str(tmp_path), memorization=object(), unseen=False).init_share == 0.0
    given = plan(init=str(tmp_path), learning_rate=0.5, warmup=0.0, decay=1.0)
    assert given.learning_rate == 0.5 and given.schedule == Schedule(0.0, 1.0)


@pytest.mark.parametrize("other", [{"weight_decay": 0.1}, {"init": "runs/001"}, {"optimizer": "adamw"}])
def test_a_timescale_of_the_decay_that_nothing_would_read_is_refused(other):
    with pytest.raises(InputError, match="--decay-timescale: is of Muon's default weight decay"):
        check(TrainOptions(data=["a.txt"], decay_timescale=0.3, **other))


def test_a_run_begun_with_an_earlier_recipe_keeps_it():
    new = {"muon_decay": None, "beta1": None, "vector_scale": None, "decay_timescale": 0.3}
    earlier, now = (stored_options("run", stored, TrainOptions()) for stored in ({}, new))
    assert (earlier.decay, earlier.beta1, earlier.vector_scale, earlier.decay_timescale) == (0.6, 0.9, 1.0, 0.1)
    assert (now.decay, now.beta1, now.vector_scale, now.decay_timescale) == (None, None, None, 0.3)
    assert stored_options("run", {"decay": 0.3}, TrainOptions()).decay == 0.3


def test_a_run_begun_with_the_old_rates_of_init_keeps_them():
    stored = {"init": "weights", "warmup": 0.02, "decay": 0.6, "learning_rate": None, "muon_learning_rate": 0.5}
    earlier = stored_options("run", stored, TrainOptions())
    assert earlier.init_share == 0.0
    assert (earlier.learning_rate, earlier.muon_learning_rate, earlier.weight_decay) == (0.002, 0.5, 0.01)
    later = stored_options("run", stored | {"replay": None}, TrainOptions())
    assert (later.learning_rate, later.muon_learning_rate, later.init_share) == (2e-4, 0.5, 0.0)
    now = stored_options("run", stored | {"replay": None, "init_share": None}, TrainOptions())
    assert (now.learning_rate, now.init_share) == (None, None)
    assert stored_options("run", stored | {"init": None}, TrainOptions()).learning_rate is None
