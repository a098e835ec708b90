"""The optimizer steps: the compiled loops against the definitions in plain NumPy."""

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.kernels import optimizers as kernels

# name: (which of the slots are in use, the scalars)
STEPS = {
    "sgd": ("sgd_step", [False], (0.5, 0.0, False, 0.0)),
    "sgd with decay": ("sgd_step", [False], (0.5, 0.0, False, 0.01)),
    "sgd with momentum": ("sgd_step", [True], (0.5, 0.9, False, 0.01)),
    "sgd with nesterov": ("sgd_step", [True], (0.5, 0.9, True, 0.0)),
    "rmsprop": ("rmsprop_step", [True, False, False], (0.1, 0.9, 0.0, 1e-7, 0.0)),
    "rmsprop centered": ("rmsprop_step", [True, True, False], (0.1, 0.9, 0.0, 1e-3, 0.01)),
    "rmsprop with momentum": ("rmsprop_step", [True, False, True], (0.1, 0.9, 0.5, 1e-7, 0.01)),
    "rmsprop with all": ("rmsprop_step", [True, True, True], (0.1, 0.9, 0.5, 1e-3, 0.01)),
    "adam": ("adam_step", [True, True, False], (0.1, 0.9, 0.999, 1e-7, 0.0)),
    "adam with amsgrad": ("adam_step", [True, True, True], (0.1, 0.9, 0.999, 1e-7, 0.01)),
    "adagrad": ("adagrad_step", [True], (0.1, 1e-7, 0.0)),
    "adagrad with decay": ("adagrad_step", [True], (0.1, 1e-7, 0.01)),
}


def arrays(name, size, dtype, seed=0):
    rng = np.random.default_rng(seed)
    slots = [np.full(size if used else 0, 0.1, dtype) for used in STEPS[name][1]]
    return rng.normal(size=size).astype(dtype), rng.normal(size=size).astype(dtype), slots


def both(name, size, dtype, steps=5, gradient=None):
    """Run the kernel and the definition, and return the arrays of each."""
    results = []
    function, _, scalars = STEPS[name]
    for module in (kernels, reference):
        p, g, slots = arrays(name, size, dtype)
        for step in range(steps):
            g = arrays(name, size, dtype, seed=step)[1] if gradient is None else gradient.astype(dtype)
            getattr(module, function)(p, g, *slots, *scalars)
        results.append([p, *slots])
    return results


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernel_equals_the_definition(name, dtype):
    for mine, theirs in zip(*both(name, 37, dtype)):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_an_empty_vector_is_left_alone(name):
    for mine, _ in zip(*both(name, 0, "float32")):
        assert mine.size == 0


@pytest.mark.parametrize("name", STEPS)
def test_nan_and_infinity_pass_as_in_the_definition(name):
    gradient = np.array([1.0, np.nan, np.inf, -np.inf, 0.0])
    with np.errstate(invalid="ignore"):
        mine, theirs = both(name, 5, "float32", steps=2, gradient=gradient)
    for a, b in zip(mine, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert np.isfinite(mine[0][[0, 4]]).all()
    assert np.isnan(mine[0][1])


@np.errstate(invalid="ignore")  # of which there is none unless numba is told to compile nothing
@pytest.mark.parametrize("name", ["rmsprop", "adam", "adagrad"])
def test_a_division_of_zero_by_zero_is_nan_and_no_exception(name):
    function, used, scalars = STEPS[name]
    scalars = (*scalars[:-2], 0.0, 0.0)  # no epsilon, no decay
    p, g = np.ones(4, np.float32), np.zeros(4, np.float32)
    getattr(kernels, function)(p, g, *(np.zeros(4 if is_used else 0, np.float32) for is_used in used), *scalars)
    assert np.isnan(p).all()


@pytest.mark.parametrize("name", STEPS)
def test_the_gradient_is_not_written_to(name):
    function, _, scalars = STEPS[name]
    p, g, slots = arrays(name, 16, "float32")
    before = g.copy()
    getattr(kernels, function)(p, g, *slots, *scalars)
    np.testing.assert_array_equal(g, before)
