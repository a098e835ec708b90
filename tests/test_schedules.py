"""Schedules: values worked out by hand, what is refused, and configs."""

import json
import math

import pytest

from cnnlite.optimizers import schedules
from cnnlite.schedules import (
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

ALL = [
    ExponentialDecay(0.1, 7, 0.9), ExponentialDecay(0.1, 7, 0.9, staircase=True),
    InverseTimeDecay(0.1, 7, 0.5), InverseTimeDecay(0.1, 7, 0.5, staircase=True),
    PiecewiseConstantDecay([3, 8], [0.3, 0.2, 0.1]),
    PolynomialDecay(0.1, 10), PolynomialDecay(0.1, 10, 0.01, power=0.5, cycle=True),
    CosineDecay(0.1, 10, alpha=0.1), CosineDecay(0.0, 10, warmup_target=0.5, warmup_steps=4),
    OneCycle(0.1, 20),
]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (ExponentialDecay(0.8, 2, 0.25), {0: 0.8, 1: 0.4, 2: 0.2, 3: 0.1, 4: 0.05}),
        (ExponentialDecay(0.8, 2, 0.25, staircase=True), {0: 0.8, 1: 0.8, 2: 0.2, 3: 0.2, 4: 0.05}),
        (InverseTimeDecay(0.8, 2, 2.0), {0: 0.8, 1: 0.4, 3: 0.2}),
        (InverseTimeDecay(0.8, 2, 2.0, staircase=True), {0: 0.8, 1: 0.8, 2: 0.8 / 3, 3: 0.8 / 3}),
        (PiecewiseConstantDecay([3, 8], [0.3, 0.2, 0.1]), {0: 0.3, 3: 0.3, 4: 0.2, 8: 0.2, 9: 0.1, 99: 0.1}),
        (PiecewiseConstantDecay([], [0.3]), {0: 0.3, 9: 0.3}),
        (PolynomialDecay(1.0, 4, 0.2), {0: 1.0, 1: 0.8, 4: 0.2, 9: 0.2}),
        (PolynomialDecay(1.0, 4, 0.0, power=2.0), {0: 1.0, 2: 0.25, 4: 0.0}),
        (PolynomialDecay(1.0, 4, 0.0, cycle=True), {0: 1.0, 4: 0.0, 5: 3 / 8, 8: 0.0, 9: 3 / 12}),
        (CosineDecay(0.4, 4, alpha=0.5), {0: 0.4, 2: 0.3, 4: 0.2, 9: 0.2}),
        (CosineDecay(0.1, 4, warmup_target=0.5, warmup_steps=4), {0: 0.1, 1: 0.2, 4: 0.5, 6: 0.25, 8: 0.0, 99: 0.0}),
        (CosineDecay(0.1, 4, warmup_steps=4), {0: 0.1, 2: 0.05, 4: 0.0}),
        (OneCycle(1.0, 11, pct_start=3 / 11, div_factor=5, final_div_factor=4),
         {0: 0.2, 1: 0.6, 2: 1.0, 6: 0.525, 10: 0.05, 99: 0.05}),
        (OneCycle(1.0, 10, pct_start=0.1), {0: 1.0, 9: 4e-6}),
        (OneCycle(1.0, 10, pct_start=1.0, div_factor=2), {0: 0.5, 9: 1.0}),
        (OneCycle(1.0, 1), {0: 4e-6, 1: 4e-6}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LearningRateSchedule) else "",
)
def test_values_by_hand(schedule, values):
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-12)
        assert isinstance(schedule(step), float)


@pytest.mark.parametrize("schedule", ALL, ids=lambda schedule: schedule.name)
def test_a_config_makes_the_same_schedule_again(schedule):
    restored = schedules.get(json.loads(json.dumps(schedules.serialize(schedule))))
    assert type(restored) is type(schedule)
    assert [restored(step) for step in range(30)] == [schedule(step) for step in range(30)]
    assert type(schedule).from_config(schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.parametrize("schedule", ALL, ids=lambda schedule: schedule.name)
def test_no_step_has_a_negative_or_an_infinite_rate(schedule):
    assert all(0 <= schedule(step) < math.inf for step in [*range(40), 10**9])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ExponentialDecay(0.1, 0, 0.9), ValueError, "ExponentialDecay: decay_steps must be greater than 0"),
        (lambda: ExponentialDecay(-0.1, 5, 0.9), ValueError, "initial_learning_rate must be at least 0"),
        (lambda: ExponentialDecay(0.1, 5, math.nan), ValueError, "decay_rate must be at least 0"),
        (lambda: ExponentialDecay(0.1, 5, 0.9, staircase="no"), TypeError, "staircase must be True or False"),
        (lambda: InverseTimeDecay(0.1, -1, 0.9), ValueError, "InverseTimeDecay: decay_steps must be greater than 0"),
        (lambda: PiecewiseConstantDecay([1, 2], [0.1, 0.2]), ValueError, "values must have one more entry"),
        (lambda: PiecewiseConstantDecay([2, 2], [0.1, 0.2, 0.3]), ValueError, "must be larger than the one before"),
        (lambda: PiecewiseConstantDecay([2], [0.1, "low"]), TypeError, "each of values must be a number"),
        (lambda: PolynomialDecay(0.1, 0), ValueError, "PolynomialDecay: decay_steps must be greater than 0"),
        (lambda: PolynomialDecay(0.1, 5, power=0), ValueError, "power must be greater than 0"),
        (lambda: CosineDecay(0.1, 0), ValueError, "CosineDecay: decay_steps must be greater than 0"),
        (lambda: CosineDecay(0.1, 5, alpha=-0.1), ValueError, "alpha must be at least 0"),
        (lambda: CosineDecay(0.1, 5, warmup_target=-1), ValueError, "warmup_target must be at least 0"),
        (lambda: CosineDecay(0.1, 5, warmup_steps=-1), ValueError, "warmup_steps must be at least 0"),
        (lambda: OneCycle(0.0, 5), ValueError, "OneCycle: max_learning_rate must be greater than 0"),
        (lambda: OneCycle(0.1, 0), ValueError, "total_steps must be at least 1"),
        (lambda: OneCycle(0.1, 5.5), TypeError, "total_steps must be an integer"),
        (lambda: OneCycle(0.1, 5, pct_start=1.1), ValueError, "pct_start must be from 0 to 1. Received: pct_start=1.1"),
        (lambda: OneCycle(0.1, 5, div_factor=0), ValueError, "div_factor must be at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_schedule_of_ones_own_says_what_it_lacks():
    with pytest.raises(NotImplementedError, match="must define __call__"):
        LearningRateSchedule()(0)
    with pytest.raises(NotImplementedError, match="must define get_config"):
        LearningRateSchedule().get_config()
