"""The kernels of the activations against their definitions, and difficult cases of exp, NaN and infinity."""

import functools
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.kernels.layout import TOGETHER
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

FORWARD = {
    "relu": [{}],
    "leaky_relu": [{}, {"negative_slope": 0.5}, {"negative_slope": 0.0}, {"negative_slope": 3.0}],
    "clipped_relu": [{"max_value": 1.0}, {"negative_slope": 0.3, "threshold": 0.5},
                     {"max_value": 2.0, "negative_slope": 0.1, "threshold": 0.25}],
    "elu": [{}, {"alpha": 0.3}, {"alpha": 0.0}, {"alpha": -2.0}],
    "gelu": [{}, {"approximate": True}],
    "sigmoid": [{}],
    "silu": [{}],
    "tanh": [{}],
    "softplus": [{}],
    "softmax": [{}, {"axis": 0}, {"axis": (0, -1)}],
    "log_softmax": [{}, {"axis": 0}, {"axis": (0, -1)}],
}
CASES = [(name, arguments) for name, choices in FORWARD.items() for arguments in choices]
FROM_X = ("clipped_relu", "elu", "gelu", "silu")  # backward takes x; the others take y
SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)
DTYPES = st.sampled_from(["float32", "float64"])


def both_passes(module, name, arguments, x, dy):
    y = getattr(module, name)(x, **arguments)
    dx = getattr(module, f"{name}_backward")(dy, x if name in FROM_X else y, **arguments)
    return y, dx


@pytest.mark.parametrize(("name", "arguments"), CASES)
@settings(max_examples=20, deadline=None)
@given(shape=SHAPES, dtype=DTYPES, scale=st.sampled_from([0.01, 1.0, 10.0]), seed=st.integers(0, 1000))
def test_kernel_equals_its_definition(name, arguments, shape, dtype, scale, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    x *= scale
    arrays = x.copy(), dy.copy()
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for result, expected in zip(both_passes(kernels, name, arguments, x, dy),
                                both_passes(reference, name, arguments, x, dy)):
        assert result.dtype == expected.dtype == dtype
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance * np.abs(x).max())
    # A kernel never writes to its arguments.
    np.testing.assert_array_equal(x, arrays[0])
    np.testing.assert_array_equal(dy, arrays[1])


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_out_is_filled_and_returned(name, arguments):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    for suffix, inputs in (("", (x,)), ("_backward", (dy, x))):
        kernel = getattr(kernels, name + suffix)
        out = np.full(x.shape, np.nan)
        assert kernel(*inputs, **arguments, out=out) is out
        fresh = kernel(*inputs, **arguments)
        np.testing.assert_array_equal(out, fresh)
        assert not any(np.shares_memory(fresh, array) for array in inputs)
        definition = getattr(reference, name + suffix)
        out = np.full(x.shape, np.nan)
        assert definition(*inputs, **arguments, out=out) is out
        np.testing.assert_allclose(out, fresh, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [f"{name}{suffix}" for name in FORWARD for suffix in ("", "_backward")])
def test_kernel_and_definition_have_one_signature(name):
    assert inspect.signature(getattr(kernels, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "at_1000", "at_minus_1000"), [
    ("relu", 1000, 0),
    ("leaky_relu", 1000, -200),
    ("elu", 1000, -1),
    ("gelu", 1000, 0),
    ("sigmoid", 1, 0),
    ("silu", 1000, 0),
    ("tanh", 1, -1),
    ("softplus", 1000, 0),
])
def test_thousands_are_exact_and_warn_of_nothing(name, at_1000, at_minus_1000, dtype):
    x = np.array([1000, -1000], dtype)
    np.testing.assert_array_equal(getattr(kernels, name)(x), [at_1000, at_minus_1000])
    _, dx = both_passes(kernels, name, {}, x, np.ones(2, dtype))
    assert np.isfinite(dx).all()


