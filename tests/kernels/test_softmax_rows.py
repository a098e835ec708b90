"""softmax and log_softmax of a single row."""

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.kernels.softmax_rows import (
    LANES,
    log_softmax_backward_row,
    log_softmax_row,
    softmax_backward_row,
    softmax_row,
)
from tests.kernels.drawn import between_canaries, compiled_kernels_needed
from tests.kernels.test_elementary import computed

pytestmark = compiled_kernels_needed

DTYPES = ["float32", "float64"]
ROWS = [softmax_row, log_softmax_row]


def row(size, dtype, scale=3.0):
    return (np.random.default_rng(size).normal(size=size) * scale).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_length_against_the_definition_and_no_byte_beside_the_row(dtype):
    for size in [*range(1, 70), 1000, 4099]:
        x = row(size, dtype)
        for compute, definition in zip(ROWS, (reference.softmax, reference.log_softmax)):
            y, intact = between_canaries((size,), dtype, size % 5)
            compute(x, y)
            np.testing.assert_allclose(y, definition(x.astype(np.float64)), rtol=4e-6 if dtype == "float32" else 2e-14,
                                       atol=1e-30)
            assert intact()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_every_length_too(dtype):
    definitions = reference.softmax_backward, reference.log_softmax_backward
    for size in [*range(1, 70), 1000, 4099]:
        dy, x = row(size + 1, dtype)[:size], row(size, dtype)
        for forward, compute, definition in zip(ROWS, (softmax_backward_row, log_softmax_backward_row), definitions):
            y = np.empty_like(x)
            forward(x, y)
            dx, intact = between_canaries((size,), dtype, size % 5)
            compute(dy, y, dx)
            expected = definition(dy.astype(np.float64), y.astype(np.float64))
            largest = np.abs(dy).max() + abs(dy.sum())
            np.testing.assert_allclose(dx, expected, rtol=0, atol=4 * np.finfo(dtype).eps * largest)
            assert intact()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_a_fixed_tree_whatever_the_registers(dtype):
    for size in (1, 15, 16, 17, 100, 1000):
        x = row(size, dtype)
        power = computed(x - x.max())["exp"]
        sums = np.zeros(LANES)
        for first in range(0, size, LANES):
            sums[: size - first] += power[first : first + LANES]
        while sums.size > 1:
            sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
        y, log_y = np.empty_like(x), np.empty_like(x)
        softmax_row(x, y)
        log_softmax_row(x, log_y)
        np.testing.assert_array_equal(y, power / x.dtype.type(sums[0]))
        log_sum = x.dtype.type(computed(sums)["log"][0])
        np.testing.assert_array_equal(log_y, (x - x.max()) - log_sum)


@pytest.mark.parametrize("compute", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_or_an_infinite_maximum_makes_the_whole_row_nan(dtype, compute):
    for size in (1, 10, 16, 33):
        y = np.empty(size, dtype)
        for place in range(size):
            for number in (np.nan, np.inf):
                x = row(size, dtype)
                x[place] = number
                compute(x, y)
                assert np.isnan(y).all()
        compute(np.full(size, -np.inf, dtype), y)
        assert np.isnan(y).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_that_are_ruled_out_have_no_probability(dtype):
    x = np.array([0, -np.inf, 0, -np.inf, -1e30], dtype)
    y = np.empty_like(x)
    softmax_row(x, y)
    np.testing.assert_array_equal(y, [0.5, 0, 0.5, 0, 0])
    log_softmax_row(x, y)
    np.testing.assert_array_equal(y[[1, 3]], [-np.inf, -np.inf])


@pytest.mark.parametrize("compute", ROWS)
def test_a_row_may_be_written_over_and_may_be_empty(compute):
    x = row(35, "float32")
    y = np.empty_like(x)
    compute(x, y)
    compute(x, x)
    np.testing.assert_array_equal(x, y)
    compute(x[:0], y[:0])


def test_the_logarithm_of_near_certainty_is_not_zero():
    x = np.array([20, 0, 0], np.float32)
    y = np.empty_like(x)
    log_softmax_row(x, y)
    assert y[0] == pytest.approx(-2 * np.exp(-20.0), rel=1e-6)


def test_a_long_row_keeps_its_digits():
    x = np.zeros(1_000_003, np.float32)
    y = np.empty_like(x)
    softmax_row(x, y)
    assert (y == np.float32(1 / 1_000_003)).all()
