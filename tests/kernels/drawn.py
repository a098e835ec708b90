"""Random windows and arrays for the tests of the kernels, and the comparison with the definition."""

import contextlib
from typing import NamedTuple

import hypothesis.strategies as st
import numba
import numpy as np
import pytest

from cnnlite import kernels, reference

MARGIN = 67  # numbers before and after an array, odd so that the array is not aligned to a vector
CANARIES = 130  # bytes before and after an array: more than a vector
EPSILON = {"float32": 1e-5, "float64": 1e-13}


class Geometry(NamedTuple):
    """The geometry of a window, with at least one output pixel."""

    size: tuple
    window: tuple
    strides: tuple
    pads: tuple
    dilation: tuple

    @property
    def where(self):
        return self.strides, self.pads, self.dilation

    @property
    def output(self):
        return reference.output_shape((1, *self.size, 1), self.window, *self.where)


@st.composite
def geometries(draw):
    axes = []
    for _ in range(2):
        window = draw(st.integers(1, 5))
        stride, dilation = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
        pads = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)) | st.just((0, 0)))
        least = max(1, (window - 1) * dilation + 1 - sum(pads))
        axes.append((least + draw(st.integers(0, 4)), window, stride, pads, dilation))
    if draw(st.booleans()):  # the most common case, with a path of its own in the gradient of the input
        axes = [(size, window, 1, pads, dilation) for size, window, _, pads, dilation in axes]
    return Geometry(*zip(*axes))


dtypes = st.sampled_from(["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
batches = st.sampled_from([0, 1, 1, 2, 3, 17])


def guarded(array):
    """Return a copy of an array, and the longer array, otherwise NaN, of which the copy is the middle."""
    whole = np.full(array.size + 2 * MARGIN, np.nan, array.dtype)
    middle = whole[MARGIN : MARGIN + array.size].reshape(array.shape)
    middle[...] = array
    return middle, whole


def between_canaries(shape, dtype, shift=0):
    """Return an array, and a function that returns whether the bytes around it are unchanged."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    first = -(-CANARIES // dtype.itemsize) * dtype.itemsize + shift * dtype.itemsize
    buffer = np.random.default_rng(0).integers(0, 256, first + size + CANARIES).astype(np.uint8)
    before = buffer.copy()

    def intact():
        return (buffer[:first] == before[:first]).all() and (buffer[first + size :] == before[first + size :]).all()

    return buffer[first : first + size].view(dtype).reshape(shape), intact


def assert_close(actual, expected, epsilon):
    """Assert that values agree to `epsilon` of the largest, with NaN and infinity in the same places."""
    assert actual.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    largest = np.abs(expected[finite]).max(initial=1.0)
    np.testing.assert_allclose(actual[finite], expected[finite], rtol=0, atol=epsilon * largest)


@np.errstate(all="ignore")  # NumPy warns of NaN, compiled code doesn't
def assert_as_defined(name, arrays, *arguments):
    """Assert that a kernel agrees with reference.py, and that it writes only its output.

    All its arrays are surrounded by NaN, so reads out of bounds would show in the result.
    """
    dtype = arrays[0].dtype
    wide = [None if array is None else array.astype(np.float64) for array in arrays]
    expected = getattr(reference, name)(*wide, *arguments)
    mine = [None if array is None else guarded(array)[0] for array in arrays]
    out, around = guarded(np.full(expected.shape, 7, dtype))
    assert getattr(kernels, name)(*mine, *arguments, out=out) is out
    assert_close(out, expected, EPSILON[dtype.name])
    assert np.isnan(around[:MARGIN]).all()
    assert np.isnan(around[-MARGIN:]).all()
    for array, before in zip(mine, arrays):
        if before is not None:
            np.testing.assert_array_equal(array, before)
    fresh = getattr(kernels, name)(*mine, *arguments)
    assert fresh.dtype == dtype
    assert fresh.flags.c_contiguous
    np.testing.assert_array_equal(fresh, out)


def spoilt(array, rng):
    """Return the array with NaN or infinity in one or two places, infinities all of the same sign."""
    array = array.copy()
    for _ in range(min(2, array.size)):
        array.flat[rng.integers(array.size)] = rng.choice([np.nan, np.inf])
    return array


@contextlib.contextmanager
def threads(number):
    before = numba.get_num_threads()
    numba.set_num_threads(number)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def assert_same_bits_with_one_thread_and_two(compute):
    """Assert that `compute()`, which returns arrays, does not depend on the number of threads."""
    with threads(1):
        alone = compute()
    with threads(2):
        together = compute()
    assert [array.tobytes() for array in alone] == [array.tobytes() for array in together]


two_threads_needed = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has only one thread")

compiled_kernels_needed = pytest.mark.skipif(
    not kernels.COMPILED, reason="the reference definitions replace the kernels"
)
