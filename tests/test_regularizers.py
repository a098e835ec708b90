"""Regularizers: values, derivatives by finite differences, configs."""

import json

import numpy as np
import pytest

from cnnlite import regularizers
from cnnlite.regularizers import L1, L1L2, L2
from tests.helpers.numeric import numeric_gradient

ALL = [L1(0.3), L2(0.3), L1L2(0.2, 0.4), L1L2()]
IDS = ["l1", "l2", "l1_l2", "none"]


def spread(shape, dtype="float64"):
    """Random weights of which none is so near 0 that a finite difference would cross the kink of |w|."""
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], shape) * rng.uniform(0.1, 2, shape)).astype(dtype)


def test_values_by_hand():
    weights = np.array([[1.0, -2.0], [3.0, 0.0]])
    assert L1(0.5)(weights) == pytest.approx(3.0)
    assert L2(0.5)(weights) == pytest.approx(7.0)
    assert L1L2(0.5, 0.25)(weights) == pytest.approx(6.5)
    assert L1()(weights) == pytest.approx(0.06)
    assert L2()(weights) == pytest.approx(0.14)


@pytest.mark.parametrize("regularizer", ALL, ids=IDS)
def test_the_gradient_is_the_derivative(regularizer):
    weights = spread((3, 4))
    numeric = numeric_gradient(lambda: regularizer(weights), weights)
    np.testing.assert_allclose(regularizer.gradient(weights), numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("regularizer", ALL, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_has_the_precision_of_the_weights_and_leaves_them_alone(regularizer, dtype):
    weights = spread((3, 4), dtype)
    before = weights.copy()
    gradient = regularizer.gradient(weights)
    assert gradient.dtype == dtype
    assert gradient.shape == weights.shape
    assert isinstance(regularizer(weights), float)
    np.testing.assert_array_equal(weights, before)


def test_a_weight_of_zero_is_not_pushed_by_l1():
    assert L1(0.5).gradient(np.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize("regularizer", ALL, ids=IDS)
def test_a_config_makes_the_same_regularizer_again(regularizer):
    restored = regularizers.get(json.loads(json.dumps(regularizers.serialize(regularizer))))
    assert type(restored) is type(regularizer)
    assert restored.get_config() == regularizer.get_config()


def test_names():
    assert isinstance(regularizers.get("l1"), L1)
    assert isinstance(regularizers.get("L2"), L2)
    assert isinstance(regularizers.get("l1_l2"), L1L2)
    assert regularizers.l2(0.3).get_config() == {"l2": 0.3}
    assert (regularizers.l1, regularizers.l1_l2) == (L1, L1L2)
    assert regularizers.get(None) is None
    assert regularizers.serialize(None) is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: L1(-0.1), ValueError, "L1: l1 must be at least 0"),
        (lambda: L2(float("nan")), ValueError, "L2: l2 must be at least 0 and finite"),
        (lambda: L1L2(0.1, "much"), TypeError, "L1L2: l2 must be a number"),
        (lambda: regularizers.get("l3"), ValueError, "Unknown regularizer: 'l3'. Known: l1, l1_l2, l2"),
        (lambda: regularizers.Regularizer()(np.ones(2)), NotImplementedError, "must define __call__"),
        (lambda: regularizers.Regularizer().gradient(np.ones(2)), NotImplementedError, "must define gradient"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("regularizer", ALL, ids=IDS)
def test_the_gradient_is_added_to_what_is_there(regularizer):
    weights, gradient = spread((3, 4), "float32"), spread((3, 4), "float32")[::-1].copy()
    expected = gradient + regularizer.gradient(weights)
    regularizer.add_gradient(weights, gradient)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


def test_a_regularizer_of_your_own_needs_a_call_and_a_gradient_alone():
    class Cubes(regularizers.Regularizer):
        def __call__(self, weights):
            return float((weights**3).sum())

        def gradient(self, weights):
            return 3 * weights**2

    gradient = np.ones(2)
    Cubes().add_gradient(np.array([1.0, 2.0]), gradient)
    assert gradient.tolist() == [4, 13]


def test_a_penalty_takes_lists_and_integers():
    assert L1L2(0.5, 0.25)([1, -2]) == L1L2(0.5, 0.25)(np.array([1, -2])) == 1.5 + 1.25
