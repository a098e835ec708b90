"""Optimizers: steps worked out by hand, clipping, decay, what is frozen, and going on from a saved state."""

import inspect
import json
import math

import numpy as np
import pytest

from cnnlite import optimizers
from cnnlite.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop, schedules

ALL = [
    SGD(0.5), SGD(0.5, momentum=0.9), SGD(0.5, momentum=0.9, nesterov=True),
    RMSprop(0.1), RMSprop(0.1, rho=0.8, momentum=0.5, centered=True, epsilon=1e-3),
    Adam(0.1), Adam(0.1, amsgrad=True), AdamW(0.1), Adagrad(0.5),
]
IDS = ["sgd", "momentum", "nesterov", "rmsprop", "rmsprop centered", "adam", "amsgrad", "adamw", "adagrad"]


class Parameters:
    """What an optimizer needs of a model: two vectors, the names, and what is trainable."""

    def __init__(self, *arrays, dtype="float64", frozen=()):
        sizes = [np.size(array) for array in arrays]
        stops = np.cumsum(sizes).tolist()
        self.vector = np.concatenate([np.ravel(array) for array in arrays]).astype(dtype)
        self.gradient = np.zeros_like(self.vector)
        self.slices = [slice(stop - size, stop) for size, stop in zip(sizes, stops)]
        self.names = [f"weight{i}" for i in range(len(arrays))]
        self.frozen = frozen
        self.owners = []

    def trainable_segments(self):
        segments = []
        for i, place in enumerate(self.slices):
            if i in self.frozen:
                continue
            if segments and segments[-1][1] == place.start:
                segments[-1] = (segments[-1][0], place.stop)
            else:
                segments.append((place.start, place.stop))
        return segments


def again(optimizer, **changes):
    return type(optimizer)(**{**optimizer.get_config(), **changes})


def random_parameters(dtype="float32", seed=0, frozen=()):
    rng = np.random.default_rng(seed)
    return Parameters(rng.normal(size=(3, 4)), rng.normal(size=5), rng.normal(size=2), dtype=dtype, frozen=frozen)


