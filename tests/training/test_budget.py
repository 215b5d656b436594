"""The budget is one fraction, in steps or in minutes; minutes count from the start of the process."""

import pytest

import fastbert
from fastbert.training import budget as budget_module
from fastbert.training.budget import Budget
from fastbert.training.evaluation_schedule import FINISH_RESERVE_S, MAX_EVAL_SHARE, EvaluationSchedule


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


def test_evaluations_during_the_run_take_a_twentieth_of_the_time(clock):
    """In a short run or on a slow machine the first is postponed, and time for the final one is kept from the start."""
    for estimated_s, expected in ((0.5, 0.1), (5.0, 5.0 / MAX_EVAL_SHARE / (300 - 20 - 38))):
        budget = Budget(minutes=5.0)
        budget.start()
        assert EvaluationSchedule(10, 8.0, budget).first(0.0, estimated_s) == pytest.approx(expected, rel=1e-6)


def test_the_next_evaluation_is_put_off_if_one_is_slow(clock):
    schedule = EvaluationSchedule(10, 1.0, Budget(minutes=5.0))
    schedule.evaluated(0.1, 0.101, took_s=0.3)
    assert schedule.due == pytest.approx(0.2)
    schedule.evaluated(0.2, 0.222, took_s=6.0)
    assert schedule.due == pytest.approx(0.7)


def test_the_final_evaluation_never_takes_more_than_a_tenth(clock):
    """A slow machine shortens the final evaluation, not the training."""
    schedule = EvaluationSchedule(10, 1.0, Budget(minutes=5.0))
    schedule.reserve(10.0)
    assert schedule.final_share == 1.0 and schedule.budget.reserve_s == FINISH_RESERVE_S + 12.0
    schedule.reserve(200.0)
    assert schedule.final_share == pytest.approx(30 / 240) and schedule.budget.reserve_s == FINISH_RESERVE_S + 30.0
    steps = EvaluationSchedule(10, 1.0, Budget(steps=10))
    steps.reserve(200.0)
    assert steps.final_share == 1.0
