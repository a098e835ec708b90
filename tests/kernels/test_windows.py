"""Rows of windows: maxima, their places and gradients for every number of channels, and not a byte beside."""

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.kernels import windows
from tests.kernels.drawn import between_canaries, compiled_kernels_needed
from tests.kernels.vector_calls import CHANNELS, DTYPES, Outputs, compiled

pytestmark = [compiled_kernels_needed, pytest.mark.parametrize("dtype", DTYPES)]

max_pool_windows, max_unpool_windows = compiled(windows.max_pool_windows), compiled(windows.max_unpool_windows)

NO_PADS = ((0, 0), (0, 0))
# window, strides: side by side, with gaps between the windows, and of one pixel
APART = [((2, 2), (2, 2)), ((3, 2), (3, 2)), ((2, 3), (3, 4)), ((1, 1), (2, 3)), ((4, 1), (4, 1))]
OVERLAPPING = [((3, 3), (1, 1)), ((2, 2), (1, 1)), ((2, 4), (2, 1))]
SIZE = (5, 9)


def some(windows, channels):
    """Return the first, and another in turn, so that each meets many lengths of the last vector."""
    return windows[0], windows[1 + channels % (len(windows) - 1)]


def image(channels, dtype):
    # Few values, so that ties are common; and both zeros.
    rng = np.random.default_rng(channels)
    x = rng.integers(-2, 3, (*SIZE, channels)).astype(dtype)
    x[(x == 0) & (rng.random(x.shape) < 0.5)] = -0.0
    return x


def assert_maxima_as_defined(x, window, strides):
    width, channels = x.shape[1:]
    expected, places = reference.max_pool(x[np.newaxis], window, strides, NO_PADS)
    with Outputs(expected.shape[1:], dtype=x.dtype, shift=channels % 3) as [y]:
        argmax, intact = between_canaries(y.shape, np.uint8, channels % 3)
        for i in range(len(y)):
            max_pool_windows(x.dtype, x[i * strides[0] :], width * channels, strides[1] * channels, window, y.shape[1],
                             channels, y[i], argmax[i])
    assert intact()
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(argmax, places[0])


def test_maxima_and_the_first_of_equal_ones(dtype):
    for channels in CHANNELS:
        for window, strides in some(APART + OVERLAPPING, channels):
            assert_maxima_as_defined(image(channels, dtype), window, strides)


def test_the_first_nan_wins_and_infinities_count_as_numbers(dtype):
    for channels in (1, 7, 8, 9, 15, 16, 17, 31, 33):
        x, rng = image(channels, dtype), np.random.default_rng(channels)
        x = np.where(rng.random(x.shape) < 0.4, rng.choice([np.nan, np.inf, -np.inf], x.shape), x).astype(dtype)
        x[:, :3] = -np.inf
        for window, strides in APART + OVERLAPPING:
            assert_maxima_as_defined(x, window, strides)


def test_a_gradient_goes_to_the_pixel_that_won_and_nothing_between_windows_is_touched(dtype):
    for channels in CHANNELS:
        x = image(channels, dtype)
        for window, strides in some(APART, channels):
            y, argmax = reference.max_pool(x[np.newaxis], window, strides, NO_PADS)
            dy = np.random.default_rng(0).normal(size=y.shape).astype(dtype)
            dy[0, 0, 0, channels // 2] = np.nan  # must not show in the pixels beside the winner
            expected = reference.max_pool_backward(dy, argmax, (1, *x.shape), window, strides, NO_PADS)[0]
            with Outputs(x.shape, dtype=dtype, shift=channels % 3) as [dx]:
                before = dx.copy()
                for i in range(y.shape[1]):
                    max_unpool_windows(dtype, dy[0, i], argmax[0, i], window, y.shape[2], channels,
                                       dx[i * strides[0] :], x.shape[1] * channels, strides[1] * channels)
            seen = np.zeros(SIZE, bool)
            for i in range(y.shape[1]):
                for j in range(y.shape[2]):
                    seen[i * strides[0] :][: window[0], j * strides[1] :][:, : window[1]] = True
            np.testing.assert_array_equal(dx[seen], expected[seen])
            assert dx[~seen].tobytes() == before[~seen].tobytes()
