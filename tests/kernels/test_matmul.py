"""The matrix product and the sums over rows, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels
from tests.kernels.drawn import assert_as_defined, assert_close, dtypes, seeds, spoilt

widths = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 65])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 70), st.integers(0, 40), widths, st.booleans(), st.booleans(), st.booleans(), dtypes, seeds)
def test_matmul_equals_its_definition(m, k, n, bias, transpose_a, transpose_b, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    bias = rng.normal(size=n).astype(dtype) if bias else None
    assert_as_defined("matmul", [a, b, bias], transpose_a, transpose_b)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.booleans(), st.booleans(), dtypes, seeds)
def test_nan_and_infinity_spoil_their_row_or_column_and_no_other(m, k, n, in_a, transpose_b, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m, k)).astype(dtype)
    b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    a, b = (spoilt(a, rng), b) if in_a else (a, spoilt(b, rng))
    assert_as_defined("matmul", [a, b, None], False, transpose_b)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0, 1, 255, 256, 257, 600]), widths, dtypes, seeds)
def test_column_sums_equal_their_definition(m, n, dtype, seed):
    assert_as_defined("column_sums", [np.random.default_rng(seed).normal(size=(m, n)).astype(dtype)])


def test_column_sums_hand_on_nan_and_infinity():
    x = np.ones((300, 3), np.float32)
    x[270, 0], x[3, 2] = np.nan, np.inf
    assert_as_defined("column_sums", [x])


def test_column_sums_of_many_rows_lose_no_digits():
    # Added up one by one in float32, 0.1 a million times gives 100958.
    total = kernels.column_sums(np.full((1_000_000, 1), 0.1, np.float32))
    assert total[0] == pytest.approx(100_000, rel=1e-5)


def test_a_product_does_not_depend_on_the_number_of_rows():
    # One sample gives the same bits alone and in a batch.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 33)).astype(np.float32), rng.normal(size=(33, 10)).astype(np.float32)
    together = kernels.matmul(a, b)
    for i in range(len(a)):
        assert kernels.matmul(a[i : i + 1], b).tobytes() == together[i].tobytes()


def test_matmul_of_integers_in_floats_is_exact():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, size=shape).astype(np.float32) for shape in ((19, 50), (50, 21)))
    assert_close(kernels.matmul(a, b), a.astype(int) @ b.astype(int), 0)
