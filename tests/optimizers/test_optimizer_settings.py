"""What is set on an optimizer after it was made: it has effect, or is refused as the constructor refuses it."""

import copy
import math
import pickle
import re

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, schedules
from tests.helpers.optimizing import ALL, IDS, again, random_parameters, train


def states_equal(a, b):
    a, b = a.state(), b.state()
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
@pytest.mark.parametrize(("name", "meant"), [
    ("lr", "learning_rate"), ("LR", "learning_rate"), ("learningrate", "learning_rate"),
    ("learning_rte", "learning_rate"),
    ("weigth_decay", "weight_decay"), ("clip_norm", "clipnorm"), ("Learning_Rate", "learning_rate"),
])
def test_a_name_that_changes_nothing_is_refused_with_the_right_one(optimizer, name, meant):
    optimizer = again(optimizer)
    message = rf"{type(optimizer).__name__}: .*Received: {name}=0\.0\. Did you mean {meant}"
    with pytest.raises(AttributeError, match=message):
        setattr(optimizer, name, 0.0)
    assert not hasattr(optimizer, name)


def test_a_setting_of_another_optimizer_is_refused_with_the_settings_that_there_are():
    for optimizer, name in [(SGD(), "momentun"), (Adam(), "beta1"), (RMSprop(), "center"), (AdamW(), "amsgard")]:
        with pytest.raises(AttributeError, match="Did you mean"):
            setattr(optimizer, name, 0.5)
    with pytest.raises(AttributeError, match=r"Received: use_ema=True\. It has clipnorm, .*learning_rate, momentum"):
        SGD().use_ema = True


@pytest.mark.parametrize(("optimizer", "name", "value", "error", "message"), [
    (SGD(), "learning_rate", -1, ValueError, "learning_rate must be at least 0"),
    (SGD(), "learning_rate", "a", TypeError, "learning_rate must be a number"),
    (SGD(), "learning_rate", math.nan, ValueError, "learning_rate must be .*finite"),
    (SGD(), "momentum", 1.0, ValueError, "SGD: momentum must be at least 0 and less than 1"),
    (SGD(), "nesterov", 1, TypeError, "nesterov must be True or False"),
    (SGD(), "weight_decay", -0.1, ValueError, "weight_decay must be at least 0"),
    (AdamW(), "weight_decay", None, TypeError, "weight_decay must be a number"),
    (Adam(), "beta_1", 1, ValueError, "beta_1 must be"), (Adam(), "beta_2", -1, ValueError, "beta_2 must be"),
    (Adam(), "epsilon", -1, ValueError, "epsilon must be"), (Adam(), "amsgrad", "yes", TypeError, "amsgrad must be"),
    (RMSprop(), "rho", 2, ValueError, "rho must be"), (RMSprop(), "centered", 0, TypeError, "centered must be"),
    (Adagrad(), "initial_accumulator_value", -1, ValueError, "initial_accumulator_value must be"),
    (SGD(), "clipnorm", 0, ValueError, "clipnorm must be greater than 0"),
    (SGD(), "clipvalue", "a", TypeError, "clipvalue must be a number"),
    (SGD(clipvalue=1.0), "global_clipnorm", 2, ValueError, "Received: clipvalue=1.0, global_clipnorm=2.0. Set the oth"),
    (SGD(), "iterations", -1, ValueError, "iterations must be at least 0"),
    (SGD(), "iterations", 1.5, TypeError, "iterations must be an integer"),
    (SGD(), "name", 3, TypeError, "name must be a string"),
])
@pytest.mark.parametrize("steps", [0, 1])
def test_what_the_constructor_refuses_is_refused_later_too(optimizer, name, value, error, message, steps):
    optimizer = again(optimizer)
    train(optimizer, random_parameters(), steps)
    before = getattr(optimizer, name)
    with pytest.raises(error, match=message):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) == before
    with pytest.raises(AttributeError):
        delattr(optimizer, name)


