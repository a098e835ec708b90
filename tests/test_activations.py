"""What `activation=` takes: names, functions, layers and configs, and that they mean the same."""

import numpy as np
import pytest

import cnnlite
from cnnlite import activations, layers

NAMES = sorted(activations.ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_name_function_layer_and_config_mean_the_same(name):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    layer = activations.get(name)
    function = getattr(activations, layer.activation_name)
    config = {"class_name": type(layer).__name__, "config": layer.get_config()}
    expected = function(x)
    for identifier in (name, name.upper(), function, layer, config, activations.serialize(layer)):
        found = activations.get(identifier)
        assert isinstance(found, layers.ActivationLayer)
        assert found.activation_name == layer.activation_name
        np.testing.assert_array_equal(found(x), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_keep_the_precision_and_leave_their_argument_alone(name, dtype):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(dtype)[::2, ::-2]
    before = x.copy()
    y = getattr(activations, activations.get(name).activation_name)(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear"])
def test_functions_take_lists_of_integers(name):
    y = getattr(activations, activations.get(name).activation_name)([[1, -2]])
    assert y.dtype == np.float32


def test_nothing_stands_for_linear():
    assert activations.get(None).activation_name == "linear"
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(activations.get(None)(x), x)


def test_leaky_relu_has_slope_02_by_name_and_03_as_a_layer():
    x = np.array([[-1.0]])
    assert activations.leaky_relu(x) == -0.2
    assert activations.get("leaky_relu")(x) == np.float32(-0.2)
    assert layers.LeakyReLU()(x) == np.float32(-0.3)


def test_get_takes_a_copy_with_a_memory_of_its_own():
    shared = layers.LeakyReLU(0.1)
    first, second = activations.get(shared), activations.get(shared)
    a, b = np.array([[1.0, -1.0]]), np.array([[-1.0, 1.0, 1.0]])
    first(a, training=True)
    second(b, training=True)
    np.testing.assert_allclose(first.backward(np.ones((1, 2))), [[1, 0.1]], rtol=1e-6)
    assert shared.built is False


def test_get_gives_the_precision_asked_for():
    assert activations.get("tanh", dtype="float64")(np.ones((1, 1))).dtype == np.float64
    assert activations.get(layers.ELU(0.5), dtype=np.dtype("float64")).dtype == np.float64


def test_activation_layer_stands_for_what_it_holds():
    assert isinstance(activations.get(layers.Activation("relu")), layers.ReLU)


def test_serialize_keeps_arguments_that_the_name_does_not_imply():
    assert activations.serialize(activations.get("relu")) == "relu"
    config = activations.serialize(activations.get(layers.ReLU(max_value=6)))
    assert activations.get(config).max_value == 6


@pytest.mark.parametrize(("identifier", "error", "words"), [
    ("rleu", ValueError, ["'rleu'", "log_softmax", "Did you mean 'relu'"]),
    (lambda x: x, ValueError, ["derivative", "ActivationLayer", "relu"]),
    (3, TypeError, ["an ActivationLayer", "3", "relu"]),
    (np.ones(2), TypeError, ["array([1., 1.])", "relu"]),
])
def test_what_is_not_an_activation_is_refused_with_the_known_ones(identifier, error, words):
    with pytest.raises(error) as caught:
        activations.get(identifier)
    for word in words:
        assert word in str(caught.value)


def test_functions_are_reachable_from_the_package():
    assert cnnlite.activations.relu(np.array([-1.0])) == 0


def test_a_subclass_is_not_saved_under_the_name_that_it_inherits(tmp_path):
    class Softmax10(layers.Softmax):
        def function(self, x, out):
            return super().function(10 * x, out)

    model = cnnlite.Sequential([cnnlite.Input((3,)), layers.Dense(3, activation=Softmax10())])
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="Softmax10"):
        cnnlite.load_model(tmp_path / "model.safetensors")
    loaded = cnnlite.load_model(tmp_path / "model.safetensors", custom_objects={"Softmax10": Softmax10})
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
