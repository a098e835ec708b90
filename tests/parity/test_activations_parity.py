"""Activations have the values and gradients of PyTorch's and Keras's."""

import numpy as np
import pytest

from cnnlite import activations, layers

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
functional = torch.nn.functional

pytestmark = pytest.mark.parity

TORCH = {
    "linear": lambda x: 1 * x,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "swish": functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: functional.softplus(x, threshold=1000),
    "softmax": lambda x: functional.softmax(x, dim=-1),
    "log_softmax": lambda x: functional.log_softmax(x, dim=-1),
}
KERAS_LAYERS = {
    "ReLU": [{}, {"max_value": 1.0}, {"max_value": 1.5, "negative_slope": 0.3, "threshold": 0.5}],
    "LeakyReLU": [{}, {"negative_slope": 0.1}],
    "ELU": [{}, {"alpha": 0.5}],
    "Softmax": [{}, {"axis": 1}, {"axis": [1, 2]}],
    "Activation": [{"activation": name} for name in TORCH],
}


def data(dtype):
    rng = np.random.default_rng(0)
    return (3 * rng.normal(size=(4, 3, 5))).astype(dtype), rng.normal(size=(4, 3, 5)).astype(dtype)


def torch_passes(function, x, dy):
    x = torch.tensor(x, requires_grad=True)
    y = function(x)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), x.grad.numpy()


def assert_same(layer, function, dtype):
    x, dy = data(dtype)
    found = layer(x, training=True), layer.backward(dy)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for mine, expected in zip(found, torch_passes(function, x, dy)):
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_all_activations_are_compared():
    assert set(TORCH) == set(activations.ACTIVATIONS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_are_those_of_pytorch(name, dtype):
    assert_same(activations.get(name, dtype=dtype), TORCH[name], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_approximate_gelu_is_that_of_pytorch(dtype):
    layer = layers.GELU(approximate=True, dtype=dtype)
    assert_same(layer, lambda x: functional.gelu(x, approximate="tanh"), dtype)


@pytest.mark.parametrize(("name", "arguments"), [
    (name, arguments) for name, choices in KERAS_LAYERS.items() for arguments in choices
])
def test_values_and_gradients_of_layers_are_those_of_keras(name, arguments):
    theirs = getattr(keras.layers, name)(**arguments)
    assert_same(getattr(layers, name)(**arguments), theirs, "float32")


@pytest.mark.parametrize("name", TORCH)
def test_functions_are_those_of_keras(name):
    x, _ = data("float32")
    expected = keras.ops.convert_to_numpy(getattr(keras.activations, name)(x))
    np.testing.assert_allclose(getattr(activations, activations.get(name).activation_name)(x), expected,
                               rtol=1e-5, atol=1e-6)


# Not gelu, for which PyTorch has NaN at +infinity and cnnlite +infinity.
@pytest.mark.parametrize("name", [name for name in TORCH if name != "gelu"])
def test_infinities_and_nan_go_where_they_go_in_pytorch(name):
    x = np.array([[np.inf, 1.0], [-np.inf, 1.0], [np.nan, 1.0]], np.float32)
    expected = TORCH[name](torch.tensor(x)).numpy()
    with np.errstate(invalid="ignore"):  # of which the definitions warn; that kernels do not is tested with them
        np.testing.assert_allclose(activations.get(name)(x), expected, rtol=1e-6)
