"""Sums and products of two arrays: equal to their definitions bit for bit, whichever axes are broadcast."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

SHAPES = [
    (3, 4, 6, 3), (3, 1, 1, 3), (3, 4, 1, 1), (1, 4, 6, 3), (1, 1, 1, 1), (3,), (), (6, 3), (4, 1, 3), (3, 1, 6, 1),
    (1, 4, 1, 3),
]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 7, 1 << 15, (1 << 16) + 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_definition_to_the_last_bit(size, dtype):
    a, b = np.random.default_rng(size).normal(size=(2, size)).astype(dtype)
    kept = a.copy(), b.copy()
    for kernel, definition in (kernels.add, reference.add), (kernels.multiply, reference.multiply):
        out = np.full(size, np.nan, dtype)
        assert kernel(a, b, out=out) is out
        np.testing.assert_array_equal(out, definition(*kept), strict=True)
        np.testing.assert_array_equal((a, b), kept)
    np.testing.assert_array_equal(kernels.add(a, a), 2 * a, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_axes_of_size_1_and_axes_that_are_not_there_stand_for_any(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4, 6, 3)).astype("f4"), rng.normal(size=shape).astype("f4")
    np.testing.assert_array_equal(kernels.add(a, b), a + b, strict=True)
    np.testing.assert_array_equal(kernels.multiply(a, b), a * b, strict=True)
    np.testing.assert_array_equal(kernels.multiply(a[:1].copy(), b[:1].copy() if b.ndim == 4 else b),
                                  a[:1] * (b[:1] if b.ndim == 4 else b), strict=True)


@compiled_kernels_needed  # otherwise NumPy refuses it, with its own message
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (3, 4, 6, 3, 1), (4,), (3, 4, 6)])
def test_what_does_not_broadcast_is_refused(shape):
    with pytest.raises(ValueError, match="broadcast against the first"):
        kernels.add(np.zeros((3, 4, 6, 3), "f4"), np.zeros(shape, "f4"))


def test_nan_and_infinity_add_up_as_numpy_s():
    a = np.array([np.inf, np.inf, np.nan, -np.inf, 3e38], "f4")
    b = np.array([1, -np.inf, 1, -np.inf, 3e38], "f4")
    np.testing.assert_array_equal(kernels.add(a, b), [np.inf, np.nan, np.nan, -np.inf, np.inf])


@compiled_kernels_needed
@pytest.mark.parametrize("kernel", [kernels.add, kernels.multiply])
@pytest.mark.parametrize("shape", [(5, 4, 6, 3), (5, 1, 6, 1)])
def test_however_it_is_scheduled_the_bits_are_the_same(kernel, shape):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(5, 4, 6, 3)).astype("f4"), "b": rng.normal(size=shape).astype("f4")}
    assert_same_bits(kernel, arrays, "a b")
    assert_same_bits_alone(kernel, arrays, "a b")
