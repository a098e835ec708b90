"""The optimizer steps: the compiled loops against the definitions in plain NumPy."""

import numpy as np
import pytest

from cnnlite import reference
from cnnlite.kernels import optimizers as kernels
from tests.kernels import stages
from tests.kernels.drawn import compiled_kernels_needed

# name: (the kernel, which of its slots are in use, the scalars)
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


@np.errstate(invalid="ignore")  # NumPy warns if numba is told to compile nothing
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


def with_values(name):
    """Return the kernel that takes its scalars as an array, its slots, and the array."""
    function, used, scalars = STEPS[name]
    return function.removesuffix("_step"), used, np.array(scalars, np.float64)


@pytest.mark.parametrize("name", STEPS)
def test_a_part_of_the_vectors_steps_as_it_does_alone_and_the_rest_stays(name):
    function, used, values = with_values(name)
    for module in (kernels, reference):
        p, g, slots = arrays(name, 37, "float32")
        whole, alone = [p, *slots], [array[5:30].copy() for array in (p, *slots) if array.size]
        before = [array.copy() for array in whole]
        slots = [slot if is_used else None for slot, is_used in zip(slots, used)]
        getattr(module, function)(p, g, *slots, values, 5, 30)
        rest = iter(alone[1:])
        parts = [next(rest) if is_used else p[:0] for is_used in used]
        getattr(module, f"{function}_step")(alone[0], g[5:30].copy(), *parts, *STEPS[name][2])
        expected = iter(alone)
        for array, old in zip(whole, before):
            if array.size:
                np.testing.assert_array_equal(array[5:30], next(expected))
                np.testing.assert_array_equal(np.delete(array, range(5, 30)), np.delete(old, range(5, 30)))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_refused_changes_nothing(name):
    function, _, values = with_values(name)
    for module in (kernels, reference):
        p, g, slots = arrays(name, 37, "float32")
        before = [array.copy() for array in (p, *slots)]
        getattr(module, function)(p, g, *slots, values, refused=np.array([1]))
        for array, old in zip((p, *slots), before):
            np.testing.assert_array_equal(array, old)
        getattr(module, function)(p, g, *slots, values, refused=np.array([0]))
        assert (p != before[0]).all()


@compiled_kernels_needed
@pytest.mark.parametrize("name", STEPS)
def test_the_bits_do_not_depend_on_how_the_stages_are_scheduled(name):
    function, used, values = with_values(name)
    p, g, slots = arrays(name, 70001, "float32")
    given = {"p": p, "g": g, "values": values, **{f"s{i}": slot for i, slot in enumerate(slots) if slot.size}}
    results = []
    for way in ({}, {"joined": False}, {"threads": 2}):
        copies = {key: array.copy() for key, array in given.items()}

        def step(p, g, values, **slots):
            getattr(kernels, function)(p, g, *(slots.get(f"s{i}") for i in range(len(used))), values)
            return ()

        stages.results(step, copies, **way)
        results.append(copies)
    for other in results[1:]:
        for key in given:
            np.testing.assert_array_equal(other[key].view(np.uint8), results[0][key].view(np.uint8))
    assert (results[0]["p"] != p).all()


@compiled_kernels_needed
def test_what_does_not_fit_is_refused():
    p, values = np.ones(7, np.float32), np.ones(3)
    with pytest.raises(ValueError, match=r"adagrad_step: values must have the shape \(3,\)"):
        kernels.adagrad(p, p, p, np.ones(4))
    with pytest.raises(TypeError, match="values must be of dtype float64"):
        kernels.adagrad(p, p, p, values.astype(np.float32))
    with pytest.raises(TypeError, match="refused must be of dtype int64"):
        kernels.adagrad(p, p, p, values, refused=np.zeros(1))
    with pytest.raises(ValueError, match=r"within the 7 numbers of p\. Received: start=2, stop=8"):
        kernels.adagrad(p, p, p, values, 2, 8)
    with pytest.raises(ValueError, match=r"accumulator must have the shape \(7,\)"):
        kernels.adagrad(p, p, p[:0], values)
