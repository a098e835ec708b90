"""ZeroPadding2D: the forms of padding, and a frame that stays zero."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import ZeroPadding2D


@pytest.mark.parametrize(("padding", "sides"), [
    (0, ((0, 0), (0, 0))), (2, ((2, 2), (2, 2))), ((1, 2), ((1, 1), (2, 2))), (((1, 2), (3, 0)), ((1, 2), (3, 0))),
    ((1, (0, 3)), ((1, 1), (0, 3))),
])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_forms_of_padding_equal_numpy_s_pad_and_backward_crops(padding, sides, data_format):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    layer = ZeroPadding2D(padding, data_format)
    frame = ((0, 0), *sides, (0, 0)) if data_format == "channels_last" else ((0, 0), (0, 0), *sides)
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, np.pad(x, frame))
    assert y.shape == layer.compute_output_shape(x.shape)
    dx = layer.backward(y + 1)
    np.testing.assert_array_equal(dx, x + 1)
    np.testing.assert_array_equal(layer.backward(y + 1), dx)
    assert cnnlite.check_gradients(layer, x).ok


def test_what_is_written_to_a_frame_does_not_show_in_the_next_result():
    layer = ZeroPadding2D(1)
    x = np.ones((1, 2, 2, 1))
    layer(x, training=True)[...] = 7
    assert layer(x, training=True).sum() == 4


def test_default_is_one_pixel_and_unknown_sizes_stay_unknown():
    assert ZeroPadding2D().compute_output_shape((None, 4, None, 3)) == (None, 6, None, 3)


def test_non_contiguous_images_and_empty_batches():
    x = np.random.default_rng(0).normal(size=(4, 3, 5, 2)).astype(np.float32)
    frame = ((0, 0), (1, 1), (1, 1), (0, 0))
    np.testing.assert_array_equal(ZeroPadding2D()(x[::2, ::-1]), np.pad(x[::2, ::-1], frame))
    assert ZeroPadding2D()(x[:0]).shape == (0, 5, 7, 2)


@pytest.mark.parametrize(("padding", "error"), [
    (-1, ValueError), ((1, 2, 3), ValueError), ("ab", ValueError), (((1, 2, 3), 1), ValueError), (None, ValueError),
    ((1.5, 1), ValueError),
])
def test_wrong_padding_is_refused(padding, error):
    with pytest.raises(error, match="ZeroPadding2D: padding must be"):
        ZeroPadding2D(padding)


def test_config_makes_the_same_layer_and_rank_is_checked():
    layer = ZeroPadding2D(((1, 2), (3, 0)), "channels_first")
    assert ZeroPadding2D.from_config(layer.get_config()).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="the input must have 4 axes"):
        layer(np.ones((2, 3)))
