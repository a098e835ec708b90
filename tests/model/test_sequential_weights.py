"""The weights of a stack: their order, reading and setting them, freezing them, and penalties."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.models import convnet, normal

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")


def test_weights_come_layer_by_layer_in_the_order_of_keras():
    model = convnet()
    shapes = [(3, 3, 2, 4), (4,), (4,), (4,), (4,), (4,), (24, 5), (5,)]
    assert [array.shape for array in model.get_weights()] == shapes
    norm = model.get_layer("norm")
    for array, mine in zip(model.weights[2:6], (*norm.params.values(), *norm.state.values())):
        assert array is mine
    assert list(model.params) == ["conv/kernel", "conv/bias", "norm/gamma", "norm/beta", "top/kernel", "top/bias"]
    assert list(model.state) == ["norm/moving_mean", "norm/moving_variance"]
    assert model.count_params() == sum(int(np.prod(shape)) for shape in shapes)


def test_get_weights_gives_copies_that_set_weights_takes():
    one, two = convnet(), convnet()
    x = normal(3, 8, 7, 2)
    weights = [array + 0.5 for array in one.get_weights()]
    two.set_weights(weights)
    one.set_weights(two.get_weights())
    np.testing.assert_array_equal(one(x), two(x))
    weights[0][:] = 0
    assert two.weights[0].any()


@pytest.mark.parametrize("wrong", [
    lambda weights: weights[:-1],
    lambda weights: [*weights, np.ones(1)],
    lambda weights: [*weights[:-1], np.ones(6)],
    lambda weights: [],
])
def test_set_weights_sets_all_or_none(wrong):
    model = convnet()
    before = model.get_weights()
    with pytest.raises(ValueError, match="set_weights takes arrays of the shapes"):
        model.set_weights(wrong([array + 1 for array in before]))
    for mine, array in zip(model.weights, before):
        np.testing.assert_array_equal(mine, array)


def test_weights_need_a_built_model():
    model = cnnlite.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"set_weights needs weights to set. Call build\(input_shape\) first"):
        model.set_weights([])
    with pytest.raises(ValueError, match="count_params needs weights to count"):
        model.count_params()


def test_trainable_goes_down_to_every_layer_inside():
    inner = cnnlite.Sequential([layers.Dense(2)])
    model = cnnlite.Sequential([layers.Dense(3), inner])
    model.trainable = False
    assert not any(layer.trainable for layer in (model, model.layers[0], inner, inner.layers[0]))
    inner.trainable = True
    assert inner.layers[0].trainable
    assert not model.layers[0].trainable
    frozen = cnnlite.Sequential([layers.Dense(3)], trainable=False)
    assert not frozen.layers[0].trainable
    frozen.add(layers.Dense(2))
    assert not frozen.layers[1].trainable


def test_penalties_and_their_gradients_are_those_of_trainable_layers():
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(3,)),
        layers.Dense(4, kernel_regularizer=cnnlite.regularizers.L2(0.1)),
        cnnlite.Sequential([layers.Dense(2, kernel_regularizer=cnnlite.regularizers.L1(0.2), bias_regularizer="l2")]),
    ])
    first, second = model.layers[0], model.layers[1].layers[0]
    second.params["bias"] = [1, -2]
    k1, k2 = first.params["kernel"], second.params["kernel"]
    expected = 0.1 * (k1**2).sum() + 0.2 * np.abs(k2).sum() + 0.01 * 5
    assert model.regularization_loss() == pytest.approx(expected, rel=1e-6)
    for gradient in model.grads.values():
        gradient[...] = 1
    model.add_regularization_gradients()
    np.testing.assert_allclose(first.grads["kernel"], 1 + 0.2 * k1, rtol=1e-6)
    np.testing.assert_allclose(second.grads["kernel"], 1 + 0.2 * np.sign(k2), rtol=1e-6)
    np.testing.assert_allclose(second.grads["bias"], [1.02, 0.96], rtol=1e-6)
    assert (first.grads["bias"] == 1).all()
    first.trainable = False
    assert model.regularization_loss() == pytest.approx(expected - 0.1 * (k1**2).sum(), rel=1e-5)
    before = first.grads["kernel"].copy()
    model.add_regularization_gradients()
    np.testing.assert_array_equal(first.grads["kernel"], before)
