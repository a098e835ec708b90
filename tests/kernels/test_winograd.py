"""Winograd's convolution: its exact matrices, its results against the definition, and memory it must not touch."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import reference
from cnnlite.kernels.bounded import is_bounded
from cnnlite.kernels.convolution import winograd
from cnnlite.kernels.convolution.conv2d import winograd_conv2d
from cnnlite.kernels.convolution.direct import panel_columns
from cnnlite.kernels.convolution.winograd_transforms import TAPS, TILE, constants, evaluation, recovery, tile_matrix
from tests.kernels.drawn import MARGIN, compiled_kernels_needed, dtypes, guarded, seeds
from tests.kernels.stages import results

pytestmark = compiled_kernels_needed

EPSILON = {"float32": 1e-5, "float64": 1e-12}
numbers_of_channels = st.sampled_from([16, 17, 19, 31, 32, 33, 40, 47, 48, 65])


@st.composite
def problems(draw):
    """Draw x, kernel, bias and dy, and pads that leave at least one output pixel."""
    taps, c, f = draw(st.sampled_from(TAPS)), draw(numbers_of_channels), draw(numbers_of_channels)
    pads, sizes = [], []
    for _ in range(2):
        pads.append(draw(st.tuples(st.integers(0, 4), st.integers(0, 4)) | st.just((0, 0))))
        sizes.append(max(1, taps - sum(pads[-1])) + draw(st.integers(0, 12)))
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    n = draw(st.sampled_from([0, 1, 1, 2, 5]))
    output = reference.output_shape((n, *sizes, c), (taps, taps), (1, 1), pads, (1, 1))
    shapes = (n, *sizes, c), (taps, taps, c, f), (f,), (n, *output, f)
    return *(rng.normal(size=shape).astype(dtype) for shape in shapes), tuple(pads)


def assert_nothing_around(whole):
    assert np.isnan(whole[:MARGIN]).all()
    assert np.isnan(whole[-MARGIN:]).all()


def assert_close(actual, expected, dtype):
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EPSILON[dtype.name] * largest)


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


@pytest.mark.parametrize("taps", TAPS)
def test_the_matrices_make_a_correlation_exactly(taps):
    """For every pair of an input d_i and a tap g_k, output i - k must be 1 and all others 0."""
    outputs = TILE + 1 - taps
    a, v, b = recovery(outputs), evaluation(taps), tile_matrix()
    for i in range(TILE):
        for k in range(taps):
            y = [sum(a[j][p] * v[p][k] * b[p][i] for p in range(TILE)) for j in range(outputs)]
            assert y == [Fraction(i == j + k) for j in range(outputs)]


@pytest.mark.parametrize("taps", TAPS)
def test_the_matrices_make_the_gradient_of_the_kernel_exactly(taps):
    outputs = TILE + 1 - taps
    a, v, b = recovery(taps), evaluation(outputs), tile_matrix()
    for i in range(TILE):
        for j in range(outputs):
            dg = [sum(a[k][p] * v[p][j] * b[p][i] for p in range(TILE)) for k in range(taps)]
            assert dg == [Fraction(i == j + k) for k in range(taps)]


@pytest.mark.parametrize("taps", TAPS)
def test_the_matrices_make_the_gradient_of_the_input_exactly(taps):
    outputs = TILE + 1 - taps
    v, vk, d, b = evaluation(outputs), evaluation(taps), constants(), tile_matrix()
    for k in range(taps):
        for j in range(outputs):
            dd = [sum(b[p][i] * d[p] * vk[p][k] * v[p][j] for p in range(TILE)) for i in range(TILE)]
            assert dd == [Fraction(i == j + k) for i in range(TILE)]


def test_only_the_matrix_that_goes_back_needs_rounding():
    for matrix in (tile_matrix(), *(evaluation(n) for n in TAPS)):
        assert all(Fraction(float(np.float32(number))) == number for row in matrix for number in row)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_convolution_equals_its_definition(problem):
    x, kernel, bias, _, pads = problem
    expected = reference.conv2d(*wide(x, kernel, bias), pads=pads)
    out, around = guarded(np.full(expected.shape, 7, x.dtype))
    winograd_conv2d(guarded(x)[0], guarded(kernel)[0], guarded(bias)[0], pads, out=out)
    assert_close(out, expected, x.dtype)
    assert_nothing_around(around)


@settings(max_examples=20, deadline=None)
@given(seeds, dtypes, st.sampled_from(TAPS), numbers_of_channels, numbers_of_channels)
def test_transformed_weights_are_v_g_v_in_panels(seed, dtype, taps, c, f):
    kernel = np.random.default_rng(seed).normal(size=(taps, taps, c, f)).astype(dtype)
    mine = guarded(kernel)[0]
    (u,) = results(lambda kernel: winograd.transformed_weights(kernel.graph, kernel), {"kernel": mine})
    v, g = np.array(evaluation(taps), np.float64), kernel
    expected = np.einsum("ia,abcf,jb->ijcf", v, g, v).reshape(36, *g.shape[2:])
    filters, width = g.shape[3], u.shape[3]
    for panel in range(u.shape[1]):
        # If the last panel would have less than a vector, it begins earlier.
        column, columns = panel_columns.py_func(panel, filters, width)
        assert columns >= width // 2
        assert_close(u[:, panel, :, :columns], expected[:, :, column : column + columns], kernel.dtype)
        assert not u[:, panel, :, columns:].any()
    assert column + columns == filters


@pytest.mark.parametrize("taps", [3, 5])
def test_an_image_has_the_same_bits_whatever_images_go_with_it(taps):
    # 20 images of 9 or 16 tiles: several blocks, and blocks that begin in the middle of an image.
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(20, 10, 11, 19)).astype("f4"), rng.normal(size=(taps, taps, 19, 37)).astype("f4")
    pads = ((1, 1), (0, 1))
    together = winograd_conv2d(x, kernel, None, pads)
    for first, last in [(0, 1), (3, 4), (5, 12), (19, 20)]:
        alone = winograd_conv2d(np.ascontiguousarray(x[first:last]), kernel, None, pads)
        assert alone.tobytes() == together[first:last].tobytes()
    part = np.empty_like(together[4:11])
    winograd_conv2d(x[4:11], kernel, None, pads, out=part)
    assert part.tobytes() == together[4:11].tobytes()


def test_padding_may_be_negative_or_wider_than_a_tile():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 9, 9, 16)), rng.normal(size=(3, 3, 16, 16))
    y = winograd_conv2d(x, kernel, None, ((-2, -1), (9, 8)))
    assert_close(y, reference.conv2d(np.ascontiguousarray(x[:, 2:-1]), kernel, pads=((0, 0), (9, 8))), x.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_is_bounded_finds_every_number_that_is_too_large_and_no_other(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    below = np.nextafter(np.dtype(dtype).type(2**40), np.dtype(dtype).type(0))
    for value in (0.0, -0.0, tiny, -tiny, 1.5, below, -below):
        assert is_bounded(np.full((2, 3, 5, 7), value, dtype))
    for value in (np.nan, -np.nan, np.inf, -np.inf, 2.0**40, -(2.0**40), 2.0**41, -(2.0**41)):
        for place in (0, 1, 100, 208, 209):
            x = np.ones((2, 3, 5, 7), dtype)
            x.flat[place] = value
            assert not is_bounded(x)
    assert is_bounded(np.empty((0, 3, 5, 7), dtype))


def test_numbers_as_large_as_the_bound_neither_overflow_nor_lose_precision():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(1, 12, 12, 16)).astype("f4") * np.float32(2.0**39)
    kernel = rng.normal(size=(3, 3, 16, 16)).astype("f4")
    y = winograd_conv2d(x, kernel, None, ((1, 1), (1, 1)))
    assert_close(y, reference.conv2d(*wide(x, kernel), pads=((1, 1), (1, 1))), x.dtype)


def test_where_winograd_is_faster():
    assert winograd.winograd_is_faster(3, 13, 0, (11, 11), 32, 64)
    assert winograd.winograd_is_faster(5, 24, 0, (20, 20), 32, 32)
    assert not winograd.winograd_is_faster(3, 28, 0, (26, 26), 1, 32)
    assert not winograd.winograd_is_faster(3, 28, 0, (26, 26), 32, 8)
    assert not winograd.winograd_is_faster(3, 3, 0, (1, 1), 64, 64)  # a whole tile for a single pixel
    assert not winograd.winograd_is_faster(5, 1, 4, (5, 5), 64, 64)  # nine tiles, mostly on padding
    assert not winograd.winograd_is_faster(1, 28, 0, (28, 28), 64, 64)
    assert not winograd.winograd_is_faster(7, 28, 0, (22, 22), 64, 64)
    assert not winograd.winograd_is_faster(3, 2, 0, (0, 5), 64, 64)
    assert not winograd.winograd_is_faster(3, 7, 1, (7, 7), 512, 512)  # four tiles, and 38 MB of transformed weights
    assert winograd.winograd_is_faster(3, 14, 1, (14, 14), 512, 512)
    assert winograd.winograd_is_faster(3, 8, 1, (8, 8), 256, 256)
