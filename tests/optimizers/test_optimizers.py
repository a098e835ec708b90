"""Optimizers: steps worked out by hand, what is frozen, the learning rate, and what is refused."""

import math

import numpy as np
import pytest

from cnnlite import optimizers
from cnnlite.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop, schedules
from tests.helpers.optimizing import ALL, IDS, Parameters, again, random_parameters, run, train

# Steps worked out by hand, from 1.0, with a high learning rate.


def test_sgd_by_hand():
    assert run(SGD(0.5), 1.0, [1, -2, 4]) == pytest.approx([0.5, 1.5, -0.5])


def test_momentum_by_hand():
    # m: -0.5, then 0.8 * -0.5 + 1 = 0.6, then 0.8 * 0.6 - 2 = -1.52
    assert run(SGD(0.5, momentum=0.8), 1.0, [1, -2, 4]) == pytest.approx([0.5, 1.1, -0.42])


def test_nesterov_by_hand():
    # the same m, and p moves by 0.8 m - 0.5 g: -0.4 - 0.5, then 0.48 + 1, then -1.216 - 2
    assert run(SGD(0.5, momentum=0.8, nesterov=True), 1.0, [1, -2, 4]) == pytest.approx([0.1, 1.58, -1.636])


def test_rmsprop_by_hand():
    # v: 0.5, then 0.25 + 2 = 2.25, then 1.125 + 8 = 9.125
    path = run(RMSprop(0.5, rho=0.5, epsilon=0.25), 1.0, [1, -2, 4])
    first = 1 - 0.5 / math.sqrt(0.75)
    second = first + 1 / math.sqrt(2.5)
    assert path == pytest.approx([first, second, second - 2 / math.sqrt(9.375)])


def test_rmsprop_centered_with_momentum_by_hand():
    # average: 0.5, then 0.25 - 1 = -0.75; v less its square: 0.25, then 2.25 - 0.5625 = 1.6875
    path = run(RMSprop(0.5, rho=0.5, momentum=0.1, epsilon=0.25, centered=True), 1.0, [1, -2])
    m = 0.5 / math.sqrt(0.5)
    assert path == pytest.approx([1 - m, 1 - m - (0.1 * m - 1 / math.sqrt(1.9375))])


def test_adam_by_hand():
    # m: 0.5, then 0.5 + 0.5 (-2 - 0.5) = -0.75;  v: 0.25, then 0.25 + 0.25 (4 - 0.25) = 1.1875
    path = run(Adam(0.5, beta_1=0.5, beta_2=0.75, epsilon=0.1), 1.0, [1, -2])
    first = 1 - 0.5 * math.sqrt(0.25) / 0.5 * 0.5 / (math.sqrt(0.25) + 0.1)
    second = first - 0.5 * math.sqrt(1 - 0.75**2) / (1 - 0.5**2) * -0.75 / (math.sqrt(1.1875) + 0.1)
    assert path == pytest.approx([first, second])


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate_whatever_the_gradient():
    for gradient in (1e-3, 1.0, 1e3):
        assert run(Adam(0.5, epsilon=0), 1.0, [gradient]) == pytest.approx([0.5])


def test_amsgrad_by_hand():
    # v: 2, then 1; AMSGrad keeps 2
    path = run(Adam(0.5, beta_1=0, beta_2=0.5, epsilon=0, amsgrad=True), 1.0, [2, 0.0, 1])
    first = 1 - 0.5 * math.sqrt(0.5) * 2 / math.sqrt(2)
    assert path == pytest.approx([first, first, first - 0.5 * math.sqrt(0.875) / math.sqrt(2)])


def test_adagrad_by_hand():
    # sum: 1.25, then 5.25, then 21.25
    path = run(Adagrad(0.5, initial_accumulator_value=0.25, epsilon=0.75), 1.0, [1, -2, 4])
    first = 1 - 0.5 / math.sqrt(2)
    second = first + 1 / math.sqrt(6)
    assert path == pytest.approx([first, second, second - 2 / math.sqrt(22)])


