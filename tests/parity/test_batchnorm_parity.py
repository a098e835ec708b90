"""BatchNorm has the values, gradients and moving averages of Keras's, and the values and gradients of PyTorch's."""

import inspect

import numpy as np
import pytest

from cnnlite.layers import BatchNorm

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
# Keras itself calls what NumPy has deprecated.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")]


def close(actual, expected, tolerance=1e-5):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def batch(*shape, seed=0):
    return np.random.default_rng(seed).normal(1, 2, shape).astype("float32")


def pair(shape, **options):
    """Return our layer and Keras's with the same random weights."""
    ours, theirs = BatchNorm(**options), keras.layers.BatchNormalization(**options)
    ours.build((None, *shape[1:]))
    theirs.build((None, *shape[1:]))
    generator = np.random.default_rng(5)
    weights = [generator.uniform(0.5, 2, array.shape).astype("float32") for array in ours.get_weights()]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    return ours, theirs


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(("shape", "options"), [
    ((30, 4), {}), ((6, 5, 7, 3), {"momentum": 0.7, "epsilon": 0.1}), ((6, 3, 5, 7), {"axis": 1}),
    ((6, 9, 3), {"scale": False}), ((6, 5, 7, 3), {"center": False}), ((2, 1), {}),
])
def test_values_gradients_and_moving_averages_are_those_of_keras(shape, options, trainable):
    ours, theirs = pair(shape, trainable=trainable, **options)
    x, dy = batch(*shape), batch(*shape, seed=1)
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor, training=True)
    y.backward(torch.tensor(dy))
    close(ours(x, training=True), y)
    # Relative to dy: with two samples in a channel, almost nothing of it is left in dx.
    np.testing.assert_allclose(ours.backward(dy), tensor.grad.numpy(), rtol=0, atol=1e-5 * np.abs(dy).max())
    for mine, array in zip(ours.get_weights(), theirs.get_weights()):
        close(mine, array)
    if trainable:
        for name, gradient in ours.grads.items():
            close(gradient, getattr(theirs, name).value.grad)
    close(ours(x), theirs(torch.tensor(x), training=False))


def test_values_and_gradients_are_those_of_torch():
    x, dy = batch(6, 3, 5, 7), batch(6, 3, 5, 7, seed=1)
    ours, theirs = BatchNorm(axis=1, momentum=0.9, epsilon=1e-5), torch.nn.BatchNorm2d(3, eps=1e-5, momentum=0.1)
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor)
    y.backward(torch.tensor(dy))
    close(ours(x, training=True), y)
    close(ours.backward(dy), tensor.grad)
    close(ours.grads["gamma"], theirs.weight.grad)
    close(ours.grads["beta"], theirs.bias.grad)
    close(ours.state["moving_mean"], theirs.running_mean)
    # Torch's running variance is the unbiased one, of M - 1 = 209.
    close((ours.state["moving_variance"] - 0.9) * 210 / 209 + 0.9, theirs.running_var)


def test_the_arguments_are_those_of_keras():
    ours, theirs = (inspect.signature(layer).parameters for layer in (BatchNorm, keras.layers.BatchNormalization))
    names = [name for name in ours if name != "kwargs"]
    assert names == list(theirs)[: len(names)]
    assert all(ours[name].default == theirs[name].default for name in names)
