"""How users reach the weights of layers and models."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers


def small_model():
    return cnnlite.Sequential([
        layers.Conv2D(2, 3, input_shape=(6, 6, 1)), layers.BatchNorm(), layers.Flatten(), layers.Dense(3),
    ])


def test_the_weights_of_a_layer_are_its_attributes_before_and_after_training():
    model = small_model()
    conv, norm, _, dense = model.layers
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6, 6, 1)), np.zeros((4, 3)), verbose=0)
    for layer, names in [(conv, ["kernel", "bias"]), (dense, ["kernel", "bias"]), (norm, ["gamma", "beta"])]:
        for name in names:
            assert getattr(layer, name) is layer.params[name]
    assert norm.moving_mean is norm.state["moving_mean"]
    assert norm.moving_variance is norm.state["moving_variance"]


def test_a_weight_that_a_layer_does_not_have_is_none():
    assert layers.Dense(3).kernel is None
    layer = layers.Dense(3, use_bias=False, input_shape=(2,))
    cnnlite.Sequential([layer])
    assert layer.bias is None
    with pytest.raises(KeyError, match="not the name of a weight"):
        layer.bias = np.zeros(3)


def test_assigning_to_the_attribute_copies_into_the_weight():
    layer = layers.BatchNorm()
    layer.build((None, 2))
    gamma, given = layer.gamma, np.array([2.0, 3.0])
    layer.gamma = given
    layer.moving_mean = [4.0, 5.0]
    assert layer.params["gamma"] is gamma is not given
    np.testing.assert_array_equal(gamma, [2, 3])
    np.testing.assert_array_equal(layer.state["moving_mean"], [4, 5])


def test_weights_are_either_trainable_or_not():
    model = small_model()
    conv, norm, _, dense = model.layers
    assert len(conv.trainable_weights) == 2
    assert conv.non_trainable_weights == []
    assert [id(array) for array in norm.non_trainable_weights] == [id(norm.moving_mean), id(norm.moving_variance)]
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (6, 2)
    dense.trainable = False
    assert dense.trainable_weights == []
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (4, 4)
    assert model.trainable_weights[0] is conv.kernel
