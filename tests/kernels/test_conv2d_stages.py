"""Every convolution algorithm gives the same bits however its stages are scheduled, whatever the numbers."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.program import Program, Workspace
from cnnlite.engine.schedule import Schedule
from cnnlite.kernels.convolution.conv2d import direct_conv2d, wide_conv2d, winograd_conv2d
from tests.kernels.drawn import EPSILON, assert_close, compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone, results

pytestmark = compiled_kernels_needed

BAD = {"finite": [], "NaN": [np.nan], "infinity": [-np.inf], "1e30": [1e30], "all three": [np.nan, np.inf, 1e30]}

# name: (the algorithm, the shape of x, the shape of the kernel, other arguments)
CASES = {
    "pixel by pixel": (direct_conv2d, (3, 9, 7, 3), (3, 3, 3, 33), {}),
    "one panel, which spills": (direct_conv2d, (3, 9, 7, 3), (2, 3, 3, 7), {"pads": ((1, 0), (2, 1))}),
    "strides": (direct_conv2d, (2, 17, 9, 3), (3, 2, 3, 17), {"strides": (3, 2), "pads": ((2, 3), (0, 1))}),
    "dilation": (direct_conv2d, (2, 20, 9, 2), (3, 3, 2, 5), {"dilation": (3, 2), "pads": ((4, 3), (1, 1))}),
    "dilated rows": (direct_conv2d, (2, 12, 9, 2), (3, 3, 2, 5), {"dilation": (2, 1), "strides": (2, 1)}),
    "groups": (direct_conv2d, (2, 9, 7, 6), (3, 3, 3, 10), {"groups": 2, "pads": ((1, 1), (1, 1))}),
    "more padding than image": (direct_conv2d, (2, 2, 3, 3), (3, 3, 3, 5), {"pads": ((6, 7), (3, 3))}),
    "more samples than tasks": (direct_conv2d, (37, 4, 5, 3), (3, 3, 3, 5), {"pads": ((1, 1), (1, 1))}),
    "pixels as one": (wide_conv2d, (3, 12, 13, 4), (5, 5, 4, 2), {"pads": ((2, 2), (1, 2))}),
    "pixels as one, strides": (wide_conv2d, (3, 21, 13, 1), (3, 5, 1, 1), {"strides": (2, 2), "dilation": (2, 1)}),
    "tiles, 2 taps": (winograd_conv2d, (2, 9, 12, 17), (2, 2, 17, 19), {}),
    "tiles, 3 taps": (winograd_conv2d, (3, 14, 9, 16), (3, 3, 16, 33), {"pads": ((1, 1), (1, 1))}),
    "tiles, 4 taps": (winograd_conv2d, (2, 10, 9, 16), (4, 4, 16, 16), {"pads": ((2, 1), (0, 3))}),
    "tiles, 5 taps": (winograd_conv2d, (2, 11, 8, 19), (5, 5, 19, 20), {"pads": ((2, 2), (2, 2))}),
    "tiles of several samples": (winograd_conv2d, (37, 5, 6, 16), (3, 3, 16, 17), {}),
    "single pixels": (kernels.conv2d, (3, 5, 31, 6), (1, 1, 6, 40), {}),
    "single pixels, which spill": (kernels.conv2d, (37, 7, 5, 6), (1, 1, 6, 5), {}),
    "single pixels in groups": (kernels.conv2d, (2, 7, 5, 6), (1, 1, 3, 34), {"groups": 2}),
}


def arrays_of(name, dtype="float32", bad=()):
    """Return the arrays of a case, with each bad number in a different sample and row."""
    _, x_shape, kernel_shape, _ = CASES[name]
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=shape).astype(dtype) for shape in (x_shape, kernel_shape, kernel_shape[3:]))
    for i, number in enumerate(bad):
        x[i % len(x), (3 * i + 1) % x_shape[1], i % x_shape[2], 0] = number
    return {"x": x, "kernel": kernel, "bias": bias}


def way_of(name):
    way, _, _, arguments = CASES[name]
    return lambda x, kernel, bias=None: way(x, kernel, bias, **arguments)


@np.errstate(all="ignore")  # NumPy warns of NaN, compiled code doesn't
def expected(name, arrays):
    return reference.conv2d(*(array.astype(np.float64) for array in arrays.values()), **CASES[name][3])


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", CASES)
def test_a_convolution_has_the_same_bits_however_it_is_cut(name, bad):
    arrays = arrays_of(name, bad=BAD[bad])
    (y,) = assert_same_bits(way_of(name), arrays, "x")
    assert_close(y, expected(name, arrays), EPSILON["float32"])


@pytest.mark.parametrize("name", ["pixel by pixel", "pixels as one", "tiles, 3 taps", "single pixels"])
def test_so_has_one_in_float64(name):
    arrays = arrays_of(name, "float64", BAD["all three"])
    (y,) = assert_same_bits(way_of(name), arrays, "x")
    assert_close(y, expected(name, arrays), EPSILON["float64"])


@pytest.mark.parametrize("name", CASES)
def test_a_sample_has_the_same_bits_alone(name):
    arrays = arrays_of(name, bad=BAD["all three"])
    assert_same_bits_alone(way_of(name), arrays, "x")


@pytest.mark.parametrize("name", ["pixel by pixel", "groups", "pixels as one", "tiles, 3 taps", "single pixels"])
def test_without_a_bias_it_is_as_with_zeros(name):
    arrays = arrays_of(name)
    (with_zeros,) = results(way_of(name), {**arrays, "bias": np.zeros_like(arrays["bias"])}, "x")
    del arrays["bias"]
    (without,) = assert_same_bits(way_of(name), arrays, "x")
    np.testing.assert_array_equal(without, with_zeros)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
def test_rows_of_tiles_that_read_a_number_which_is_too_large_are_computed_directly_and_no_others(number):
    name = "tiles, 3 taps"
    arrays = arrays_of(name)
    (clean,) = results(way_of(name), arrays, "x")
    arrays["x"][1, 6, 4, 3] = number
    (y,) = results(way_of(name), arrays, "x")
    directly = direct_conv2d(**arrays, **CASES[name][3])
    # Tiles of 4 x 4 outputs read 6 rows, the first tile from row -1: the second reads 3 to 8, the third 7 to 12.
    np.testing.assert_array_equal(y[1, 4:8], directly[1, 4:8])
    assert (clean[1, 4:8] != directly[1, 4:8]).any()
    for i, rows in [(0, slice(None)), (1, slice(4)), (1, slice(8, None)), (2, slice(None))]:
        np.testing.assert_array_equal(y[i, rows], clean[i, rows])


def test_rows_that_read_a_nan_are_not_computed_as_wide_pixels():
    name = "pixels as one"
    arrays = arrays_of(name)
    arrays["x"][1, 6, 4, 3] = np.nan
    (y,) = results(way_of(name), arrays, "x")
    np.testing.assert_array_equal(y, direct_conv2d(**arrays, **CASES[name][3]))
    assert np.isnan(y).sum() == 5 * 5 * 2


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["pixels as one", "tiles, 3 taps", "tiles, 5 taps"])
def test_with_weights_that_are_too_large_all_is_computed_directly(name, number):
    arrays = arrays_of(name)
    arrays["kernel"][1, 1, 2, 0] = number
    (y,) = assert_same_bits(way_of(name), arrays, "x")
    np.testing.assert_array_equal(y, direct_conv2d(**arrays, **CASES[name][3]))


def test_the_last_of_many_weights_may_be_the_one_that_is_too_large():
    # The check of the weights is spread over several units.
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 6, 6, 64)).astype("f4"), rng.normal(size=(3, 3, 64, 64)).astype("f4")
    kernel[2, 2, 63, 63] = np.inf
    np.testing.assert_array_equal(winograd_conv2d(x, kernel), direct_conv2d(x, kernel))


def test_convolutions_that_follow_one_another_have_the_same_bits_joined_and_apart():
    rng = np.random.default_rng(0)
    shapes = {"x": (18, 12, 11, 3), "a": (3, 3, 3, 16), "b": (3, 3, 16, 20), "c": (1, 1, 20, 6), "d": (5, 5, 6, 2)}
    arrays = {name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    arrays["x"][3, 2, 1, 0] = np.nan
    same = ((1, 1), (1, 1))

    def stack(x, a, b, c, d):
        y = kernels.conv2d(kernels.conv2d(x, a, pads=same), b, pads=same)
        return kernels.conv2d(kernels.conv2d(y, c), d)

    (y,) = assert_same_bits(stack, arrays, "x")
    np.testing.assert_array_equal(y, stack(**arrays))
    assert np.isnan(y[3]).any()
    assert not np.isnan(y[:3]).any()
    assert_same_bits_alone(stack, arrays, "x")


def test_bands_begin_where_all_convolutions_of_a_track_can():
    # Tiles with sides of 3, 4 and 2 outputs.
    graph = Graph("float32")
    x = graph.given((N, 33, 7, 16))
    for taps in (4, 3, 5):
        winograd_conv2d(x, np.ones((taps, taps, 16, 16), np.float32))
    workspace = Workspace(Program(Schedule(graph, graph.steps, banded=True)))
    workspace.prepare(2, 1)
    tracks = workspace.layout.tracks
    assert tracks["grain"][tracks["by_samples"] != 0].tolist() == [12]
