"""The depthwise convolution and its two gradients, against the definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels
from cnnlite.reference import NO_PADS
from tests.kernels.drawn import (
    assert_as_defined,
    assert_same_bits_with_one_thread_and_two,
    batches,
    dtypes,
    geometries,
    seeds,
    spoilt,
    two_threads_needed,
)

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
    # Without padding: the kernel doesn't look at it, where the definition multiplies it, 0 * NaN.
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
