"""The direct gradients of a convolution on their own, also for shapes that normally use Winograd's method."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnnlite import reference
from cnnlite.kernels.convolution.direct_input_gradient import add_direct_input_gradient, by_windows, has_large_kernel
from cnnlite.kernels.convolution.direct_kernel_gradient import add_direct_kernel_gradient
from cnnlite.kernels.geometry import Geometry, fields
from cnnlite.kernels.operation import operation
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


@operation(samples="dy dx")
def input_gradient(dy, kernel, dx, geometry):
    add_direct_input_gradient(dy, kernel, dx, fields(dx.shape, kernel.shape, dy.shape[1:3], geometry))
    return dx


@operation(samples="x dy")
def kernel_gradient(x, dy, dkernel, geometry):
    add_direct_kernel_gradient(x, dy, dkernel, fields(x.shape, dkernel.shape, dy.shape[1:3], geometry))
    return dkernel


def assert_nothing_around(whole):
    assert np.isnan(whole[:MARGIN]).all()
    assert np.isnan(whole[-MARGIN:]).all()


@settings(max_examples=150, deadline=None)
@given(geometries(), st.sampled_from([0, 1, 2, 3, 19]), numbers, numbers, st.sampled_from([1, 1, 1, 2]), st.booleans(),
       dtypes, seeds)
# Rows of dy padded with zeros, which meet an infinity in x.
@example(DrawnGeometry((1, 7), (1, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)), 1, 1, 2, 1, True, "float64", 0)
@np.errstate(all="ignore")
def test_both_equal_their_definitions_and_touch_nothing_else(geometry, n, c, f, groups, spoils, dtype, seed):
    rng = np.random.default_rng(seed)
    shapes = (n, *geometry.size, c * groups), (*geometry.window, c, f * groups), (n, *geometry.output, f * groups)
    x, kernel, dy = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    if spoils:
        x, dy = spoilt(x, rng), spoilt(dy, rng)
    x, kernel, dy = (guarded(array)[0] for array in (x, kernel, dy))
    wide_x, wide_kernel, wide_dy = (array.astype(np.float64) for array in (x, kernel, dy))
    where, epsilon = (*geometry.where, groups), EPSILON[dtype]

    dx, around = guarded(np.full_like(x, 7))
    input_gradient(dy, kernel, dx, Geometry(*where))
    assert_close(dx, reference.conv2d_input_gradient(wide_dy, wide_kernel, x.shape, *where), epsilon)
    assert_nothing_around(around)

    dkernel, around = guarded(np.full_like(kernel, 7))
    kernel_gradient(x, dy, dkernel, Geometry(*where))
    assert_close(dkernel, reference.conv2d_kernel_gradient(wide_x, wide_dy, kernel.shape, *where), epsilon)
    assert_nothing_around(around)


def test_which_way_is_taken():
    assert by_windows(5, 5, 6, 16, 16)
    assert by_windows(7, 7, 3, 64, 16)
    assert by_windows(3, 3, 1, 32, 16)
    assert not by_windows(3, 3, 16, 16, 16)
    assert not by_windows(3, 3, 64, 64, 16)
    assert not by_windows(1, 1, 3, 32, 16)


def test_which_kernels_go_back_by_a_product_of_matrices():
    same = Geometry(pads=((1, 1), (1, 1)))

    def goes(size, window, channels, filters, geometry=same, groups=1):
        shapes = (2, size, size, channels), (*window, channels // groups, filters)
        output = reference.conv2d(np.zeros((1, size, size, 1)), np.zeros((*window, 1, 1)), None, *geometry[:3]).shape
        return has_large_kernel(shapes[1], fields(*shapes, output[1:3], Geometry(*geometry[:3], groups)), 4)

    assert goes(7, (3, 3), 512, 512)
    assert goes(14, (3, 3), 256, 512, Geometry((2, 2), ((0, 1), (0, 1))))
    assert not goes(14, (3, 3), 512, 512)  # many pixels
    assert not goes(7, (3, 3), 64, 64)
    assert not goes(7, (3, 3), 512, 512, groups=2)
    assert not goes(8, (5, 5), 256, 256, Geometry(pads=((2, 2), (2, 2))))  # 25 times as much memory as dx


@pytest.mark.parametrize("geometry", [
    Geometry(), Geometry(pads=((1, 1), (1, 1))), Geometry((2, 2), ((0, 1), (1, 0))), Geometry((3, 1), ((2, 2), (0, 3))),
    Geometry(pads=((2, 2), (3, 1)), dilation=(2, 3)),
])
def test_a_kernel_much_larger_than_the_image_goes_back_by_a_product_of_matrices(geometry):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 7, 8, 70), (3, 3, 70, 500)))
    dy = rng.normal(size=reference.conv2d(x, kernel, None, *geometry).shape).astype(np.float32)
    assert has_large_kernel(kernel.shape, fields(x.shape, kernel.shape, dy.shape[1:3], geometry), 4)
    dx, around = guarded(np.full_like(x, 7))
    input_gradient(dy, kernel, dx, geometry)
    assert_close(dx, reference.conv2d_input_gradient(dy, kernel, x.shape, *geometry), 1e-5)
    assert_nothing_around(around)


def test_single_taps_with_a_stride_and_padding_behind_are_no_plain_product():
    # As many pixels go in as come out, two, but the second output reads only padding.
    x, kernel = np.ones((1, 2, 2, 3), np.float32), np.ones((1, 1, 3, 5), np.float32)
    geometry = Geometry((2, 2), ((0, 2), (0, 2)))
    dy = 1 + reference.conv2d(x, kernel, None, *geometry)
    dx = input_gradient(dy, kernel, np.empty_like(x), geometry)
    np.testing.assert_array_equal(dx, reference.conv2d_input_gradient(dy, kernel, x.shape, *geometry))
    dkernel = kernel_gradient(x, dy, np.empty_like(kernel), geometry)
    np.testing.assert_array_equal(dkernel, reference.conv2d_kernel_gradient(x, dy, kernel.shape, *geometry))


def test_images_without_an_output_pixel_give_zeros():
    x, kernel, dy = (np.ones(shape, np.float32) for shape in ((2, 3, 6, 1), (4, 2, 1, 5), (2, 0, 5, 5)))
    assert not input_gradient(dy, kernel, np.full_like(x, 7), Geometry()).any()
    assert not kernel_gradient(x, dy, np.full_like(kernel, 7), Geometry()).any()