def test_weight_decay_by_hand():
    # before the step, p loses 0.5 * 0.2 of itself: 1 -> 0.9 - 0.5, then 0.4 -> 0.36 + 1
    assert run(SGD(0.5, weight_decay=0.2), 1.0, [1, -2]) == pytest.approx([0.4, 1.36])


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_weight_decay_stays_out_of_the_averages(optimizer):
    plain, decayed = again(optimizer, weight_decay=0), again(optimizer, weight_decay=0.3)
    a, b = random_parameters("float64"), random_parameters("float64")
    before = a.vector.copy()
    train(plain, a, 1)
    train(decayed, b, 1)
    rate = optimizer.learning_rate
    np.testing.assert_allclose(b.vector, a.vector - 0.3 * rate * before, rtol=1e-12)
    for name in plain.slots:
        np.testing.assert_array_equal(plain.slots[name], decayed.slots[name])


# The vector.


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_every_step_is_along_the_falling_side_of_a_bowl(optimizer):
    optimizer, parameters = again(optimizer), random_parameters("float64")
    before = np.abs(parameters.vector).sum()
    for _ in range(60):
        parameters.gradient[:] = 0.2 * parameters.vector
        optimizer.step(parameters)
    assert np.abs(parameters.vector).sum() < 0.5 * before
    assert optimizer.iterations == 60


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_what_is_frozen_stays_bit_for_bit(optimizer):
    optimizer, parameters = again(optimizer, clipnorm=0.5, weight_decay=0.1), random_parameters(frozen=(1,))
    before, place = parameters.vector.copy(), parameters.slices[1]
    train(optimizer, parameters, 3)
    start = random_parameters(frozen=(1,))
    fresh = again(optimizer)
    fresh.build(start)
    np.testing.assert_array_equal(parameters.vector[place], before[place])
    for name, slot in optimizer.slots.items():
        np.testing.assert_array_equal(slot[place], fresh.slots[name][place])
    assert (parameters.vector[: place.start] != before[: place.start]).all()
    assert (parameters.vector[place.stop :] != before[place.stop :]).all()


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_freezing_some_does_not_change_the_others(optimizer):
    a, b = random_parameters(), random_parameters(frozen=(1,))
    train(again(optimizer), a, 3)
    train(again(optimizer), b, 3)
    np.testing.assert_array_equal(np.delete(a.vector, np.r_[a.slices[1]]), np.delete(b.vector, np.r_[a.slices[1]]))


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_precision_is_that_of_the_weights(optimizer, dtype):
    optimizer, parameters = again(optimizer, clipnorm=1.0), random_parameters(dtype)
    train(optimizer, parameters, 2)
    assert parameters.vector.dtype == dtype
    assert all(slot.dtype == dtype for slot in optimizer.slots.values())


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.1}, {"clipvalue": 0.1}, {"global_clipnorm": 0.1}])
def test_the_gradient_is_not_written_to(clipping):
    parameters = random_parameters()
    parameters.gradient[:] = before = np.random.default_rng(1).normal(size=19).astype("float32")
    Adam(**clipping).step(parameters)
    np.testing.assert_array_equal(parameters.gradient, before)


def test_a_model_without_weights_can_be_stepped():
    optimizer = Adam(clipnorm=1.0)
    optimizer.step(Parameters([]))
    assert optimizer.iterations == 1


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_a_nan_in_the_gradient_arrives_in_that_weight_alone(optimizer):
    optimizer, parameters = again(optimizer), random_parameters()
    parameters.gradient[:] = 1
    parameters.gradient[3] = np.nan
    optimizer.step(parameters)
    assert np.flatnonzero(np.isnan(parameters.vector)).tolist() == [3]


# The learning rate.


