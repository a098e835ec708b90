"""Layers without weights have the values, gradients, arguments and defaults of Keras's."""

import inspect

import numpy as np
import pytest

from cnnlite import activations, layers

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.parity

CASES = [
    ("Flatten", {}),
    ("Flatten", {"data_format": "channels_first"}),
    ("Reshape", {"target_shape": (6, -1)}),
    ("Reshape", {"target_shape": (5, 3, 4)}),
    ("ZeroPadding2D", {}),
    ("ZeroPadding2D", {"padding": 2}),
    ("ZeroPadding2D", {"padding": (1, 2), "data_format": "channels_first"}),
    ("ZeroPadding2D", {"padding": ((1, 0), (2, 3))}),
    ("Rescaling", {"scale": 1 / 255, "offset": -0.5}),
    ("Rescaling", {"scale": [1.0, 2.0, 3.0, 4.0, 5.0]}),
    ("Dropout", {"rate": 0.0}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_values_gradients_and_shapes_are_those_of_keras(name, arguments):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    mine, theirs = getattr(layers, name)(**arguments), getattr(keras.layers, name)(**arguments)
    y = mine(x, training=True)
    dy = rng.normal(size=y.shape).astype(np.float32)
    theirs_x = torch.tensor(x, requires_grad=True)
    with torch.enable_grad():
        theirs_y = theirs(theirs_x, training=True) if name == "Dropout" else theirs(theirs_x)
        theirs_y.backward(torch.tensor(dy))
    assert mine.compute_output_shape((None, 3, 4, 5)) == tuple(theirs.compute_output_shape((None, 3, 4, 5)))
    np.testing.assert_allclose(y, theirs_y.detach().numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(mine.backward(dy), theirs_x.grad.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [
    "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Flatten", "Reshape", "Dropout", "SpatialDropout2D",
    "ZeroPadding2D", "Rescaling",
])
def test_arguments_and_defaults_are_those_of_keras(name):
    assert arguments_of(getattr(layers, name).__init__) == arguments_of(getattr(keras.layers, name).__init__)


@pytest.mark.parametrize("name", sorted(set(activations.ACTIVATIONS) - {"swish"}))
def test_arguments_and_defaults_of_functions_are_those_of_keras(name):
    assert arguments_of(getattr(activations, name)) == arguments_of(getattr(keras.activations, name))


def arguments_of(function):
    # Keras writes out name and dtype where the rest goes through **kwargs.
    return [
        (parameter.name, parameter.default) for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "kwargs", "name", "dtype")
    ]


def test_input_takes_keras_s_first_arguments():
    theirs = dict(arguments_of(keras.Input))
    for name, default in arguments_of(layers.Input.__init__):
        # Keras's InputLayer takes input_shape too, among its **kwargs.
        assert name == "input_shape" or theirs[name] == default


@pytest.mark.parametrize("name", ["Dropout", "SpatialDropout2D"])
def test_dropped_share_and_scale_are_those_of_keras(name):
    x = np.ones((50, 8, 8, 16), np.float32)
    mine = getattr(layers, name)(0.3, seed=1)(x, training=True)
    theirs = getattr(keras.layers, name)(0.3, seed=1)(x, training=True).detach().numpy()
    np.testing.assert_allclose(np.unique(mine), np.unique(theirs), rtol=1e-6)
    assert abs((mine == 0).mean() - (theirs == 0).mean()) < 0.1
