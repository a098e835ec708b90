"""Gradients through windows, in vectors: every number of channels, the bits of the plain way, and no byte beside."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from cnnlite.kernels.conv_block import follow
from cnnlite.kernels.conv_images import (
    image_gradient,
    image_gradient_sums,
    image_sum,
    new_statistics,
    part_count,
)
from cnnlite.kernels.conv_tasks import Following
from cnnlite.kernels.geometry import Window
from tests.kernels.drawn import between_canaries, compiled_kernels_needed

pytestmark = compiled_kernels_needed

DTYPES = ["float32", "float64"]
CHANNELS = [*range(1, 20), 31, 32, 33, 40, 47, 49, 64, 65]
SHAPES = [((2, 2), (7, 9)), ((3, 2), (9, 4)), ((2, 3), (26, 26)), ((1, 1), (3, 5)), ((4, 4), (5, 5))]  # window, image


def problem(window, size, channels, dtype):
    """Return the gradient, its result and the places of the maxima of windows, and z and dz of the image."""
    rng = np.random.default_rng(channels)
    z = rng.normal(1, 1, (1, *size, channels)).astype(dtype)
    pads = ((0, 0), (0, 0))
    y, places = reference.max_pool(z - 1, window, window, pads)
    y, dy = reference.relu(y), rng.normal(size=y.shape).astype(dtype)
    dz = reference.max_pool_backward(reference.relu_backward(dy, y), places, z.shape, window, window, pads)
    return dy[0], y[0], places[0].astype(np.uint8), z[0], dz[0]


def both(window, gradient, result, places, z, dz):
    """Return the arguments for the way through windows, and for the plain way."""
    window = Window(*window, *window)
    return (gradient, result, places, True, window), (dz, dz, places[:0], False, window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "size"), SHAPES)
def test_sums_through_windows_have_the_bits_of_the_plain_way(window, size, dtype):
    for channels in CHANNELS:
        arrays = problem(window, size, channels, dtype)
        z, dz = arrays[3:]
        mean = z.mean(axis=(0, 1))
        results = []
        for way in both(window, *arrays):
            sums = new_statistics((1, size[0] * size[1], channels))
            image_gradient_sums(*way, z, mean, sums[0][0], sums[1][0])
            results.append([array.tobytes() for array in sums])
        assert results[0] == results[1]
        wide = dz.astype(np.float64)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(sums[0].sum(axis=(0, 1)), wide.sum(axis=(0, 1)), atol=tolerance)
        np.testing.assert_allclose(sums[1].sum(axis=(0, 1)), (wide * (z - mean)).sum(axis=(0, 1)), atol=tolerance)


@pytest.mark.parametrize("first_relu", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "size"), SHAPES)
def test_gradients_through_windows_have_the_bits_of_the_plain_way(window, size, dtype, normalised, first_relu):
    for channels in CHANNELS:
        arrays = problem(window, size, channels, dtype)
        places, z, dz = arrays[2:]
        z = z - 1
        mean, *terms = np.random.default_rng(channels).normal(size=(4, channels)).astype(dtype)
        terms = np.stack(terms)
        image = z if normalised else z[:0]
        results = []
        for way in both(window, *arrays):
            dx, intact = between_canaries(z.shape, dtype, channels % 3)
            total = np.ones(channels)
            image_gradient(*way, image, mean, terms, first_relu, dx, total)
            assert intact()
            again = np.ones(channels)
            image_sum(dx, again)
            results.append([array.tobytes() for array in (dx, total)])
            assert again.tobytes() == total.tobytes()
        assert results[0] == results[1]
        expected = terms[0] * (dz - terms[1] - (z - mean) * terms[2]) if normalised else terms[0] * dz
        if normalised and first_relu:
            expected = reference.relu_backward(expected, z)
        tolerance = 1e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(dx, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(total, 1 + dx.sum(axis=(0, 1), dtype=np.float64), rtol=1e-4, atol=1e-4)
        in_place = dz.copy()
        image_gradient(in_place, in_place, places[:0], False, Window(1, 1), image, mean, terms, first_relu, in_place,
                       total)
        assert in_place.tobytes() == dx.tobytes()


def test_parts_of_whole_lines_hold_every_pixel_once():
    assert part_count(2000) == 4
    for lines, columns in ((1, 2000), (3, 700), (2000, 1), (45, 45)):
        dz = np.random.default_rng(lines).integers(-9, 9, (lines, columns, 3)).astype("float32")
        sums = new_statistics((1, lines * columns, 3))
        ones = np.ones_like(dz)
        image_gradient_sums(dz, dz, np.empty((0, 0, 0), np.uint8), False, Window(1, 1), ones, np.zeros(3, "f4"),
                            sums[0][0], sums[1][0])
        total = np.zeros(3)
        image_sum(dz, total)
        for array in (sums[0][0].sum(axis=0), sums[1][0].sum(axis=0), total):
            np.testing.assert_array_equal(array, dz.sum(axis=(0, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_map_and_a_relu_for_every_number_of_channels(dtype):
    for channels in CHANNELS:
        rng = np.random.default_rng(channels)
        # Numbers of few bits, so that no rounding comes in, and what is not a number.
        x = rng.integers(-9, 9, (2, 3, 5, channels)).astype(dtype)
        x[1, 2, 3, rng.integers(channels)] = np.nan
        x[0, 0, 0, rng.integers(channels)] = np.inf
        affine = rng.choice([-1.0, 0.5, 2], (3, channels)).astype(dtype)
        mapped = (x - affine[0]) * affine[1] + affine[2]
        for relu in (False, True):
            for maps, expected in ((affine, mapped), (affine[:0], x)):
                y, intact = between_canaries(x.shape, dtype, channels % 3)
                follow(x, maps, Following(False, relu), (y, np.empty((0, 0, 0, 0), np.uint8)))
                np.testing.assert_array_equal(y, reference.relu(expected) if relu else expected)
                assert intact()
        y, intact = between_canaries(x.shape, dtype, channels % 3)
        kernels.batchnorm_normalize(x, affine[0], affine[1], np.ones_like(affine[0]), affine[2], out=y)
        np.testing.assert_array_equal(y, mapped)
        assert intact()
