"""Dense: gradients, inner axes, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import check_gradients
from cnnlite.layers import Dense

RNG = np.random.default_rng


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    units=st.sampled_from([1, 2, 7, 8, 9, 17]),
    activation=st.sampled_from([None, "tanh", "sigmoid", "softmax"]),
    use_bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_are_those_of_finite_differences(shape, units, activation, use_bias, seed):
    layer = Dense(units, activation, use_bias)
    report = check_gradients(layer, RNG(seed).normal(size=shape), seed=seed, max_elements=20)
    assert report.ok, report


def test_it_is_x_times_kernel_plus_bias():
    layer = Dense(2)
    layer.build((None, 3))
    layer.set_weights([[[1, 2], [3, 4], [5, 6]], [10, 20]])
    assert layer([[1, 0, 0], [1, 1, 1]]).tolist() == [[11, 22], [19, 32]]


def test_inner_axes_are_kept():
    x = RNG(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    layer = Dense(6)
    y = layer(x)
    assert y.shape == (2, 3, 4, 6)
    np.testing.assert_allclose(y.reshape(-1, 6), layer.forward(x.reshape(24, 5).reshape(2, 3, 4, 5)).reshape(-1, 6))
    np.testing.assert_allclose(y, x @ layer.params["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((0,), ValueError, "Dense: units must be at least 1. Received: units=0."),
    ((-3,), ValueError, "Dense: units must be at least 1. Received: units=-3."),
    ((2.5,), TypeError, "Dense: units must be an integer. Received: units=2.5."),
    ((2, None, "yes"), TypeError, "Dense: use_bias must be True or False. Received: use_bias='yes'."),
])
def test_arguments_that_make_no_layer_are_refused(arguments, error, message):
    with pytest.raises(error) as raised:
        Dense(*arguments)
    assert str(raised.value) == message


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="rleu"):
        Dense(2, "rleu")


def test_one_axis_is_too_few():
    layer = Dense(2)
    with pytest.raises(ValueError, match=r"at least 2 axes, \(samples, features\). Received: shape=\(3,\)"):
        layer(np.ones(3))
    assert not layer.built


def test_one_layer_takes_rows_of_any_number_of_axes():
    layer = Dense(2)
    rows = np.random.default_rng(0).normal(size=(20, 3))
    y = layer(rows)
    np.testing.assert_array_equal(layer(rows.reshape(4, 5, 3)), y.reshape(4, 5, 2))
    with pytest.raises(ValueError, match=r"axis -1 of the input must have size 3.*Received: shape=\(4, 5, 2\)"):
        layer(np.ones((4, 5, 2)))
    with pytest.raises(ValueError, match=r"axis -1 of the input must have size 3.*Received: shape=\(3,\)"):
        layer(np.ones(3))
