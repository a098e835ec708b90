"""Optimizers made again from their configs, and going on from a saved state with the same bits."""

import inspect
import json

import numpy as np
import pytest

from cnnlite import optimizers
from cnnlite.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop, schedules
from tests.helpers.optimizing import ALL, IDS, Parameters, again, random_parameters, train


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
