"""Activations inside layers that have weights of their own."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.helpers.fused import normal


class PReLU(layers.ActivationLayer):
    """y = x where x > 0, else alpha x, with an alpha for each channel."""

    activation_name = "prelu"

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("alpha", (input_shape[-1],), "ones")

    def function(self, x, out):
        return np.multiply(x, np.where(x > 0, 1, self.params["alpha"]), out=out)

    def gradient(self, dy, x, y, out):
        self.grads["alpha"] = (dy * x * (x < 0)).reshape(-1, x.shape[-1]).sum(axis=0)
        return np.multiply(dy, np.where(x > 0, 1, self.params["alpha"]), out=out)


X, Y = normal(8, 5, 5, 2), normal(8, 1)


def model_with(activation, **arguments):
    return cnnlite.Sequential([
        cnnlite.Input((5, 5, 2)), layers.Conv2D(4, 3, activation=activation, **arguments),
        layers.DepthwiseConv2D(2, activation=activation), layers.Flatten(), layers.Dense(3, activation=activation),
        layers.Dense(1),
    ])


def test_weights_of_an_activation_are_the_models_before_the_first_pass_and_train(tmp_path):
    model = model_with(PReLU())
    assert [path for path, _ in model.named_layers() if "prelu" in path] == [
        "conv2d/prelu", "depthwise_conv2d/prelu", "dense/prelu"]
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    for layer in (model.layers[0], model.layers[1], model.layers[3]):
        assert (layer.activation.params["alpha"] != 1).any()
    assert cnnlite.check_gradients(model, X[:2], Y[:2], max_elements=4).ok
    model.save(tmp_path / "model.safetensors")
    loaded = cnnlite.load_model(tmp_path / "model.safetensors", custom_objects={"PReLU": PReLU})
    np.testing.assert_array_equal(loaded(X), model(X))


def test_an_activation_that_is_set_has_its_weights_at_once():
    model = model_with("relu")
    before = model.count_params()
    model.layers[3].activation = PReLU()
    assert model.count_params() == before + 3


def test_each_layer_has_a_copy_of_a_given_activation_with_the_weights_that_it_has():
    given = PReLU()
    given.build((None, 2))
    given.params["alpha"] = [0.25, 0.5]
    first, second = layers.Dense(2, activation=given), layers.Dense(2, activation=given)
    for layer in (first, second):
        layer.build((None, 3))
        np.testing.assert_array_equal(layer.activation.params["alpha"], [0.25, 0.5])
    first.activation.params["alpha"] = 7, 7
    for activation in (second.activation, given):
        np.testing.assert_array_equal(activation.params["alpha"], [0.25, 0.5])


@pytest.mark.parametrize("how", ["argument", "set"])
def test_the_activation_of_a_frozen_layer_is_frozen(how):
    model = model_with(PReLU() if how == "argument" else None, trainable=False)
    if how == "set":
        model.layers[0].activation = PReLU()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.layers[0].activation.params["alpha"], 1)


def test_an_activation_that_does_not_fit_changes_nothing_when_it_is_set():
    layer = layers.Dense(3, "relu")
    expected = layer(X)
    with pytest.raises(ValueError, match="softmax: axis must be one of the 4 axes"):
        layer.activation = layers.Softmax(axis=4)
    np.testing.assert_array_equal(layer(X), expected)


class Half(layers.Activation):
    """Half of the activation inside."""

    def function(self, x, out):
        return np.multiply(super().function(x, out), np.float32(0.5), out=out)

    def gradient(self, dy, x, y, out):
        return np.multiply(super().gradient(dy, x, y, out), np.float32(0.5), out=out)


def test_an_activation_by_name_is_taken_with_what_the_user_overrides():
    put_on = layers.Activation("relu")
    put_on.function = lambda x, out: np.multiply(np.maximum(x, 0), np.float32(0.5), out=out)
    relu = layers.Dense(3, "relu")
    expected = relu(X) / 2
    for activation in (Half("relu"), put_on):
        layer = layers.Dense(3, activation=activation)
        layer.build(X.shape)
        layer.set_weights(relu.get_weights())
        np.testing.assert_array_equal(layer(X), expected)
