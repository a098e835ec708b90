"""Flatten: the order of the values, there and back."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Flatten


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (3,)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_every_rank_becomes_two_axes_and_back(shape, data_format):
    rng = np.random.default_rng(0)
    layer = Flatten(data_format)
    x = rng.normal(size=shape)
    y = layer(x, training=True)
    assert y.shape == layer.compute_output_shape(shape) == (shape[0], int(np.prod(shape[1:])))
    np.testing.assert_array_equal(layer.backward(y), x.astype(np.float32))


def test_channels_first_gives_the_order_of_channels_last():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(Flatten("channels_first")(x.transpose(0, 3, 1, 2)), Flatten()(x))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_gradient_equals_finite_differences(data_format):
    assert cnnlite.check_gradients(Flatten(data_format), np.random.default_rng(0).normal(size=(2, 3, 2, 4))).ok


def test_unknown_sizes_stay_unknown():
    assert Flatten().compute_output_shape((None, 4, 4, 3)) == (None, 48)
    assert Flatten().compute_output_shape((None, None, 4, 3)) == (None, None)


def test_non_contiguous_images_are_read_in_their_order():
    x = np.arange(48.0).reshape(4, 3, 4)
    np.testing.assert_array_equal(Flatten()(x[::2].transpose(0, 2, 1)), x[::2].transpose(0, 2, 1).reshape(2, 12))


def test_config_makes_the_same_layer_and_the_default_is_the_library_s():
    assert Flatten.from_config(Flatten("channels_first").get_config()).data_format == "channels_first"
    assert Flatten().data_format == "channels_last"
    with pytest.raises(ValueError, match="Flatten: data_format must be one of 'channels_last', 'channels_first'"):
        Flatten("channels_frist")


def test_backward_before_forward_and_of_another_shape_are_errors():
    layer = Flatten()
    with pytest.raises(ValueError, match="forward pass in training mode"):
        layer.backward(np.ones((2, 12)))
    layer(np.ones((2, 3, 4)), training=True)
    with pytest.raises(ValueError, match=r"\(2, 12\)"):
        layer.backward(np.ones((2, 3, 4)))
