"""Conv2D: gradients, padding, groups, and what is no convolution."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import check_gradients, initializers, layers
from cnnlite.kernels.convolution.winograd import winograd_is_faster
from cnnlite.layers import Conv2D

RNG = np.random.default_rng
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=25, deadline=None)
@given(
    kernel_size=pairs,
    steps=st.tuples(pairs, st.just((1, 1))) | st.tuples(st.just((1, 1)), pairs),
    padding=st.sampled_from(["valid", "same"]),
    groups=st.sampled_from([1, 2]),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
    activation=st.sampled_from([None, "tanh", "sigmoid", "softmax"]),
    use_bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_are_those_of_finite_differences(kernel_size, steps, padding, groups, data_format, activation,
                                                   use_bias, seed):
    layer = Conv2D(4, kernel_size, steps[0], padding, data_format, steps[1], groups, activation, use_bias)
    shape = (2, 7, 8, 2) if data_format == "channels_last" else (2, 2, 7, 8)
    report = check_gradients(layer, RNG(seed).normal(size=shape), seed=seed, max_elements=15)
    assert report.ok, report


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel_size", "channels", "filters"), [(2, 16, 17), (3, 17, 19), (4, 20, 16), (5, 16, 33)])
def test_gradients_with_many_channels_are_those_of_finite_differences(kernel_size, channels, filters, padding):
    layer = Conv2D(filters, kernel_size, padding=padding, activation="tanh")
    x = RNG(0).normal(size=(3, 14, 14, channels))
    before = kernel_size // 2 if padding == "same" else 0
    assert winograd_is_faster(kernel_size, 14, before, layer.compute_output_shape(x.shape)[1:3], channels, filters)
    report = check_gradients(layer, x, max_elements=25)
    assert report.ok, report


# From the field's test suites: kernel_size, strides, padding, dilation_rate, groups
CASES = [
    (2, 1, "valid", 1, 1),
    (3, 2, "same", 1, 1),
    (2, 1, "same", 2, 2),
    (2, 1, "same", (2, 3), 2),
    ((4, 3), (2, 1), "valid", 1, 2),
    (1, 1, "valid", 1, 1),
    (1, 3, "same", 1, 1),
    ((5, 10), 1, "same", 1, 1),
]


@pytest.mark.parametrize(("kernel_size", "strides", "padding", "dilation_rate", "groups"), CASES)
def test_channels_first_is_channels_last_transposed(kernel_size, strides, padding, dilation_rate, groups):
    x = RNG(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    last = Conv2D(6, kernel_size, strides, padding, "channels_last", dilation_rate, groups, "tanh")
    first = Conv2D(6, kernel_size, strides, padding, "channels_first", dilation_rate, groups, "tanh")
    y = last(x, training=True)
    dy = RNG(1).normal(size=y.shape).astype(np.float32)
    first.build((2, 4, 8, 8))
    first.set_weights(last.get_weights())
    assert first.output_shape == (None, 6, *y.shape[1:3])
    np.testing.assert_array_equal(first(x.transpose(0, 3, 1, 2), training=True), y.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(first.backward(dy.transpose(0, 3, 1, 2)), last.backward(dy).transpose(0, 3, 1, 2))
    for name in last.grads:
        np.testing.assert_array_equal(first.grads[name], last.grads[name])


@pytest.mark.parametrize(("kernel_size", "strides", "padding", "dilation_rate", "groups"), CASES)
def test_gradients_of_the_cases_worth_having(kernel_size, strides, padding, dilation_rate, groups):
    layer = Conv2D(6, kernel_size, strides, padding, None, dilation_rate, groups)
    report = check_gradients(layer, RNG(0).normal(size=(2, 8, 8, 4)), max_elements=20)
    assert report.ok, report


@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 4), (5, 10), (12, 1)])
@pytest.mark.parametrize("strides", [1, 2, (3, 1), (1, 5)])
def test_same_padding_gives_ceil_of_size_by_stride(kernel_size, strides):
    # Also for even kernels, and for those larger than the image.
    layer = Conv2D(1, kernel_size, strides, "same")
    sy, sx = layer.strides
    assert layer(np.ones((1, 9, 20, 1))).shape == (1, -(-9 // sy), -(-20 // sx), 1)


def test_the_odd_pixel_of_same_padding_is_at_the_bottom_and_the_right():
    layer = Conv2D(1, 2, padding="same", kernel_initializer="ones")
    assert layer(np.ones((1, 3, 3, 1)))[0, :, :, 0].tolist() == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]
    layer = Conv2D(1, 3, strides=2, padding="same", kernel_initializer="ones")  # 5 -> 3, one pixel on each side
    assert layer(np.ones((1, 5, 5, 1)))[0, :, :, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    layer = Conv2D(1, 3, strides=2, padding="same", kernel_initializer="ones")  # 4 -> 2, one pixel after
    assert layer(np.ones((1, 4, 4, 1)))[0, :, :, 0].tolist() == [[9, 6], [6, 4]]


def test_the_kernel_is_not_turned_round():
    layer = Conv2D(1, (1, 2), use_bias=False)
    layer.build((1, 1, 3, 1))
    layer.set_weights([np.array([1.0, 10.0]).reshape(1, 2, 1, 1)])
    assert layer(np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)).ravel().tolist() == [21, 32]


def test_two_groups_equal_two_convolutions_gradients_included():
    x = RNG(0).normal(size=(2, 8, 8, 4))
    layer = Conv2D(6, 2, padding="same", dilation_rate=2, groups=2, dtype="float64", bias_initializer="random_normal")
    y = layer(x, training=True)
    dy = RNG(1).normal(size=y.shape)
    dx = layer.backward(dy)
    for g in range(2):
        channels, filters = slice(2 * g, 2 * g + 2), slice(3 * g, 3 * g + 3)
        half = Conv2D(3, 2, padding="same", dilation_rate=2, dtype="float64")
        half.build((2, 8, 8, 2))
        half.set_weights([layer.params["kernel"][..., filters], layer.params["bias"][filters]])
        np.testing.assert_allclose(half(x[..., channels], training=True), y[..., filters], rtol=0, atol=1e-12)
        np.testing.assert_allclose(half.backward(dy[..., filters]), dx[..., channels], rtol=0, atol=1e-12)
        for name, gradient in half.grads.items():
            np.testing.assert_allclose(gradient, layer.grads[name][..., filters], rtol=0, atol=1e-11)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_it_is_the_product_of_the_im2col_matrix_and_the_kernel(data_format):
    x = RNG(0).normal(size=(2, 7, 6, 3) if data_format == "channels_last" else (2, 3, 7, 6))
    layer = Conv2D(5, (3, 2), (2, 1), "same", data_format, dtype="float64", use_bias=False)
    y = layer(x)
    rows = layer.im2col(x)
    assert rows.shape == (2 * 4 * 6, 3 * 2 * 3)
    product = (rows @ layer.params["kernel"].reshape(-1, 5)).reshape(2, 4, 6, 5)
    if data_format == "channels_first":
        product = product.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(y, product, atol=1e-12)


def test_one_pixel_kernels_are_a_dense_layer_on_every_pixel():
    x = RNG(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    conv, dense = Conv2D(7, 1), layers.Dense(7)
    y = conv(x)
    dense.build(x.shape)
    dense.set_weights([conv.params["kernel"][0, 0], conv.params["bias"]])
    np.testing.assert_allclose(dense(x), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("arguments", "message"), [
    ((0, 3), "Conv2D: filters must be at least 1. Received: filters=0."),
    ((2, (1, 0)), "Conv2D: kernel_size must be at least 1. Received: kernel_size=0."),
    ((2, 3, 0), "Conv2D: strides must be at least 1. Received: strides=0."),
    ((2, (1, 2, 3)), "Conv2D: kernel_size must be an integer or a pair of integers. Received: kernel_size=(1, 2, 3)."),
    ((2, 3, 2, "valid", None, 2),
     "Conv2D: strides above 1 can't be combined with a dilation_rate above 1. "
     "Received: strides=(2, 2), dilation_rate=(2, 2)."),
    ((2, 3, 1, "valid", None, 1, 0), "Conv2D: groups must be at least 1. Received: groups=0."),
    ((5, 3, 1, "valid", None, 1, 2), "Conv2D: filters must be divisible by groups. Received: filters=5, groups=2."),
    ((2, 3, 1, "full"), "Conv2D: padding must be one of 'valid', 'same'. Received: padding='full'."),
    ((2, 3, 1, "valid", "last"), "Conv2D: data_format must be one of 'channels_last', 'channels_first'."),
])
def test_arguments_that_make_no_convolution_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Conv2D(*arguments)


def test_numbers_of_another_type_are_refused():
    with pytest.raises(TypeError, match=r"filters must be an integer. Received: filters=2.5"):
        Conv2D(2.5, 3)
    with pytest.raises(TypeError, match=r"use_bias must be True or False"):
        Conv2D(2, 3, use_bias=1)


@pytest.mark.parametrize(("shape", "message"), [
    ((1, 4, 4, 1), r"the window must fit into the image. Received: a window that spans \(5, 5\) pixels and an image "
                   r"of \(4, 4\). Use a smaller window or padding='same'"),
    ((1, 8, 8), r"the input must have 4 axes, including the batch. Received: shape=\(1, 8, 8\)"),
    ((1, 8, 8, None), r"the size of axis -1 of the input must be known"),
])
def test_inputs_that_do_not_fit_leave_the_layer_unbuilt(shape, message):
    layer = Conv2D(2, 5)
    with pytest.raises(ValueError, match=message):
        layer.build(shape)
    assert not layer.built
    assert not layer.params
    layer.build((1, 8, 8, 1))


def test_channels_must_be_divisible_by_groups():
    with pytest.raises(ValueError, match=r"the channels of the input must be divisible by groups. "
                                         r"Received: channels=3, groups=2"):
        Conv2D(4, 3, groups=2)(np.ones((1, 8, 8, 3)))


def test_a_smaller_image_later_on_is_checked_too():
    layer = Conv2D(2, 5)
    layer(np.ones((1, 8, 8, 1)))
    assert layer(np.ones((1, 5, 9, 1))).shape == (1, 1, 5, 2)  # other sizes are no error
    with pytest.raises(ValueError, match="the window must fit into the image"):
        layer(np.ones((1, 4, 4, 1)))


def test_the_size_of_the_image_may_be_unknown():
    layer = Conv2D(2, 3, padding="same", strides=2)
    layer.build((None, None, None, 3))
    assert layer.output_shape == (None, None, None, 2)
    assert layer(np.ones((1, 5, 6, 3))).shape == (1, 3, 3, 2)


@pytest.mark.parametrize("make", [
    lambda **arguments: layers.Conv2D(3, 3, kernel_initializer=initializers.GlorotUniform(1), **arguments),
    lambda **arguments: layers.DepthwiseConv2D(3, depthwise_initializer=initializers.GlorotUniform(1), **arguments),
])
@pytest.mark.parametrize("arguments", [{"dilation_rate": (6, 7)}, {"strides": (6, 7)}])
def test_taps_and_windows_as_far_apart_as_can_be_are_as_those_one_image_apart(make, arguments):
    # In 64 bits a larger distance, times a kernel's size, is a negative one: kernels read what lay before the image.
    ((name, _),) = arguments.items()
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 4)).astype(np.float32)
    near, far = (make(padding="same", **{name: value}) for value in (arguments[name], 2**31 - 1))
    y, y_far = (layer(x, training=True) for layer in (near, far))
    np.testing.assert_array_equal(y, y_far)
    np.testing.assert_array_equal(near.backward(np.ones_like(y)), far.backward(np.ones_like(y)))
    with pytest.raises(ValueError, match=r"must be less than 2\*\*31"):
        make(padding="same", **{name: 2**31})
