"""The direct convolution on its own, also for shapes that `conv2d` computes by Winograd's method."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnlite import reference
from cnnlite.kernels.convolution.conv2d import direct_conv2d, wide_conv2d
from cnnlite.kernels.convolution.direct import pixels_together
from cnnlite.kernels.convolution.wide_pixels import wide_pixels
from cnnlite.kernels.geometry import window_of
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

# Few channels or filters, which have paths of their own, and numbers that fill one or two vectors fully or partly.
numbers = st.sampled_from([1, 2, 3, 4, 6, 8, 10, 16, 17, 20, 31, 32, 33, 40, 48, 65])


def forward(x, kernel, bias, where, groups, out):
    """Compute `conv2d` pixel by pixel, and, where pixels can be grouped, also in groups, which must agree."""
    direct_conv2d(x, kernel, bias, *where, groups, out=out)
    pixels = wide_pixels(x, kernel, window_of(kernel.shape[:2], *where), groups, out.shape[2])
    if pixels > 1:
        alone = out.copy()
        out[...] = 7
        wide_conv2d(x, kernel, bias, *where, pixels, out=out)
        np.testing.assert_array_equal(out, alone)


def assert_nothing_around(whole):
    assert np.isnan(whole[:MARGIN]).all()
    assert np.isnan(whole[-MARGIN:]).all()


@settings(max_examples=150, deadline=None)
@given(geometries(), st.sampled_from([0, 1, 2, 3]), numbers, numbers, st.sampled_from([1, 1, 1, 2]), st.booleans(),
       dtypes, seeds)
# Rows of dy padded with zeros, which meet an infinity in x.
@example(DrawnGeometry((1, 7), (1, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)), 1, 1, 2, 1, True, "float64", 0)
@np.errstate(all="ignore")
def test_it_equals_its_definition_and_touches_nothing_else(geometry, n, c, f, groups, spoils, dtype, seed):
    rng = np.random.default_rng(seed)
    shapes = (n, *geometry.size, c * groups), (*geometry.window, c, f * groups), (f * groups,)
    x, kernel, bias = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    if spoils:
        x = spoilt(x, rng)
    x, kernel = guarded(x)[0], guarded(kernel)[0]
    wide = [array.astype(np.float64) for array in (x, kernel, bias)]
    y, around = guarded(np.full((n, *geometry.output, f * groups), 7, dtype))
    forward(x, kernel, bias, geometry.where, groups, y)
    assert_close(y, reference.conv2d(*wide, *geometry.where, groups), EPSILON[dtype])
    assert_nothing_around(around)


@pytest.mark.parametrize("filters", [1, 3, 6])
def test_pixels_that_are_computed_together_have_the_bits_of_each_alone(filters):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, 12, 13, 4)).astype("f4"), rng.normal(size=(5, 5, 4, filters)).astype("f4")
    where = (1, 1), ((2, 2), (1, 2)), (1, 1)
    y = np.empty((3, 12, 12, filters), np.float32)
    forward(x, kernel, np.zeros(filters, np.float32), where, 1, y)
    # Rows that read a NaN are computed pixel by pixel.
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
    assert pixels_together(1, 1, 1, 30, 16) == 1  # neighbours share no input
    assert pixels_together(10, 5, 1, 28, 16) == 1  # two don't fit into a vector
    assert pixels_together(3, 5, 1, 1, 16) == 1


def test_single_taps_with_a_stride_and_padding_behind_are_no_plain_product():
    # As many pixels go in as come out, two, but the second output reads only padding.
    x, kernel = np.ones((1, 2, 2, 3), np.float32), np.ones((1, 1, 3, 5), np.float32)
    where = (2, 2), ((0, 2), (0, 2)), (1, 1)
    y = np.empty((1, 2, 2, 5), np.float32)
    forward(x, kernel, np.zeros(5, np.float32), where, 1, y)
    np.testing.assert_array_equal(y, reference.conv2d(x, kernel, None, *where))
