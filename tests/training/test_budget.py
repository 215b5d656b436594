"""The budget is one fraction, in steps or in minutes; minutes count from the start of the process."""

import pytest

import fastbert
from fastbert.training import budget as budget_module
from fastbert.training.budget import Budget


class Clock:
    def __init__(self, now):
        self.now = now

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(fastbert.IMPORTED_AT_S + 20.0)  # twenty seconds of preparation
    monkeypatch.setattr(budget_module, "time", clock)
    return clock


def test_steps():
    budget = Budget(steps=40)
    budget.start()
    assert [budget.progress(s) for s in (0, 10, 40, 50)] == [0.0, 0.25, 1.0, 1.0]
    assert budget.left_s(30, 0.5) == 5.0


def test_minutes_end_with_the_command(clock):
    budget = Budget(minutes=2.0, reserve_s=10.0)
    budget.start()
    assert budget.total_s == pytest.approx(120 - 20 - 10)
    clock.now += 45
    assert budget.progress(7) == pytest.approx(0.5)
    assert budget.left_s(7, 1.0) == pytest.approx(45)
    clock.now += 45
    assert budget.progress(8) == 1.0 and budget.left_s(8, 1.0) == 0.0


def test_a_resumed_run_has_what_is_left(clock):
    budget = Budget(minutes=2.0, reserve_s=10.0, spent_s=60.0)
    budget.start()
    assert budget.progress(0) == pytest.approx(60 / 90)
    clock.now += 30
    assert budget.progress(0) == 1.0 and budget.training_s == pytest.approx(90)


def test_the_command_ends_when_the_reserve_is_spent(clock):
    budget = Budget(minutes=2.0, reserve_s=10.0)
    budget.start()
    assert budget.ends_in_s() == pytest.approx(100)
    clock.now += 95
    budget.reserve_s = 3.0  # what is kept back may change on the way, the end may not
    assert budget.ends_in_s() == pytest.approx(5)
    assert Budget(steps=10).ends_in_s() is None


def test_minutes_shorter_than_the_preparation_still_take_a_step(clock):
    budget = Budget(minutes=0.1)
    budget.start()
    assert budget.total_s == 1.0 and budget.progress(0) < 1.0


def test_evaluations_on_the_way_take_a_twentieth_of_the_time(clock):
    """In a short run or on a slow machine the first is put off, and room for the last is kept from the beginning."""
    from types import SimpleNamespace

    from fastbert.training.trainer import EVALUATION_COST, Trainer

    for foreseen_s, expected in ((0.5, 0.1), (5.0, 5.0 / EVALUATION_COST / (300 - 20 - 38))):
        trainer = SimpleNamespace(
            budget=Budget(minutes=5.0), step=0, foreseen_evaluation_s=foreseen_s, final_evaluation_share=1.0,
            options=SimpleNamespace(evaluations=10, final_evaluation_scale=8.0),
        )  # fmt: skip
        trainer.budget.start()
        for name in ("_next_evaluation", "_keep_time_for_the_end"):
            setattr(trainer, name, getattr(Trainer, name).__get__(trainer))
        assert Trainer._first_evaluation(trainer) == pytest.approx(expected, rel=1e-6)


def test_the_last_evaluation_never_takes_more_than_a_tenth(clock):
    """A slow machine shortens the last evaluation, not the training."""
    from types import SimpleNamespace

    from fastbert.training.trainer import ENDING_S, Trainer

    trainer = SimpleNamespace(budget=Budget(minutes=5.0), final_evaluation_share=1.0)
    Trainer._keep_time_for_the_end(trainer, 12.0)
    assert trainer.final_evaluation_share == 1.0 and trainer.budget.reserve_s == ENDING_S + 12.0
    Trainer._keep_time_for_the_end(trainer, 240.0)
    assert trainer.final_evaluation_share == pytest.approx(30 / 240) and trainer.budget.reserve_s == ENDING_S + 30.0
    steps = SimpleNamespace(budget=Budget(steps=10), final_evaluation_share=1.0)
    Trainer._keep_time_for_the_end(steps, 240.0)
    assert steps.final_evaluation_share == 1.0