def test_a_schedule_is_asked_for_the_step_that_comes():
    optimizer = SGD(schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.1, 0.01]))
    assert optimizer.current_learning_rate() == 1.0
    parameters = Parameters([0.0])
    path = []
    for _ in range(3):
        parameters.gradient[:] = -1
        optimizer.step(parameters)
        path.append(float(parameters.vector[0]))
    assert path == pytest.approx([1.0, 1.1, 1.11])
    assert optimizer.current_learning_rate() == 0.01


def test_the_learning_rate_can_be_assigned_to():
    optimizer = SGD(0.5)
    optimizer.learning_rate = 0.25
    assert run(optimizer, 1.0, [1]) == [0.75]
    optimizer.learning_rate = schedules.ExponentialDecay(0.5, 1, 0.5)
    assert optimizer.current_learning_rate() == 0.25
    with pytest.raises(ValueError, match="learning_rate must be at least 0"):
        optimizer.learning_rate = -1
    assert optimizer.current_learning_rate() == 0.25


def test_a_learning_rate_of_zero_changes_nothing():
    assert run(SGD(0.0, weight_decay=0.5), 1.0, [1, 2]) == [1.0, 1.0]


# What is refused.


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SGD(-0.1), ValueError, "SGD: learning_rate must be at least 0.*Received: learning_rate=-0.1"),
        (lambda: SGD(math.nan), ValueError, "learning_rate must be at least 0 and finite"),
        (lambda: SGD(math.inf), ValueError, "learning_rate must be .* finite"),
        (lambda: SGD("fast"), TypeError, "learning_rate must be a number"),
        (lambda: SGD(lambda step: 0.1), TypeError, "learning_rate must be a number"),
        (lambda: SGD(momentum=1.0), ValueError, "momentum must be at least 0 and less than 1"),
        (lambda: SGD(momentum=-0.1), ValueError, "momentum must be at least 0"),
        (lambda: SGD(nesterov=1), TypeError, "nesterov must be True or False"),
        (lambda: RMSprop(rho=1.0), ValueError, "RMSprop: rho must be at least 0 and less than 1"),
        (lambda: RMSprop(epsilon=-1.0), ValueError, "epsilon must be at least 0"),
        (lambda: Adam(beta_1=1.0), ValueError, "Adam: beta_1 must be at least 0 and less than 1"),
        (lambda: Adam(beta_2=-0.5), ValueError, "beta_2 must be at least 0"),
        (lambda: Adam(weight_decay=-0.1), ValueError, "weight_decay must be at least 0"),
        (lambda: AdamW(weight_decay=None), TypeError, "AdamW: weight_decay must be a number"),
        (lambda: Adagrad(initial_accumulator_value=-1.0), ValueError, "initial_accumulator_value must be at least 0"),
        (lambda: Adam(clipnorm=0.0), ValueError, "clipnorm must be greater than 0"),
        (lambda: Adam(clipnorm=1.0, clipvalue=0.5), ValueError,
         "only one of clipnorm, clipvalue and global_clipnorm can be set. Received: clipnorm=1.0, clipvalue=0.5"),
        (lambda: optimizers.get("adamm"), ValueError, "Unknown optimizer: 'adamm'. Known: .* Did you mean 'adam'"),
        (lambda: optimizers.get(lambda: 1), TypeError, "optimizer must be a name or an Optimizer"),
        (lambda: optimizers.get(3), TypeError, "optimizer must be a name"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_optimizer_does_not_move_to_other_weights():
    optimizer, other = Adam(), Parameters([1.0, 2.0])
    train(optimizer, random_parameters(), 1)
    with pytest.raises(ValueError, match=r"3 weights with 19 numbers of float32\. Received: 1 weights with 2 numbers"):
        optimizer.step(other)
    assert other.vector.tolist() == [1, 2]
    assert optimizer.iterations == 1


def test_building_again_keeps_the_averages():
    optimizer, parameters = Adam(), random_parameters()
    train(optimizer, parameters, 2)
    before = optimizer.state()
    optimizer.build(parameters)
    assert optimizer.iterations == 2
    np.testing.assert_array_equal(optimizer.slots["momentum"], before["momentum"])
