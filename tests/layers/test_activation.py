"""The activations as layers: gradients, arguments, memory, and the axis of softmax."""

import numpy as np
import pytest

import cnnlite
from cnnlite import activations, layers

LAYERS = [
    layers.Linear(),
    layers.ReLU(),
    layers.ReLU(max_value=1.0),
    layers.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.25),
    layers.LeakyReLU(),
    layers.LeakyReLU(negative_slope=0),
    layers.ELU(alpha=0.7),
    layers.GELU(),
    layers.GELU(approximate=True),
    layers.SiLU(),
    layers.Sigmoid(),
    layers.Tanh(),
    layers.Softplus(),
    layers.Softmax(),
    layers.Softmax(axis=1),
    layers.Softmax(axis=[1, 2]),
    layers.LogSoftmax(),
    *(layers.Activation(name) for name in sorted(activations.ACTIVATIONS)),
]
IDS = [f"{layer.name}-{number}" for number, layer in enumerate(LAYERS)]


def fresh(layer, **arguments):
    return type(layer).from_config({**layer.get_config(), **arguments})


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_gradient_equals_finite_differences(layer):
    x = 2 * np.random.default_rng(0).normal(size=(3, 2, 4))
    report = cnnlite.check_gradients(layer, x)
    assert report.ok, report
    assert report.max_error < 1e-9


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_config_makes_the_same_layer(layer):
    x = np.random.default_rng(0).normal(size=(3, 2, 4))
    twin = fresh(layer)
    assert twin.get_config() == layer.get_config()
    np.testing.assert_array_equal(twin(x), layer(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_arguments_are_not_written_to_and_precision_is_kept(layer, dtype):
    rng = np.random.default_rng(0)
    layer = fresh(layer, dtype=dtype)
    x, dy = (rng.normal(size=(3, 2, 4)).astype(dtype) for _ in range(2))
    arrays = x.copy(), dy.copy()
    y = layer(x, training=True)
    dx = layer.backward(dy)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(x, arrays[0])
    np.testing.assert_array_equal(dy, arrays[1])
    np.testing.assert_array_equal(layer.backward(dy), dx)  # twice is the same
    np.testing.assert_array_equal(layer(x), y)


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_memory_order_makes_no_difference(layer):
    layer = fresh(layer)
    x = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    for view in (x[::2], x.transpose(2, 0, 1), np.asfortranarray(x), x[:, ::-1]):
        y = fresh(layer)(view, training=True)
        np.testing.assert_array_equal(y, fresh(layer)(np.ascontiguousarray(view)))
        other, twin = fresh(layer), fresh(layer)
        other(view, training=True)
        twin(view.copy(), training=True)
        np.testing.assert_array_equal(other.backward(view), twin.backward(np.ascontiguousarray(view)))


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_backward_before_forward_is_an_error(layer):
    layer = fresh(layer)
    layer(np.ones((1, 2, 3)))  # inference remembers nothing
    with pytest.raises(ValueError, match="forward pass in training mode"):
        layer.backward(np.ones((1, 2, 3)))


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_gradient_of_another_shape_is_an_error(layer):
    layer = fresh(layer)
    layer(np.ones((1, 2, 3)), training=True)
    with pytest.raises(ValueError, match=r"dy must have the shape of the output, \(1, 2, 3\)"):
        layer.backward(np.ones((2, 3)))


@pytest.mark.parametrize("training", [False, True])
def test_no_result_is_overwritten_by_the_next_call(training):
    layer = layers.Tanh()
    x = np.random.default_rng(0).normal(size=(2, 3))
    first = layer(x, training=training)
    kept = first.copy()
    layer(2 * x, training=training)
    np.testing.assert_array_equal(first, kept)


def test_relu_follows_its_three_arguments():
    x = np.array([[-10, -5, 0, 5, 10]])
    np.testing.assert_allclose(layers.ReLU(10, 0.5, 0)(x), [[-5, -2.5, 0, 5, 10]])
    np.testing.assert_allclose(layers.ReLU(max_value=6)(x), [[0, 0, 0, 5, 6]])
    np.testing.assert_allclose(layers.ReLU(threshold=5)(x), [[0, 0, 0, 0, 10]])


def test_softmax_sums_to_one_along_its_axis():
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_allclose(layers.Softmax()(x).sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(layers.Softmax(axis=1)(x).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(layers.Softmax(axis=(1, 2))(x).sum(axis=(1, 2)), 1, rtol=1e-6)


def test_only_a_softmax_along_the_last_axis_is_called_softmax():
    # A loss that is fused with "softmax" takes it to run along the last axis.
    assert layers.Softmax().activation_name == "softmax"
    assert layers.Softmax(axis=1).activation_name != "softmax"
    assert layers.Activation("softmax").activation_name == "softmax"


@pytest.mark.parametrize(("make", "message"), [
    (lambda: layers.ReLU(max_value=-1), "ReLU: max_value must be at least 0"),
    (lambda: layers.ReLU(negative_slope=-0.1), "ReLU: negative_slope must be at least 0"),
    (lambda: layers.ReLU(threshold=-1), "ReLU: threshold must be at least 0"),
    (lambda: layers.LeakyReLU(-0.5), "LeakyReLU: negative_slope must be at least 0"),
    (lambda: layers.Softmax(axis=3)(np.ones((2, 3))), r"axis must be one of the 2 axes"),
    (lambda: layers.Activation("softmx"), "Did you mean 'softmax'"),
])
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_slope_may_be_called_alpha_as_in_older_scripts():
    assert layers.LeakyReLU(alpha=0.1).negative_slope == 0.1