def test_gelu_is_exact_far_below_zero():
    # 1 + erf(x / √2) would be 0 or a rounding error there. The value is -10 Φ(-10).
    np.testing.assert_allclose(kernels.gelu(np.array([-10.0])), [-7.619853024160527e-23], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_1000_is_not_nan(dtype):
    x = np.array([[1000, 1000, 0], [-1000, -1000, -1001]], dtype)
    p = np.exp(-1)
    expected = np.array([[0.5, 0.5, 0], np.array([1, 1, p]) / (2 + p)])
    np.testing.assert_allclose(kernels.softmax(x), expected, rtol=1e-6)
    np.testing.assert_allclose(kernels.log_softmax(x)[0], [-np.log(2), -np.log(2), -1000 - np.log(2)], rtol=1e-6)


def test_nan_makes_its_row_of_softmax_nan_and_no_other():
    x = np.array([[np.nan, 1, 2], [0, 1, 2], [np.inf, 1, 2], [-np.inf, 1, 1]])
    for kernel in (kernels.softmax, kernels.log_softmax):
        np.testing.assert_array_equal(np.isnan(kernel(x)).all(axis=1), [True, False, True, False])
    np.testing.assert_allclose(kernels.softmax(x)[3], [0, 0.5, 0.5])


@pytest.mark.parametrize(("name", "arguments"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_in_is_nan_out(name, arguments, dtype):
    x = np.full((2, 3), np.nan, dtype)
    assert np.isnan(getattr(kernels, name)(x, **arguments)).all()
    # A NaN in dy propagates to dx wherever the derivative isn't 0 anyway.
    _, dx = both_passes(kernels, name, arguments, np.full((2, 3), 0.75, dtype), x)
    assert np.isnan(dx).all()


def test_infinity_passes_through_the_rectifiers():
    x = np.array([np.inf, -np.inf])
    np.testing.assert_array_equal(kernels.relu(x), [np.inf, 0])
    np.testing.assert_array_equal(kernels.leaky_relu(x), [np.inf, -np.inf])
    np.testing.assert_array_equal(kernels.clipped_relu(x, max_value=6.0), [6, 0])
    np.testing.assert_array_equal(kernels.elu(x), [np.inf, -1])
    np.testing.assert_array_equal(kernels.sigmoid(x), [1, 0])
    np.testing.assert_array_equal(kernels.softplus(x), [np.inf, 0])


def test_derivative_of_tanh_has_its_scale():
    x = np.array([0.5])
    dx = kernels.tanh_backward(np.array([3.0]), kernels.tanh(x))
    np.testing.assert_allclose(dx, 3 / np.cosh(0.5) ** 2, rtol=1e-12)


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if case[1].get("axis") != 0
                                                 and case[1].get("axis") != (0, -1)])
def test_a_number_has_the_same_bits_however_the_stage_is_cut(name, arguments, dtype):
    for shape in ((17,), (3, 5), (3, 7, 5, 3), (1, 130)):
        if "softmax" in name and len(shape) == 1:
            continue  # the softmax would run along the batch axis
        x, dy = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
        forward = functools.partial(getattr(kernels, name), **arguments)
        backward = functools.partial(getattr(kernels, f"{name}_backward"), **arguments)
        second = "x" if name in FROM_X else "y"
        for check in (assert_same_bits, assert_same_bits_alone):
            check(forward, {"x": x}, "x")
            check(backward, {"dy": dy, second: forward(x) if second == "y" else x}, f"dy {second}")


@compiled_kernels_needed
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu"])
@pytest.mark.parametrize("shape", [(TOGETHER,), (3 * TOGETHER - 1,), (3, TOGETHER + 1)])
def test_units_cover_every_number_and_threads_change_no_bit(name, shape):
    x, dy = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    forward, backward = getattr(kernels, name), getattr(kernels, f"{name}_backward")
    second = "x" if name in FROM_X else "y"
    (y,) = assert_same_bits(forward, {"x": x}, "x")
    (dx,) = assert_same_bits(backward, {"dy": dy, second: x if second == "x" else y}, f"dy {second}")
    for result, wanted in zip((y, dx), both_passes(reference, name, {}, x, dy)):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


@compiled_kernels_needed
@pytest.mark.parametrize(("name", "ulps"), [("elu", 2), ("sigmoid", 2), ("silu", 3), ("tanh", 2), ("softplus", 3),
                                            ("softmax", 6), ("log_softmax", 3)])
def test_float32_is_right_to_a_few_units_in_the_last_place(name, ulps):
    # x minus the largest of its row is rounded, and exp turns this absolute error into a relative one.
    largest = 2 if name == "softmax" else 20
    x = np.random.default_rng(0).uniform(-largest, largest, (200, 50)).astype(np.float32)
    y = getattr(kernels, name)(x)
    expected = getattr(reference, name)(x.astype(np.float64))
    assert (np.abs(y - expected) / np.spacing(np.abs(expected).astype(np.float32))).max() < ulps


@compiled_kernels_needed
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [1, (1, 2), (1, 3), (1, 2, 3), (2, 3), -2])
def test_softmax_along_other_axes_has_the_same_bits_however_it_is_cut(name, axis):
    x, dy = np.random.default_rng(0).normal(size=(2, 3, 7, 5, 3)).astype(np.float32)
    arguments = {"axis": axis}
    (y,) = assert_same_bits(functools.partial(getattr(kernels, name), **arguments), {"x": x}, "x")
    backward = functools.partial(getattr(kernels, f"{name}_backward"), **arguments)
    (dx,) = assert_same_bits(backward, {"dy": dy, "y": y}, "dy y")
    for result, expected in zip((y, dx), both_passes(reference, name, arguments, *(a.astype(float) for a in (x, dy)))):
        np.testing.assert_allclose(result, expected, atol=2e-6)


@compiled_kernels_needed
@pytest.mark.parametrize("axis", [2, (0, 0), (1, -1), -3])
def test_softmax_refuses_what_are_no_axes(axis):
    x = np.ones((2, 3), np.float32)
    for call in (lambda: kernels.softmax(x, axis), lambda: kernels.log_softmax_backward(x, x, axis)):
        with pytest.raises(ValueError, match="axis must be one of the 2 axes of the array, or several different ones"):
            call()


@compiled_kernels_needed
def test_softmax_of_a_graph_refuses_the_axis_of_the_samples():
    x = Graph(np.float32).given((N, 3))
    with pytest.raises(ValueError, match="softmax: axis must not be the axis of the samples"):
        kernels.softmax(x, axis=0)


def test_log_softmax_and_softmax_are_the_two():
    x = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    for one, other in zip(kernels.log_softmax_and_softmax(x), (kernels.log_softmax(x), kernels.softmax(x))):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in FORWARD if "softmax" not in name])
def test_one_number_without_axes_is_taken(name):
    y, dx = both_passes(kernels, name, {}, np.array(0.5), np.array(2.0))
    expected = both_passes(reference, name, {}, np.array([0.5]), np.array([2.0]))
    assert y.shape == dx.shape == ()
    np.testing.assert_allclose([[y], [dx]], expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if "axis" not in case[1]])
def test_empty_batch_gives_an_empty_batch(name, arguments):
    x = np.zeros((0, 3), np.float32)
    for result in both_passes(kernels, name, arguments, x, x):
        assert result.shape == (0, 3)
        assert result.dtype == np.float32
