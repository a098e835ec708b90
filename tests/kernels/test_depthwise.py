"""The depthwise convolution and its two gradients, against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels
from cnnlite.reference import NO_PADS
from tests.kernels.drawn import (
    assert_as_defined,
    assert_same_bits_with_one_thread_and_two,
    batches,
    compiled_kernels_needed,
    dtypes,
    geometries,
    seeds,
    spoilt,
    two_threads_needed,
)
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

# (channels, depth multiplier)
channels = st.sampled_from([(1, 1), (1, 3), (3, 2), (15, 1), (16, 1), (17, 2), (33, 1)])


def arrays(geometry, n, channels, dtype, seed):
    """Return x, kernel, bias and dy."""
    rng = np.random.default_rng(seed)
    c, m = channels
    shapes = (n, *geometry.size, c), (*geometry.window, c, m), (c * m,), (n, *geometry.output, c * m)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@settings(max_examples=50, deadline=None)
@given(geometries(), batches, channels, st.booleans(), dtypes, seeds)
def test_all_three_equal_their_definitions(geometry, n, channels, has_bias, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, dtype, seed)
    assert_as_defined("depthwise_conv2d", [x, kernel, bias if has_bias else None], *geometry.where)
    assert_as_defined("depthwise_conv2d_input_gradient", [dy, kernel], x.shape, *geometry.where)
    assert_as_defined("depthwise_conv2d_kernel_gradient", [x, dy], kernel.shape, *geometry.where)


@settings(max_examples=30, deadline=None)
@given(geometries(), channels, dtypes, seeds)
def test_nan_and_infinity_land_where_the_definition_has_them(geometry, channels, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, 2, channels, dtype, seed)
    rng = np.random.default_rng(seed)
    assert_as_defined("depthwise_conv2d", [spoilt(x, rng), kernel, bias], *geometry.where)
    assert_as_defined("depthwise_conv2d_input_gradient", [spoilt(dy, rng), kernel], x.shape, *geometry.where)
    assert_as_defined("depthwise_conv2d_kernel_gradient", [spoilt(x, rng), dy], kernel.shape, *geometry.where)
    # Without padding: the kernel skips it, where the definition multiplies it, 0 * NaN.
    geometry = geometry._replace(pads=NO_PADS, size=tuple(a + sum(b) for a, b in zip(geometry.size, geometry.pads)))
    x, kernel, bias, dy = arrays(geometry, 2, channels, dtype, seed)
    assert_as_defined("depthwise_conv2d_kernel_gradient", [x, spoilt(dy, rng)], kernel.shape, *geometry.where)


@two_threads_needed
@settings(max_examples=15, deadline=None)
@given(geometries(), batches, channels, seeds)
def test_one_thread_and_two_give_the_same_bits(geometry, n, channels, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, "float32", seed)

    def everything():
        return [
            kernels.depthwise_conv2d(x, kernel, bias, *geometry.where),
            kernels.depthwise_conv2d_input_gradient(dy, kernel, x.shape, *geometry.where),
            kernels.depthwise_conv2d_kernel_gradient(x, dy, kernel.shape, *geometry.where),
        ]

    assert_same_bits_with_one_thread_and_two(everything)


def test_it_is_a_convolution_with_a_group_for_each_channel():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(3, 2, 3, 2))
    depthwise = kernels.depthwise_conv2d(x, kernel)
    grouped = kernels.conv2d(x, kernel.reshape(3, 2, 1, 6), groups=3)
    np.testing.assert_allclose(depthwise, grouped, rtol=1e-12, atol=1e-12)


# (size, kernel, strides, pads, dilation)
WINDOWS = [
    ((11, 13), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((9, 12), (2, 5), (2, 3), ((1, 0), (3, 2)), (1, 1)),
    ((7, 4), (3, 3), (1, 2), ((2, 2), (2, 2)), (2, 3)),
    ((17, 16), (17, 16), (1, 1), ((3, 3), (3, 3)), (1, 1)),  # more than 256 taps
]


@compiled_kernels_needed
@pytest.mark.parametrize(("n", "channels", "dtype"), [
    (0, (3, 1), "float32"), (1, (33, 1), "float64"), (2, (5, 2), "float32"), (3, (17, 1), "float32"),
    (17, (16, 1), "float32"), (33, (3, 2), "float64"),
])
def test_the_bits_depend_on_no_schedule_and_on_no_other_image(n, channels, dtype):
    rng = np.random.default_rng(n)
    for size, window, *where in WINDOWS:
        c, m = channels
        x, kernel, bias = (rng.normal(size=shape).astype(dtype)
                           for shape in ((n, *size, c), (*window, c, m), (c * m,)))
        dy = rng.normal(size=kernels.depthwise_conv2d(x, kernel, bias, *where).shape).astype(dtype)

        def forward(x, kernel, bias, where=where):
            return kernels.depthwise_conv2d(x, kernel, bias, *where)

        def input_gradient(dy, kernel, shape=x.shape, where=where):
            return kernels.depthwise_conv2d_input_gradient(dy, kernel, (dy.shape[0], *shape[1:]), *where)

        def kernel_gradient(x, dy, shape=kernel.shape, where=where):
            return kernels.depthwise_conv2d_kernel_gradient(x, dy, shape, *where)

        [y] = assert_same_bits(forward, {"x": x, "kernel": kernel, "bias": bias}, "x")
        assert y.tobytes() == kernels.depthwise_conv2d(x, kernel, bias, *where).tobytes()
        assert_same_bits_alone(forward, {"x": x[:3], "kernel": kernel, "bias": bias}, "x")
        [dx] = assert_same_bits(input_gradient, {"dy": dy, "kernel": kernel}, "dy")
        assert dx.tobytes() == kernels.depthwise_conv2d_input_gradient(dy, kernel, x.shape, *where).tobytes()
        assert_same_bits_alone(input_gradient, {"dy": dy[:3], "kernel": kernel}, "dy")
        assert_same_bits(kernel_gradient, {"x": x, "dy": dy}, "x dy")


@compiled_kernels_needed
@pytest.mark.parametrize("m", [1, 2])
def test_a_pixel_at_the_border_leaves_out_the_taps_in_padding(m):
    # 0 * infinity would be NaN.
    x, kernel = np.ones((1, 4, 5, 3), np.float32), np.ones((3, 3, 3, m), np.float32)
    kernel[0, 0] = np.inf
    y = kernels.depthwise_conv2d(x, kernel, None, (1, 1), ((1, 1), (1, 1)))[0, ..., 0]
    assert y[0].tolist() == [4, 6, 6, 6, 4]
    assert y[1].tolist() == [6, np.inf, np.inf, np.inf, np.inf]


@compiled_kernels_needed
def test_images_of_another_number_than_gradients_are_refused():
    with pytest.raises(ValueError, match=r"depthwise_conv2d_input_gradient: dy must have the shape \(3, 4, 4, 2\)"):
        kernels.depthwise_conv2d_input_gradient(np.ones((2, 4, 4, 2)), np.ones((1, 1, 2, 1)), (3, 4, 4, 2))
