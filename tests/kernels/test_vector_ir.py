"""Pooling in vector instructions: every length of the last vector, and not a byte beside what it may write."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from cnnlite.kernels.conv_block import follow
from cnnlite.kernels.conv_tasks import MAX_POOL, Following
from cnnlite.kernels.geometry import window_of
from tests.kernels.drawn import between_canaries, compiled_kernels_needed

pytestmark = compiled_kernels_needed

NO_PADS = ((0, 0), (0, 0))
DTYPES = ["float32", "float64"]
# window, strides: side by side, overlapping, with gaps between the windows, and of one pixel
WINDOWS = [((2, 2), (2, 2)), ((3, 3), (1, 1)), ((3, 2), (2, 1)), ((2, 3), (3, 4)), ((4, 4), (4, 4)), ((1, 1), (1, 1)),
           ((1, 1), (2, 3)), ((1, 4), (3, 2)), ((4, 1), (4, 1))]
LARGEST = 40


def images(channels, dtype, seed=0, height=9, width=10):
    # Few values, so that ties are common; and both zeros.
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, height, width, channels)).astype(dtype)
    x[(x == 0) & (rng.random(x.shape) < 0.5)] = -0.0
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "strides"), WINDOWS)
def test_maxima_places_and_gradients_for_every_number_of_channels(window, strides, dtype):
    for channels in range(1, LARGEST + 1):
        x = images(channels, dtype, seed=channels)
        expected, where = reference.max_pool(x, window, strides, NO_PADS)
        y, y_intact = between_canaries(expected.shape, dtype, channels % 3)
        argmax, argmax_intact = between_canaries(expected.shape, np.uint8, channels % 3)
        kernels.max_pool(x, window, strides, NO_PADS, out=(y, argmax))
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(argmax, where)
        dy = np.random.default_rng(channels).normal(size=y.shape).astype(dtype)
        dx, dx_intact = between_canaries(x.shape, dtype, channels % 3)
        kernels.max_pool_backward(dy, argmax, x.shape, window, strides, NO_PADS, out=dx)
        np.testing.assert_allclose(dx, reference.max_pool_backward(dy, where, x.shape, window, strides, NO_PADS),
                                   rtol=1e-5, atol=1e-6)
        assert y_intact()
        assert argmax_intact()
        assert dx_intact()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinities_in_every_lane(dtype):
    for channels in (1, 7, 8, 9, 15, 16, 17, 31, 33):
        rng = np.random.default_rng(channels)
        x = images(channels, dtype, seed=channels)
        x = np.where(rng.random(x.shape) < 0.4, rng.choice([np.nan, np.inf, -np.inf], x.shape), x).astype(dtype)
        x[0, :4] = -np.inf
        for window, strides in WINDOWS:
            y, argmax = kernels.max_pool(x, window, strides, NO_PADS)
            expected, where = reference.max_pool(x, window, strides, NO_PADS)
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(argmax, where)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_after_a_map_and_a_relu(dtype):
    """`follow` hands a map and a ReLU to the same code; numbers of few bits, so that no rounding comes in."""
    for channels in range(1, LARGEST + 1):
        z = images(channels, dtype, seed=channels)
        rng = np.random.default_rng(channels)
        if channels % 2:
            z[1, rng.integers(9), rng.integers(10), rng.integers(channels)] = np.nan
            z[0, 3, 3] = -np.inf
        affine = rng.choice([-1.0, 0.5, 1, 2], (3, channels)).astype(dtype)
        mapped = (z - affine[0]) * affine[1] + affine[2]
        for window, strides in WINDOWS[:4]:
            for relu in (False, True):
                expected, where = reference.max_pool(mapped, window, strides, NO_PADS)
                y, y_intact = between_canaries(expected.shape, dtype)
                argmax, argmax_intact = between_canaries(expected.shape, np.uint8)
                following = Following(False, relu, MAX_POOL, window_of(window, strides, NO_PADS))
                follow(z, affine, following, (y, argmax))
                np.testing.assert_array_equal(y, reference.relu(expected) if relu else expected)
                np.testing.assert_array_equal(argmax, where)
                assert y_intact()
                assert argmax_intact()


def test_where_nothing_is_above_zero_a_relu_leaves_no_negative_zero_to_compare_with():
    z = np.full((1, 2, 2, 19), -0.0, "f4")
    y, argmax = np.empty((1, 1, 1, 19), "f4"), np.empty((1, 1, 1, 19), np.uint8)
    plain = np.stack([np.zeros(19, "f4"), np.ones(19, "f4"), np.zeros(19, "f4")])
    follow(z, plain, Following(False, True, MAX_POOL, window_of((2, 2), (2, 2), NO_PADS)), (y, argmax))
    assert (y == 0).all()
    assert not argmax.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_that_no_window_sees_get_no_gradient_whatever_dx_held(dtype):
    for channels in (1, 15, 16, 17):
        for window, strides in WINDOWS:
            x = images(channels, dtype, height=11, width=9)
            y, argmax = kernels.max_pool(x, window, strides, NO_PADS)
            dy = np.ones_like(y)
            dx = kernels.max_pool_backward(dy, argmax, x.shape, window, strides, NO_PADS, out=np.full_like(x, np.nan))
            np.testing.assert_array_equal(
                dx, reference.max_pool_backward(dy, argmax, x.shape, window, strides, NO_PADS))
