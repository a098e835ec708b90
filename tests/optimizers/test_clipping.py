"""Clipping gradients, read off from a step of SGD with the learning rate 1."""

import numpy as np
import pytest

from cnnlite.optimizers import SGD
from tests.helpers.optimizing import Parameters


def clipped(gradient, frozen=(), dtype="float64", **clipping):
    parameters = Parameters(np.zeros(2), np.zeros(2), dtype=dtype, frozen=frozen)
    parameters.gradient[:] = gradient
    SGD(1.0, **clipping).step(parameters)
    return (-parameters.vector).tolist()


def test_clipvalue_limits_each_number():
    assert clipped([3, -4, 0.5, -0.5], clipvalue=1.0) == [1, -1, 0.5, -0.5]


def test_clipnorm_limits_each_weight_by_its_own_norm():
    assert clipped([3, -4, 0.3, 0.4], clipnorm=1.0) == pytest.approx([0.6, -0.8, 0.3, 0.4])


def test_global_clipnorm_limits_all_by_one_norm():
    # the norm is sqrt(9 + 16 + 144 + 0) = 13
    assert clipped([3, -4, 12, 0], global_clipnorm=6.5) == pytest.approx([1.5, -2, 6, 0])


def test_a_gradient_that_is_small_enough_is_left_as_it_is():
    gradient = [0.1, 0.3, 0.7, 0.01]
    for clipping in ({"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
        assert clipped(gradient, **clipping) == gradient


def test_a_gradient_of_zero_is_clipped_to_zero():
    for clipping in ({"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
        assert clipped([0, 0, 0, 0], **clipping) == [0, 0, 0, 0]


def test_what_is_frozen_does_not_count_in_the_norm():
    assert clipped([3, -4, 1e6, np.nan], frozen=(1,), global_clipnorm=1.0) == pytest.approx([0.6, -0.8, 0, 0])


def test_a_nan_spreads_over_all_that_shares_its_norm():
    def where(**clipping):
        return np.isnan(clipped([np.nan, 1, 1, 1], **clipping)).tolist()

    assert where(clipvalue=1.0) == [True, False, False, False]
    assert where(clipnorm=1.0) == [True, True, False, False]
    assert where(global_clipnorm=1.0) == [True, True, True, True]


def test_an_infinity_does_not_pass_for_a_healthy_step():
    assert clipped([np.inf, 1, 1, 1], clipvalue=2.0) == [2, 1, 1, 1]
    assert np.isnan(clipped([np.inf, 1, 0.1, 0.1], clipnorm=1.0)).tolist() == [True, False, False, False]
    assert np.isnan(clipped([np.inf, 1, 1, 1], global_clipnorm=1.0)).all()