def train(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        parameters.gradient[:] = np.random.default_rng(100 + step).normal(size=parameters.vector.size)
        optimizer.step(parameters)


def run(optimizer, start, gradients):
    """Return where a single number stands after each step."""
    parameters = Parameters([start])
    path = []
    for gradient in gradients:
        parameters.gradient[:] = gradient
        optimizer.step(parameters)
        path.append(float(parameters.vector[0]))
    return path


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


# Clipping, read off from a step of SGD with the learning rate 1.


def clipped(gradient, frozen=(), dtype="float64", **clipping):
    parameters = Parameters(np.zeros(2), np.zeros(2), dtype=dtype, frozen=frozen)
    parameters.gradient[:] = gradient
    SGD(1.0, **clipping).step(parameters)
    return (-parameters.vector).tolist()


def test_clipvalue_limits_each_number():
    assert clipped([3, -4, 0.5, -0.5], clipvalue=1.0) == [1, -1, 0.5, -0.5]


def test_clipnorm_limits_each_weight_by_its_own_norm():
    assert clipped([3, -4, 0.3, 0.4], clipnorm=1.0) == pytest.approx([0.6, -0.8, 0.3, 0.4])


def test_global_clipnorm_limits_all_by_one_norm():
    # the norm is sqrt(9 + 16 + 144 + 0) = 13
    assert clipped([3, -4, 12, 0], global_clipnorm=6.5) == pytest.approx([1.5, -2, 6, 0])


def test_a_gradient_that_is_small_enough_is_left_as_it_is():
    gradient = [0.1, 0.3, 0.7, 0.01]
    for clipping in ({"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
        assert clipped(gradient, **clipping) == gradient


def test_a_gradient_of_zero_is_clipped_to_zero():
    for clipping in ({"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
        assert clipped([0, 0, 0, 0], **clipping) == [0, 0, 0, 0]


def test_what_is_frozen_does_not_count_in_the_norm():
    assert clipped([3, -4, 1e6, np.nan], frozen=(1,), global_clipnorm=1.0) == pytest.approx([0.6, -0.8, 0, 0])


def test_a_nan_spreads_over_all_that_shares_its_norm():
    def where(**clipping):
        return np.isnan(clipped([np.nan, 1, 1, 1], **clipping)).tolist()

    assert where(clipvalue=1.0) == [True, False, False, False]
    assert where(clipnorm=1.0) == [True, True, False, False]
    assert where(global_clipnorm=1.0) == [True, True, True, True]


def test_an_infinity_does_not_pass_for_a_healthy_step():
    assert clipped([np.inf, 1, 1, 1], clipvalue=2.0) == [2, 1, 1, 1]
    assert np.isnan(clipped([np.inf, 1, 0.1, 0.1], clipnorm=1.0)).tolist() == [True, False, False, False]
    assert np.isnan(clipped([np.inf, 1, 1, 1], global_clipnorm=1.0)).all()


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


# Configs and states.


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_a_config_makes_the_same_optimizer_again(optimizer):
    optimizer = again(optimizer, clipvalue=0.7, weight_decay=0.02)
    saved = json.loads(json.dumps(optimizers.serialize(optimizer)))
    restored = optimizers.get(saved)
    assert type(restored) is type(optimizer)
    assert restored.get_config() == optimizer.get_config()
    assert type(optimizer).from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    accepted = set(inspect.signature(type(optimizer)).parameters)
    assert set(optimizer.get_config()) == accepted


def test_a_config_holds_the_schedule():
    optimizer = Adam(schedules.CosineDecay(0.1, 100, warmup_target=0.3, warmup_steps=10))
    restored = optimizers.get(json.loads(json.dumps(optimizers.serialize(optimizer))))
    assert isinstance(restored.learning_rate, schedules.CosineDecay)
    assert restored.learning_rate(33) == optimizer.learning_rate(33)


def test_names_and_aliases():
    for name, kind in {"sgd": SGD, "SGD": SGD, "rmsprop": RMSprop, "RMSprop": RMSprop, "Adam": Adam, "adamw": AdamW,
                       "AdaGrad": Adagrad, "adagrad": Adagrad}.items():
        assert type(optimizers.get(name)) is kind
    assert optimizers.AdaGrad is Adagrad
    assert isinstance(optimizers.get(Adam), Adam)
    mine = Adam()
    assert optimizers.get(mine) is mine


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_going_on_from_a_saved_state_gives_the_same_bits(optimizer):
    whole, parameters = again(optimizer, clipnorm=1.0), random_parameters()
    train(whole, parameters, 3)
    whole.learning_rate = 0.3
    state, vector = whole.state(), parameters.vector.copy()
    train(whole, parameters, 4, first=3)

    resumed, other = again(optimizer, clipnorm=1.0), random_parameters()
    other.vector[:] = vector
    resumed.build(other)
    resumed.load_state(state)
    train(resumed, other, 4, first=3)
    np.testing.assert_array_equal(other.vector, parameters.vector)
    assert resumed.iterations == 7
    assert resumed.learning_rate == 0.3


def test_a_state_is_not_changed_by_later_steps():
    optimizer, parameters = Adam(), random_parameters()
    train(optimizer, parameters, 1)
    state = optimizer.state()
    copy = state["momentum"].copy()
    train(optimizer, parameters, 1, first=1)
    np.testing.assert_array_equal(state["momentum"], copy)


@pytest.mark.parametrize(
    "other", [SGD(momentum=0.9), Adam(amsgrad=True), Adagrad(), SGD()], ids=["momentum", "amsgrad", "adagrad", "sgd"]
)
def test_the_state_of_another_optimizer_is_refused_before_anything_changes(other):
    optimizer, parameters, others = Adam(), random_parameters(), random_parameters()
    train(optimizer, parameters, 2)
    train(again(other), others, 1)
    other = again(other)
    other.build(others)
    before = optimizer.state()
    with pytest.raises(ValueError, match=r"Adam: the state must hold iterations and momentum \(19,\) float32"):
        optimizer.load_state(other.state())
    assert optimizer.iterations == 2
    np.testing.assert_array_equal(optimizer.slots["velocity"], before["velocity"])


def test_the_state_of_other_weights_or_another_precision_is_refused():
    optimizer = Adam()
    optimizer.build(random_parameters())
    for parameters in (Parameters([1.0], dtype="float32"), random_parameters("float64")):
        other = Adam()
        other.build(parameters)
        with pytest.raises(ValueError, match="built for the same weights"):
            optimizer.load_state(other.state())
    with pytest.raises(ValueError, match="built for the same weights"):
        Adam().load_state(optimizer.state())
