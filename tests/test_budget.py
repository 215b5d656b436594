"""The budget is one fraction, in steps or in minutes; minutes count from the start of the process."""

import pytest

import fastbert
from fastbert import budget as budget_module
from fastbert.budget import Budget


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


def test_minutes_shorter_than_the_preparation_still_take_a_step(clock):
    budget = Budget(minutes=0.1)
    budget.start()
    assert budget.total_s == 1.0 and budget.progress(0) < 1.0


def test_the_last_evaluation_never_takes_more_than_a_tenth(clock):
    """A slow machine shortens the last evaluation, not the training."""
    from types import SimpleNamespace

    from fastbert.trainer import ENDING_S, Trainer

    trainer = SimpleNamespace(budget=Budget(minutes=5.0), final_evaluation_share=1.0)
    Trainer._keep_time_for_the_end(trainer, 12.0)
    assert trainer.final_evaluation_share == 1.0 and trainer.budget.reserve_s == ENDING_S + 12.0
    Trainer._keep_time_for_the_end(trainer, 240.0)
    assert trainer.final_evaluation_share == pytest.approx(30 / 240) and trainer.budget.reserve_s == ENDING_S + 30.0
    steps = SimpleNamespace(budget=Budget(steps=10), final_evaluation_share=1.0)
    Trainer._keep_time_for_the_end(steps, 240.0)
    assert steps.final_evaluation_share == 1.0
