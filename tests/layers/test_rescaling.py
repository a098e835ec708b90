"""Rescaling: values, gradients, and constants that are refused."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Rescaling


def test_bytes_become_floats_in_range():
    x = np.array([[0, 51, 255]], np.uint8)
    y = Rescaling(1 / 255)(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, [[0, 0.2, 1]], rtol=1e-6)
    np.testing.assert_array_equal(Rescaling(1 / 255)(x, training=True), y)


@pytest.mark.parametrize(("scale", "offset"), [(0.5, 0.0), (2.0, -1.0), ([1.0, 2.0, 3.0], [[0.5], [1.0]])])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients(scale, offset, dtype):
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(dtype)
    before = x.copy()
    layer = Rescaling(scale, offset, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, x * np.array(scale) + np.array(offset), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x, before)
    assert cnnlite.check_gradients(layer, x).ok
    assert Rescaling.from_config(layer.get_config()).get_config() == layer.get_config()


def test_numbers_of_the_constants_belong_to_the_layer():
    scale = np.array([1.0, 2.0])
    layer = Rescaling(scale)
    scale[:] = 0
    np.testing.assert_array_equal(layer(np.ones((1, 2))), [[1, 2]])


def test_wrong_constants_are_refused():
    with pytest.raises(TypeError, match="Rescaling: scale must be an array of real numbers"):
        Rescaling("1/255")
    with pytest.raises(ValueError, match="Rescaling: offset must be finite"):
        Rescaling(1, offset=np.nan)
    for scale in (np.ones(4), np.ones((1, 1, 1, 1))):
        with pytest.raises(ValueError, match="scale must be a number or broadcast"):
            Rescaling(scale)(np.ones((2, 2, 3)))
    with pytest.raises(ValueError, match="forward pass in training mode"):
        Rescaling(2).backward(np.ones((1, 2)))


def test_an_array_of_constants_is_that_of_the_channels_in_both_layouts():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    expected = Rescaling([1, 2, 3], [4, 5, 6])(x)
    layer = Rescaling([1, 2, 3], offset=[4, 5, 6], data_format="channels_first")
    np.testing.assert_array_equal(layer(first), expected.transpose(0, 3, 1, 2))
    assert cnnlite.check_gradients(layer, first[:1]).ok
    np.testing.assert_array_equal(layer(np.ones((1, 3))), [[5, 7, 9]])  # where there are no pixels
    planes = Rescaling(np.full((3, 1, 1), 2.0), data_format="channels_first")
    np.testing.assert_array_equal(planes(first), 2 * first)
    cnnlite.config.set_image_data_format("channels_first")
    try:
        by_config = Rescaling([1, 2, 3], [4, 5, 6])
    finally:
        cnnlite.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(by_config(first), layer(first))
    np.testing.assert_array_equal(Rescaling.from_config(by_config.get_config())(first), layer(first))


def test_an_input_that_the_constants_do_not_fit_is_refused_whenever_it_comes():
    layer = Rescaling([1.0, 2.0, 3.0])
    layer(np.ones((2, 3)))
    for x in (np.ones((2, 4)), np.ones((3, 2))):
        for training in (False, True):
            with pytest.raises(ValueError, match="scale must be a number or broadcast against the input"):
                layer(x, training=training)