@pytest.mark.parametrize(("make", "name", "value"), [
    (SGD, "momentum", 0.9), (SGD, "weight_decay", 0.1), (SGD, "clipnorm", 0.1), (SGD, "clipvalue", 0.1),
    (SGD, "global_clipnorm", 0.1), (SGD, "learning_rate", schedules.ExponentialDecay(0.5, 1, 0.5)),
    (RMSprop, "momentum", 0.5), (RMSprop, "centered", True), (RMSprop, "rho", 0.5), (Adam, "amsgrad", True),
    (Adam, "beta_1", 0.5), (Adam, "beta_2", 0.5), (Adam, "epsilon", 0.1), (Adagrad, "epsilon", 0.5),
    (AdamW, "weight_decay", 0.5), (Adagrad, "initial_accumulator_value", 0.5),
])
def test_what_is_set_before_the_first_step_is_as_if_the_constructor_had_got_it(make, name, value):
    late, early = make(0.1), make(**{"learning_rate": 0.1, name: value})
    setattr(late, name, value)
    a, b, plain = random_parameters(), random_parameters(), random_parameters()
    train(late, a, 3)
    train(early, b, 3)
    train(make(0.1), plain, 3)
    np.testing.assert_array_equal(a.vector, b.vector)
    assert late.get_config() == early.get_config()
    assert states_equal(late, early)
    assert (a.vector != plain.vector).any()


@pytest.mark.parametrize(("optimizer", "name", "value"), [
    (SGD(0.1), "momentum", 0.9), (RMSprop(0.1), "momentum", 0.5), (RMSprop(0.1), "centered", True),
    (Adam(0.1), "amsgrad", True), (SGD(0.1), "clipvalue", 0.01), (SGD(0.1), "weight_decay", 0.5),
])
def test_what_is_set_between_two_steps_holds_from_then_on_and_can_be_saved(optimizer, name, value):
    optimizer, unset = again(optimizer), again(optimizer)
    a, b = random_parameters(), random_parameters()
    train(optimizer, a, 2)
    train(unset, b, 2)
    old = getattr(optimizer, name)
    setattr(optimizer, name, value)
    train(optimizer, a, 2, first=2)
    train(unset, b, 2, first=2)
    assert (a.vector != b.vector).any()
    other, parameters = again(optimizer), random_parameters()
    other.build(parameters)
    other.load_state(optimizer.state())
    parameters.vector[:] = a.vector
    train(other, parameters, 2, first=4)
    train(optimizer, a, 2, first=4)
    np.testing.assert_array_equal(parameters.vector, a.vector)
    setattr(optimizer, name, old)
    assert optimizer.slots.keys() == unset.slots.keys()
    train(optimizer, a, 1)


def test_the_first_value_of_an_accumulator_can_not_be_set_once_there_is_one():
    optimizer = Adagrad()
    train(optimizer, random_parameters(), 1)
    with pytest.raises(ValueError, match=r"must be set before the first step\. Received: .*=0\.5 after 1 steps"):
        optimizer.initial_accumulator_value = 0.5
    assert optimizer.initial_accumulator_value == 0.1


def test_a_learning_rate_of_0_set_in_the_middle_of_fit_ends_the_training():
    x = np.random.default_rng(0).normal(size=(20, 3))
    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(1)])
    model.compile(SGD(0.1, momentum=0.9), "mse")
    seen = []

    def stop(batch, logs):
        seen.append(model.get_weights()[0])
        if batch == 1:
            model.optimizer.learning_rate = model.optimizer.momentum = 0.0

    model.fit(x, x.sum(1), batch_size=4, verbose=0, callbacks=cnnlite.callbacks.LambdaCallback(on_train_batch_end=stop))
    assert (seen[1] != seen[0]).all()
    np.testing.assert_array_equal(seen[1], seen[4])


