"""im2col and col2im: against the definition, and against each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels
from tests.kernels.drawn import assert_as_defined, batches, dtypes, geometries, seeds


@settings(max_examples=40, deadline=None)
@given(geometries(), batches, st.integers(1, 5), dtypes, seeds)
def test_both_equal_their_definition(geometry, n, channels, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *geometry.size, channels)).astype(dtype)
    assert_as_defined("im2col", [x], geometry.window, *geometry.where)
    oh, ow = geometry.output
    cols = rng.normal(size=(n * oh * ow, np.prod(geometry.window) * channels)).astype(dtype)
    assert_as_defined("col2im", [cols], x.shape, geometry.window, *geometry.where)


@settings(max_examples=40, deadline=None)
@given(geometries(), seeds)
def test_they_are_transposes_of_each_other(geometry, seed):
    # <im2col(x), c> = <x, col2im(c)> for all x and c
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *geometry.size, 3))
    rows = kernels.im2col(x, geometry.window, *geometry.where)
    cols = rng.normal(size=rows.shape)
    back = kernels.col2im(cols, x.shape, geometry.window, *geometry.where)
    np.testing.assert_allclose(np.vdot(rows, cols), np.vdot(x, back), rtol=1e-10, atol=1e-10)


def test_a_row_is_the_window_of_an_output_pixel():
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    rows = kernels.im2col(x, (2, 2))
    assert rows.tolist() == [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]
    # 5 is in all four windows
    assert kernels.col2im(rows, x.shape, (2, 2)).ravel().tolist() == [1, 4, 3, 8, 20, 12, 7, 16, 9]


def test_nan_and_infinity_go_where_their_pixel_goes():
    x = np.zeros((1, 3, 4, 1), np.float32)
    x[0, 1, 1], x[0, 2, 3] = np.nan, -np.inf
    assert_as_defined("im2col", [x], (2, 3), (1, 1), ((1, 0), (0, 2)), (1, 1))
