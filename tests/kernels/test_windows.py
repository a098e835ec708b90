"""Rows of windows: maxima, argmax and gradients for any number of channels, and nothing out of bounds."""

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.kernels import rows, windows
from tests.kernels.drawn import between_canaries, compiled_kernels_needed
from tests.kernels.vector_calls import CHANNELS, DTYPES, Outputs, compiled

pytestmark = [compiled_kernels_needed, pytest.mark.parametrize("dtype", DTYPES)]

max_pool_windows, max_unpool_windows = compiled(windows.max_pool_windows), compiled(windows.max_unpool_windows)
sum_gradient_of_winners = compiled(windows.sum_gradient_of_winners)
write_gradient_of_winners = compiled(windows.write_gradient_of_winners)
write_gradient, sum_gradient = compiled(rows.write_gradient), compiled(rows.sum_gradient)

NO_PADS = ((0, 0), (0, 0))
# window, strides: side by side, with gaps between the windows, and of one pixel
APART = [((2, 2), (2, 2)), ((3, 2), (3, 2)), ((2, 3), (3, 4)), ((1, 1), (2, 3)), ((4, 1), (4, 1))]
OVERLAPPING = [((3, 3), (1, 1)), ((2, 2), (1, 1)), ((2, 4), (2, 1))]
SIZE = (5, 9)


def some(windows, channels):
    """Return the first, and one of the others in turn, so that each meets many lengths of the last vector."""
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
            dy[0, 0, 0, channels // 2] = np.nan  # must not show in the pixels next to the winner
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


def pooled_image(channels, window, strides, dtype):
    """Return (dy, x, argmax, dy scattered to the shape of x) of an image; dy and argmax are (OH, OW, channels)."""
    x, rng = image(channels, dtype), np.random.default_rng(0)
    y, argmax = reference.max_pool(x[np.newaxis], window, strides, NO_PADS)
    dy = rng.normal(size=y.shape).astype(dtype)
    return dy[0], x, argmax[0], reference.max_pool_backward(dy, argmax, (1, *x.shape), window, strides, NO_PADS)[0]


def add_winners(dy, x, argmax, mean, window, strides, sums):
    """Add the winning pixels of an image, row by row, to sums (2, channels)."""
    channels = x.shape[-1]
    for i in range(len(dy)):
        for a in range(window[0]):
            sum_gradient_of_winners(x.dtype, dy[i], argmax[i], x[i * strides[0] + a :], strides[1] * channels,
                                    (a * window[1], window[1]), dy.shape[1], channels, mean, sums)


def test_sums_over_the_pixels_that_won_have_the_bits_of_those_over_all(dtype):
    for channels in CHANNELS:
        for window, strides in some(APART, channels):
            dy, x, argmax, spread = pooled_image(channels, window, strides, dtype)
            mean = np.linspace(-1, 1, channels).astype(dtype)
            with Outputs((2, channels), (2, channels), dtype=dtype, shift=channels % 3) as [sums, expected]:
                sums[...] = 0
                add_winners(dy, x, argmax, mean, window, strides, sums)
                sum_gradient(dtype, spread, x, SIZE[0] * SIZE[1], channels, mean, expected[0], expected[1:])
            assert sums.tobytes() == expected.tobytes()
            before = sums.copy()
            add_winners(dy, x, argmax, mean, window, strides, sums)
            np.testing.assert_allclose(sums, 2 * before, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


def test_a_pixel_that_did_not_win_has_no_part_in_the_sums_whatever_it_is(dtype):
    for channels in (1, 7, 8, 9, 15, 16, 17, 31, 33):
        for window, strides in APART:
            dy, x, argmax, _ = pooled_image(channels, window, strides, dtype)
            mean, sums, spoilt = np.zeros(channels, dtype), np.zeros((2, 2, channels), dtype), x.copy()
            won = reference.max_pool_backward(np.ones_like(dy[np.newaxis]), argmax[np.newaxis], (1, *x.shape), window,
                                              strides, NO_PADS)[0] != 0
            spoilt[~won] = np.nan
            for numbers, into in zip((x, spoilt), sums):
                add_winners(dy, numbers, argmax, mean, window, strides, into)
            np.testing.assert_array_equal(*sums)


def test_the_gradient_of_a_normalisation_below_windows_has_the_bits_of_that_of_the_spread_gradient(dtype):
    for channels in CHANNELS:
        for window in some([(2, 2), (3, 2), (2, 3), (1, 1), (4, 1)], channels):
            dy, x, argmax, spread = pooled_image(channels, window, window, dtype)
            (height, width), rng = x.shape[:2], np.random.default_rng(1)
            mean, terms = rng.normal(size=channels).astype(dtype), rng.normal(size=(3, channels)).astype(dtype)
            terms[1, channels // 2] = 0
            x[0, 0, channels // 2], x[1, 1, 0] = np.inf, np.nan
            with Outputs(x.shape, x.shape, dtype=dtype, shift=channels % 3) as [dx, expected]:
                write_gradient(dtype, spread, x, height * width, channels, mean, terms, expected)
                before = dx.copy()
                for i in range(len(dy)):
                    top = i * window[0]
                    write_gradient_of_winners(dtype, dy[i], argmax[i], x[top:], width * channels, window,
                                              (dy.shape[1], channels), mean, terms, dx[top:])
            bottom, right = dy.shape[0] * window[0], dy.shape[1] * window[1]
            np.testing.assert_array_equal(dx[:bottom, :right].view(np.uint8), expected[:bottom, :right].view(np.uint8))
            assert dx[bottom:].tobytes() == before[bottom:].tobytes()
            assert dx[:bottom, right:].tobytes() == before[:bottom, right:].tobytes()
