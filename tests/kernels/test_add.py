"""The sum of two arrays: its definition to the last bit, on any number of threads, and nothing but out is written."""

import numba
import numpy as np
import pytest

from cnnlite import kernels, reference
from cnnlite.kernels.add import add
from cnnlite.kernels.threads import CHUNK
from tests.kernels.drawn import compiled_kernels_needed


@pytest.mark.parametrize("size", [0, 1, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_definition_to_the_last_bit(size, dtype):
    a, b = np.random.default_rng(size).normal(size=(2, size)).astype(dtype)
    kept = a.copy(), b.copy()
    out = np.full(size, np.nan, dtype)
    assert kernels.add(a, b, out=out) is out
    np.testing.assert_array_equal(out, reference.add(*kept), strict=True)
    np.testing.assert_array_equal((a, b), kept)
    np.testing.assert_array_equal(kernels.add(a, a), 2 * a, strict=True)


def test_nan_and_infinity_add_up_as_numpy_s():
    a = np.array([np.inf, np.inf, np.nan, -np.inf, 3e38], "f4")
    b = np.array([1, -np.inf, 1, -np.inf, 3e38], "f4")
    np.testing.assert_array_equal(kernels.add(a, b), [np.inf, np.nan, np.nan, -np.inf, np.inf])


@compiled_kernels_needed
def test_the_number_of_threads_makes_no_difference():
    a, b = np.random.default_rng(0).normal(size=(2, 5 * CHUNK + 1)).astype("f4")
    before, results = numba.get_num_threads(), set()
    try:
        for threads in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(threads)
            results.add(add(a, b).tobytes())
    finally:
        numba.set_num_threads(before)
    assert results == {(a + b).tobytes()}