class Sign(Optimizer):
    def __init__(self, learning_rate, strength=2.0, **kwargs):
        self.early = 1
        super().__init__(learning_rate, **kwargs)
        self.strength = strength

    def update(self, p, g, slots, learning_rate, decay):
        self.largest = float(abs(g).max())
        p -= self.strength * learning_rate * np.sign(g)


def test_an_optimizer_of_your_own_has_attributes_of_its_own():
    optimizer, parameters = Sign(0.5), random_parameters()
    before = parameters.vector.copy()
    train(optimizer, parameters, 1)
    optimizer.strength, optimizer.anything = 4.0, [1]
    assert optimizer.largest > 0
    assert optimizer.early == 1
    np.testing.assert_allclose(abs(parameters.vector - before), 1.0, rtol=1e-6)
    for name in ("lr", "learningrate", "weightdecay", "clip_value"):
        with pytest.raises(AttributeError, match="Did you mean"):
            setattr(optimizer, name, 0.1)
    with pytest.raises(ValueError, match="Sign: learning_rate must be at least 0"):
        optimizer.learning_rate = -1
    del optimizer.anything


class WithLr(Optimizer):
    lr = 3.0


def test_a_name_that_your_own_optimizer_defines_may_be_set():
    optimizer = WithLr(0.1)
    optimizer.lr = 4.0
    assert optimizer.lr == 4.0


class WithOwnLr(Optimizer):
    def __init__(self, lr):
        super().__init__(lr)
        self.lr = lr

    def update(self, p, g, slots, learning_rate, decay):
        p -= self.lr * g


class WithBeta1(Adam):
    def __init__(self, beta1):
        self.beta1 = beta1
        super().__init__(beta_1=beta1)


def test_a_name_that_a_method_of_your_own_optimizer_uses_may_be_set():
    optimizer, parameters = WithOwnLr(1.0), random_parameters()
    optimizer.lr = 0.0
    before = parameters.vector.copy()
    train(optimizer, parameters, 1)
    np.testing.assert_array_equal(parameters.vector, before)
    assert WithBeta1(0.5).beta1 == 0.5
    with pytest.raises(AttributeError, match="Did you mean learning_rate"):
        WithBeta1(0.5).lr = 0.1


@pytest.mark.parametrize("optimizer", ALL, ids=IDS)
def test_copies_and_pickles_keep_what_was_set(optimizer):
    optimizer = again(optimizer)
    train(optimizer, random_parameters(), 1)
    optimizer.clipvalue = optimizer.weight_decay = 0.25
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other.get_config() == optimizer.get_config()
        assert states_equal(other, optimizer)
        train(other, random_parameters(), 1)


# epsilon=0.


@pytest.mark.parametrize("optimizer", [
    Adam(0.1, epsilon=0), RMSprop(0.1, epsilon=0), Adagrad(0.1, 0.0, epsilon=0), Adam(0.1, epsilon=1e-60),
])
def test_weights_that_epsilon_0_makes_nan_are_said_once(optimizer, recwarn):
    optimizer, parameters = again(optimizer), random_parameters()
    parameters.gradient[3:] = 1
    with np.errstate(invalid="ignore"):
        for _ in range(2):
            optimizer.step(parameters)
    (warning,) = recwarn.list
    message = "step 1, although the gradients are finite.*epsilon=(0|1e-60) .*Use an epsilon above 0"
    assert re.search(message, str(warning.message))
    assert np.isnan(parameters.vector[:3]).all()
    assert np.isfinite(parameters.vector[3:]).all()


@pytest.mark.parametrize("gradient", [1.0, math.nan])
def test_epsilon_0_is_not_blamed_for_what_it_did_not_do(gradient, recwarn):
    optimizer, parameters = Adam(0.1, epsilon=0), random_parameters()
    parameters.gradient[:] = gradient
    optimizer.step(parameters)
    assert not recwarn.list
