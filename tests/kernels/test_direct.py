"""The direct convolution on its own, also for shapes that `conv2d` computes by Winograd's method."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnlite import reference
from cnnlite.kernels.conv2d import direct_conv2d, wide_conv2d
from cnnlite.kernels.conv_block import Geometry
from cnnlite.kernels.conv_tasks import kernels_for
from cnnlite.kernels.direct import pixels_together
from cnnlite.kernels.direct_input_gradient import direct_input_gradient, in_planes, input_gradient_weights
from cnnlite.kernels.direct_kernel_gradient import direct_kernel_gradient
from cnnlite.kernels.geometry import window_of
from cnnlite.kernels.matmul import panel_width
from cnnlite.kernels.wide_pixels import wide_pixels
from tests.kernels.drawn import (
    EPSILON,
    MARGIN,
    assert_close,
    compiled_kernels_needed,
    dtypes,
    geometries,
    guarded,
    seeds,
    spoilt,
)
from tests.kernels.drawn import Geometry as DrawnGeometry

pytestmark = compiled_kernels_needed

# Few channels or filters, which have ways of their own; and numbers that fill one vector or two, or don't.
numbers = st.sampled_from([1, 2, 3, 4, 6, 8, 10, 16, 17, 20, 31, 32, 33, 40, 48, 65])


def forward(x, kernel, bias, where, groups, out):
    """`conv2d` pixel by pixel, and where that would be taken by several as one, which must give the same."""
    direct_conv2d(x, kernel, bias, *where, groups, out=out)
    pixels = wide_pixels(x, kernel, window_of(kernel.shape[:2], *where), groups, out.shape[2])
    if pixels > 1:
        alone = out.copy()
        out[...] = 7
        wide_conv2d(x, kernel, bias, *where, pixels, out=out)
        np.testing.assert_array_equal(out, alone)


def input_gradient(dy, kernel, where, groups, out):
    strides, pads, dilation = where
    weights = guarded(input_gradient_weights(kernel, Geometry(*where, groups)))[0]
    window = window_of(kernel.shape[:2], strides, pads, dilation)
    table, kernels = kernels_for(dy.dtype)
    table.complete(lambda: direct_input_gradient(kernels, dy, weights, window, groups, out))


def kernel_gradient(x, dy, kernel_shape, where, groups):
    """Return the gradient, and the array of NaN round the sums."""
    strides, pads, dilation = where
    kh, kw, channels, filters = kernel_shape
    width = panel_width(x.dtype)
    padded = -(-filters // groups // width) * width
    sums, around = guarded(np.zeros((kh, groups, kw * channels, padded), x.dtype))
    window = window_of((kh, kw), strides, pads, dilation)
    table, kernels = kernels_for(x.dtype)

    def add_up():
        sums[...] = 0
        direct_kernel_gradient(kernels, x, dy, window, groups, sums)

    table.complete(add_up)
    mine = sums[..., : filters // groups].reshape(kh, groups, kw, channels, filters // groups)
    return mine.transpose(0, 2, 3, 1, 4).reshape(kernel_shape), around


def assert_nothing_around(whole):
    assert np.isnan(whole[:MARGIN]).all()
    assert np.isnan(whole[-MARGIN:]).all()


@settings(max_examples=150, deadline=None)
@given(geometries(), st.sampled_from([0, 1, 2, 3]), numbers, numbers, st.sampled_from([1, 1, 1, 2]), st.booleans(),
       dtypes, seeds)
# Rows of dy that are filled up with zeros, which meet an infinity of x.
@example(DrawnGeometry((1, 7), (1, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)), 1, 1, 2, 1, True, "float64", 0)
@np.errstate(all="ignore")
def test_all_three_equal_their_definitions_and_touch_nothing_else(geometry, n, c, f, groups, spoils, dtype, seed):
    rng = np.random.default_rng(seed)
    shapes = (n, *geometry.size, c * groups), (*geometry.window, c, f * groups), (f * groups,)
    shapes += ((n, *geometry.output, f * groups),)
    x, kernel, bias, dy = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    if spoils:
        x, dy = spoilt(x, rng), spoilt(dy, rng)
    x, kernel, dy = (guarded(array)[0] for array in (x, kernel, dy))
    wide = [array.astype(np.float64) for array in (x, kernel, bias, dy)]
    where, epsilon = geometry.where, EPSILON[dtype]

    y, around = guarded(np.full_like(dy, 7))
    forward(x, kernel, bias, where, groups, y)
    assert_close(y, reference.conv2d(*wide[:3], *where, groups), epsilon)
    assert_nothing_around(around)

    dx, around = guarded(np.full_like(x, 7))
    input_gradient(dy, kernel, where, groups, dx)
    assert_close(dx, reference.conv2d_input_gradient(wide[3], wide[1], x.shape, *where, groups), epsilon)
    assert_nothing_around(around)

    dkernel, around = kernel_gradient(x, dy, kernel.shape, where, groups)
    assert_close(dkernel, reference.conv2d_kernel_gradient(wide[0], wide[3], kernel.shape, *where, groups), epsilon)
    assert_nothing_around(around)


@pytest.mark.parametrize("filters", [1, 3, 6])
def test_pixels_that_are_computed_together_have_the_bits_of_each_alone(filters):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, 12, 13, 4)).astype("f4"), rng.normal(size=(5, 5, 4, filters)).astype("f4")
    where = (1, 1), ((2, 2), (1, 2)), (1, 1)
    y = np.empty((3, 12, 12, filters), np.float32)
    forward(x, kernel, np.zeros(filters, np.float32), where, 1, y)
    # Rows that read a NaN go pixel by pixel.
    spoilt_x = x.copy()
    spoilt_x[1, 0, 0] = np.nan
    z = np.empty_like(y)
    forward(spoilt_x, kernel, np.zeros(filters, np.float32), where, 1, z)
    assert np.isnan(z[1, :3, :2]).all()
    assert np.isnan(z).sum() == z[1, :3, :2].size
    np.testing.assert_array_equal(z[~np.isnan(z)], y[~np.isnan(z)])


def test_which_way_is_taken():
    assert pixels_together(6, 5, 1, 28, 16) == 2
    assert pixels_together(1, 7, 1, 30, 16) > 4
    assert pixels_together(1, 1, 1, 30, 16) == 1  # nothing is shared by neighbours
    assert pixels_together(10, 5, 1, 28, 16) == 1  # two don't fit into a vector
    assert pixels_together(3, 5, 1, 1, 16) == 1
    assert in_planes(9, 1, 32, 16)
    assert in_planes(25, 6, 16, 16)
    assert not in_planes(9, 16, 16, 16)
    assert not in_planes(9, 64, 64, 16)


def test_single_taps_with_a_stride_and_padding_behind_are_no_plain_product():
    # Two pixels go in and two come out, of which the second is padding.
    x, kernel = np.ones((1, 2, 2, 3), np.float32), np.ones((1, 1, 3, 5), np.float32)
    where = (2, 2), ((0, 2), (0, 2)), (1, 1)
    y = np.empty((1, 2, 2, 5), np.float32)
    forward(x, kernel, np.zeros(5, np.float32), where, 1, y)
    np.testing.assert_array_equal(y, reference.conv2d(x, kernel, None, *where))
    dx = np.empty_like(x)
    input_gradient(y + 1, kernel, where, 1, dx)
    np.testing.assert_array_equal(dx, reference.conv2d_input_gradient(y + 1, kernel, x.shape, *where))
    dkernel, _ = kernel_gradient(x, y + 1, kernel.shape, where, 1)
    np.testing.assert_array_equal(dkernel, reference.conv2d_kernel_gradient(x, y + 1, kernel.shape, *where))
