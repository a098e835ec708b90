"""The kernels of weight penalties against their definitions."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits

SHAPES = [(3, 3, 2, 5), (4096,), (4099,), (0,), ()]


def drawn(shape, dtype="float32", seed=0):
    return np.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factors", [(0.3, 0.0), (0.0, 0.3), (0.2, 0.4), (0.0, 0.0)])
def test_a_penalty_and_its_gradient_equal_the_definition(shape, factors):
    w, g = drawn(shape), drawn(shape, seed=1)
    value = kernels.l1_l2_penalty(w, *factors)
    assert (value.shape, value.dtype) == ((1,), np.float64)
    np.testing.assert_allclose(value, reference.l1_l2_penalty(w, *factors), rtol=1e-6)
    expected = g.copy()
    reference.add_l1_l2_gradient(w, expected, *factors)
    assert kernels.add_l1_l2_gradient(w, g, *factors) is None
    np.testing.assert_allclose(g, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_factor_of_0_leaves_its_sum_out_and_what_is_not_finite_shows(bad):
    w = np.array([1, bad, -2], np.float32)
    assert kernels.l1_l2_penalty(w, 0.0, 0.0) == [0.0]
    assert not np.isfinite(kernels.l1_l2_penalty(w, 0.5, 0.0)[0])
    for factors in ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        g, expected = np.zeros(3, np.float32), np.zeros(3, np.float32)
        with np.errstate(invalid="ignore"):
            reference.add_l1_l2_gradient(w, expected, *factors)
            kernels.add_l1_l2_gradient(w, g, *factors)
        np.testing.assert_array_equal(g, expected)


def test_the_sum_of_many_small_squares_keeps_its_digits():
    w = np.full(1 << 20, 1e-3, np.float32)
    w[0] = 100
    assert kernels.l1_l2_penalty(w, 0.0, 1.0)[0] == pytest.approx(1e4 + (w.size - 1) * float(w[1]) ** 2, rel=1e-7)


@compiled_kernels_needed
def test_a_gradient_that_does_not_fit_is_refused():
    w = drawn((3, 4))
    with pytest.raises(ValueError, match=r"g must have the shape \(3, 4\)"):
        kernels.add_l1_l2_gradient(w, drawn((4, 3)), 0.1, 0.1)
    with pytest.raises(TypeError, match="g must be of dtype float32"):
        kernels.add_l1_l2_gradient(w, drawn((3, 4), "float64"), 0.1, 0.1)


@compiled_kernels_needed
def test_the_bits_do_not_depend_on_how_the_stages_are_scheduled():
    assert_same_bits(lambda w: (kernels.l1_l2_penalty(w, 0.3, 0.4),), {"w": drawn(9001)}, "")
