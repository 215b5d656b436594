"""Schedules are pure functions of progress; bad text is refused."""

import pytest

from fastbert.optim.schedules import RateSchedule
from fastbert.system.errors import InputError


def test_rate_schedules():
    assert RateSchedule().rate(0.7) == 0.15
    linear = RateSchedule.parse("0.3:0.15")
    assert [linear.rate(p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([0.3, 0.3, 0.225, 0.15, 0.15])
    cosine = RateSchedule.parse("0.3:0.1:cosine")
    assert [cosine.rate(p) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.2, 0.1])
    assert cosine.rate(0.25) > RateSchedule.parse("0.3:0.1").rate(0.25)
    assert RateSchedule.parse("0.2") == RateSchedule(0.2)


@pytest.mark.parametrize(
    "text", ["", "a", "0", "1.5", "0.3:", "0.3:x", "0.3:0", "0.3:0.1:cubic", "1:1:linear:1", "nan"]
)
def test_bad_schedules(text):
    with pytest.raises(InputError, match="--mask-rate"):
        RateSchedule.parse(text)
