"""DepthwiseConv2D: gradients, channels that don't see one another, and what is refused."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import check_gradients
from cnnlite.layers import Conv2D, DepthwiseConv2D

RNG = np.random.default_rng
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=20, deadline=None)
@given(
    kernel_size=pairs,
    steps=st.tuples(pairs, st.just((1, 1))) | st.tuples(st.just((1, 1)), pairs),
    padding=st.sampled_from(["valid", "same"]),
    depth_multiplier=st.integers(1, 3),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
    activation=st.sampled_from([None, "tanh", "softmax"]),
    use_bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_are_those_of_finite_differences(kernel_size, steps, padding, depth_multiplier, data_format,
                                                   activation, use_bias, seed):
    layer = DepthwiseConv2D(kernel_size, steps[0], padding, depth_multiplier, data_format, steps[1], activation,
                            use_bias)
    shape = (2, 7, 8, 3) if data_format == "channels_last" else (2, 3, 7, 8)
    report = check_gradients(layer, RNG(seed).normal(size=shape), seed=seed, max_elements=15)
    assert report.ok, report


@pytest.mark.parametrize(("strides", "padding", "dilation_rate"), [
    (1, "valid", 1), (2, "same", 1), ((1, 3), "valid", 1), (1, "same", (2, 3)),
])
def test_channels_first_is_channels_last_transposed(strides, padding, dilation_rate):
    x = RNG(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    last = DepthwiseConv2D((2, 3), strides, padding, 2, "channels_last", dilation_rate, "tanh")
    first = DepthwiseConv2D((2, 3), strides, padding, 2, "channels_first", dilation_rate, "tanh")
    y = last(x, training=True)
    dy = RNG(1).normal(size=y.shape).astype(np.float32)
    first.build((2, 3, 9, 8))
    first.set_weights(last.get_weights())
    np.testing.assert_array_equal(first(x.transpose(0, 3, 1, 2), training=True), y.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(first.backward(dy.transpose(0, 3, 1, 2)), last.backward(dy).transpose(0, 3, 1, 2))
    for name in last.grads:
        np.testing.assert_array_equal(first.grads[name], last.grads[name])


def test_it_is_a_convolution_with_as_many_groups_as_channels():
    x = RNG(0).normal(size=(2, 7, 6, 3))
    depthwise = DepthwiseConv2D(3, 2, "same", 2, dtype="float64", bias_initializer="random_normal")
    y = depthwise(x, training=True)
    grouped = Conv2D(6, 3, 2, "same", groups=3, dtype="float64")
    grouped.build(x.shape)
    kernel, bias = depthwise.get_weights()
    assert kernel.shape == (3, 3, 3, 2)
    grouped.set_weights([kernel.reshape(3, 3, 1, 6), bias])
    np.testing.assert_allclose(grouped(x, training=True), y, atol=1e-12)
    dy = RNG(1).normal(size=y.shape)
    np.testing.assert_allclose(grouped.backward(dy), depthwise.backward(dy), atol=1e-12)
    np.testing.assert_allclose(grouped.grads["kernel"].reshape(kernel.shape), depthwise.grads["kernel"], atol=1e-12)


def test_no_channel_sees_another_one():
    x = RNG(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
    layer = DepthwiseConv2D(3, depth_multiplier=2)
    y = layer(x)
    x[..., 1] = np.nan
    spoilt = layer(x)
    assert np.isnan(spoilt[..., 2:4]).all()
    np.testing.assert_array_equal(spoilt[..., [0, 1, 4, 5]], y[..., [0, 1, 4, 5]])


@pytest.mark.parametrize("kernel_size", [(2, 2), (5, 10)])
@pytest.mark.parametrize("strides", [1, 2, (3, 1)])
def test_same_padding_gives_ceil_of_size_by_stride(kernel_size, strides):
    layer = DepthwiseConv2D(kernel_size, strides, "same")
    sy, sx = layer.strides
    assert layer(np.ones((1, 9, 20, 1))).shape == (1, -(-9 // sy), -(-20 // sx), 1)


@pytest.mark.parametrize(("arguments", "message"), [
    (((1, 0),), "DepthwiseConv2D: kernel_size must be at least 1. Received: kernel_size=0."),
    ((3, 0), "DepthwiseConv2D: strides must be at least 1. Received: strides=0."),
    ((3, 1, "valid", 0), "DepthwiseConv2D: depth_multiplier must be at least 1. Received: depth_multiplier=0."),
    ((3, 2, "valid", 1, None, 2), "DepthwiseConv2D: strides above 1 can't be combined with a dilation_rate above 1."),
])
def test_arguments_that_make_no_convolution_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DepthwiseConv2D(*arguments)


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="the window must fit into the image"):
        DepthwiseConv2D(5)(np.ones((1, 4, 4, 1)))
