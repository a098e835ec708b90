"""Passes over rows of channels: correct for any number of channels, NaN and infinity, and nothing out of bounds."""

from fractions import Fraction

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.engine.target import FUSED_MULTIPLY_ADD, VECTOR_BYTES
from cnnlite.kernels import rows
from tests.kernels.drawn import EPSILON, assert_close, compiled_kernels_needed, spoilt
from tests.kernels.vector_calls import CHANNELS, DTYPES, Outputs, compiled

pytestmark = [compiled_kernels_needed, pytest.mark.parametrize("dtype", DTYPES)]

row_statistics, map_rows, scale_rows = map(compiled, (rows.row_statistics, rows.map_rows, rows.scale_rows))
sum_gradient, write_gradient, sum_rows = map(compiled, (rows.sum_gradient, rows.write_gradient, rows.sum_rows))
transpose_panels, add_runs = map(compiled, (rows.transpose_panels, rows.add_runs))

BAD_CHANNELS = (1, 7, 15, 16, 17, 33, 70)


def pixels(number, channels, dtype):
    """Return that many rows of channels, and a gradient for each."""
    rng = np.random.default_rng(1000 * number + channels)
    return rng.normal(1, 2, (2, number, channels)).astype(dtype)


def few_bits(number, channels, dtype):
    """Return rows, a mean, a scale and a beta for which all sums and products are exact."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-9, 9, (number, channels)).astype(dtype)
    return x, *rng.choice([-1.0, 0.5, 2], (3, channels)).astype(dtype)


def cases():
    """Yield (number of rows, number of channels): one row, and two to ten rows, for each number of channels."""
    for c in CHANNELS:
        for number in (1, 2 + c % 9):
            yield number, c


@np.errstate(all="ignore")
def statistics(x):
    center, error, square = outputs = [np.empty(x.shape[1], x.dtype) for _ in range(3)]
    row_statistics(x.dtype, x, *x.shape, *outputs)
    error, square = error.astype(np.float64) / len(x), square.astype(np.float64) / len(x)
    return center + error, square - error**2


def test_statistics_are_the_mean_and_the_variance(dtype):
    for number, channels in cases():
        x, _ = pixels(number, channels, dtype)
        with Outputs((channels,), (channels,), (channels,), dtype=dtype, shift=channels % 3) as (center, error, square):
            row_statistics(dtype, x, number, channels, center, error, square)
        mean, variance = reference.batchnorm_statistics(x.astype(np.float64))
        assert_close(center, mean, EPSILON[dtype])
        assert_close(center + error.astype(np.float64) / number, mean, EPSILON[dtype] / 10)
        assert_close(square / number - (error / number) ** 2, variance, EPSILON[dtype])
        if number == 1:
            assert (center == x[0]).all()
            assert not error.any()
            assert not square.any()


def test_statistics_of_a_large_mean_beside_a_small_deviation_stay_exact(dtype):
    x = np.float64(2**20) + np.random.default_rng(0).integers(-3, 4, (500, 19))
    mean, variance = statistics(x.astype(dtype))
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, x.var(axis=0), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_statistics_of_a_channel_with_nan_or_infinity_are_nan_and_those_of_the_others_as_ever(dtype, bad):
    for channels in BAD_CHANNELS:
        x, _ = pixels(8, channels, dtype)
        expected = statistics(x)
        x[3, channels // 2] = bad
        others = np.arange(channels) != channels // 2
        for result, before in zip(statistics(x), expected):
            assert np.isnan(result[channels // 2])
            assert (result[others] == before[others]).all()


def test_a_map_is_the_normalisation_also_in_place(dtype):
    for number, channels in cases():
        x, mean, scale, beta = few_bits(number, channels, dtype)
        x.flat[channels % x.size] = [np.nan, np.inf, -np.inf, 0][channels % 4]
        expected = reference.batchnorm_normalize(x, mean, scale, np.ones_like(scale), beta)
        with Outputs(x.shape, dtype=dtype, shift=channels % 3) as [y]:
            map_rows(dtype, x, number, channels, mean, scale, beta, False, y)
        np.testing.assert_array_equal(y, expected)
        map_rows(dtype, x, number, channels, mean, scale, beta, True, y)
        np.testing.assert_array_equal(y, reference.relu(expected))
        map_rows(dtype, x, number, channels, mean, scale, beta, False, x)
        np.testing.assert_array_equal(x, expected)


def test_a_map_rounds_its_product_and_sum_once_where_the_machine_can(dtype):
    x, mean, scale, beta = np.random.default_rng(0).normal(size=(4, 70)).astype(dtype)
    y = np.empty_like(x)
    map_rows(dtype, x, 1, 70, mean, scale, beta, False, y)
    expected = (x - mean) * scale + beta
    if FUSED_MULTIPLY_ADD:
        terms = zip((x - mean).tolist(), scale.tolist(), beta.tolist())
        exact = [Fraction(deviation) * Fraction(s) + Fraction(b) for deviation, s, b in terms]
        expected = np.array([float(number) for number in exact]).astype(dtype)
    assert y.tobytes() == expected.tobytes()


def test_a_product_with_constants_is_the_gradient_in_inference_also_in_place(dtype):
    for number, channels in cases():
        dy, scale, gamma, _ = few_bits(number, channels, dtype)
        dy.flat[channels % dy.size] = [np.nan, np.inf, -np.inf, 0][channels % 4]
        expected = reference.batchnorm_inference_backward(dy, scale, gamma)
        with Outputs(dy.shape, dtype=dtype, shift=channels % 3) as [dx]:
            scale_rows(dtype, dy, number, channels, scale * gamma, dx)
        np.testing.assert_array_equal(dx, expected)
        scale_rows(dtype, dy, number, channels, scale * gamma, dy)
        np.testing.assert_array_equal(dy, expected)


def gradients(dy, x, mean, inv_std, gamma):
    """Return dx, dgamma and dbeta as `batchnorm_backward` does, in two passes over the rows."""
    number, channels = x.shape
    with Outputs((channels,), (channels,), dtype=x.dtype, shift=channels % 3) as (total, product):
        sum_gradient(x.dtype, dy, x, number, channels, mean, total, product)
    dbeta, dgamma = total, product * inv_std
    terms = np.stack([gamma * inv_std, dbeta / number, dgamma * inv_std / number]).astype(x.dtype)
    with Outputs(x.shape, dtype=x.dtype, shift=channels % 3) as [dx]:
        write_gradient(x.dtype, dy, x, number, channels, mean, terms, dx)
    in_place = dy.copy()
    write_gradient(x.dtype, in_place, x, number, channels, mean, terms, in_place)
    assert in_place.tobytes() == dx.tobytes()
    return dx, dgamma, dbeta


@np.errstate(all="ignore")
def assert_gradients_as_defined(dy, x):
    mean, inv_std, gamma = np.random.default_rng(1).uniform(0.5, 2, (3, x.shape[1])).astype(x.dtype)
    wide = [array.astype(np.float64) for array in (dy, x, mean, inv_std, gamma)]
    for mine, expected in zip(gradients(dy, x, mean, inv_std, gamma), reference.batchnorm_backward(*wide)):
        assert_close(mine, expected, EPSILON[x.dtype.name])


def test_two_passes_are_the_gradient_of_the_normalisation_also_in_place(dtype):
    for number, channels in cases():
        dy, x = pixels(number, channels, dtype)
        assert_gradients_as_defined(dy, x)


def test_nan_and_infinity_show_in_the_gradient_where_they_do_in_the_definition(dtype):
    rng = np.random.default_rng(0)
    for channels in BAD_CHANNELS:
        dy, x = pixels(5, channels, dtype)
        assert_gradients_as_defined(spoilt(dy, rng), x)
        assert_gradients_as_defined(dy, spoilt(x, rng))


@np.errstate(all="ignore")
def test_sums_are_those_of_the_columns(dtype):
    for number, channels in cases():
        x, _ = pixels(number, channels, dtype)
        if channels in BAD_CHANNELS:
            x = spoilt(x, np.random.default_rng(channels))
        with Outputs((channels,), dtype=dtype, shift=channels % 3) as [total]:
            sum_rows(dtype, x, number, channels, total)
        assert_close(total, reference.column_sums(x), EPSILON[dtype])


def test_sums_add_up_in_the_order_of_the_rows(dtype):
    x, _ = pixels(50, 35, dtype)
    total, one_by_one = np.empty(35, dtype), np.zeros(35, dtype)
    sum_rows(dtype, x, *x.shape, total)
    for row in x:
        one_by_one += row
    assert total.tobytes() == one_by_one.tobytes()


def test_panels_are_two_vectors_of_rows_turned(dtype):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for number in (1, lanes - 1, lanes, lanes + 1, 2 * lanes, 4 * lanes + 1):
        for columns in (*range(1, 20), 33):
            # Between the rows of x there are numbers that don't belong to it.
            x = np.random.default_rng(columns).normal(size=(number, columns + 3)).astype(dtype)
            panels = -(-number // (2 * lanes))
            with Outputs((panels * columns * 2 * lanes + 2 * lanes**2,), dtype=dtype) as [y]:
                transpose_panels(dtype, x, columns + 3, number, columns, y)
            turned = y[: panels * columns * 2 * lanes].reshape(panels, columns, 2 * lanes)
            for row in range(number):
                np.testing.assert_array_equal(turned[row // (2 * lanes), :, row % (2 * lanes)], x[row, :columns])


def test_runs_are_added_and_what_lies_between_them_stays(dtype):
    for columns in CHANNELS:
        rng = np.random.default_rng(columns)
        number, x_apart, y_apart = rng.integers((0, 0, 0), (6, 5, 5)).tolist()
        x = rng.normal(size=(number, columns + x_apart)).astype(dtype)
        begin = rng.normal(size=(number, columns + y_apart)).astype(dtype)
        expected = begin.copy()
        expected[:, :columns] += x[:, :columns]
        with Outputs(begin.shape, dtype=dtype, shift=columns % 3) as [y]:
            y[:] = begin
            add_runs(dtype, x, columns + x_apart, number, columns, y, columns + y_apart)
        np.testing.assert_array_equal(y, expected)
