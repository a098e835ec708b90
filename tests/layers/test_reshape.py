"""Reshape: the target shape, there and back, and targets that are refused."""

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import Reshape


@pytest.mark.parametrize(("target", "result"), [
    ((3, 4), (3, 4)), ((12,), (12,)), ((-1, 2, 2), (3, 2, 2)), ((2, -1), (2, 6)), ([4, 3, 1], (4, 3, 1)),
])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_samples_get_the_target_shape_and_the_gradient_the_old_one(target, result, batch):
    x = np.random.default_rng(0).normal(size=(batch, 2, 6))
    layer = Reshape(target, dtype="float64")
    y = layer(x, training=True)
    assert y.shape == (batch, *result)
    assert layer.compute_output_shape((None, 2, 6)) == (None, *result)
    np.testing.assert_array_equal(y, x.reshape(batch, *result))
    np.testing.assert_array_equal(layer.backward(y), x)


def test_gradient_equals_finite_differences():
    assert cnnlite.check_gradients(Reshape((3, -1)), np.random.default_rng(0).normal(size=(2, 6))).ok


def test_empty_target_makes_scalars_of_samples():
    assert Reshape(())(np.ones((3, 1))).shape == (3,)


def test_unknown_sizes_stay_unknown():
    assert Reshape((-1, 2)).compute_output_shape((None, None, 4)) == (None, None, 2)


@pytest.mark.parametrize(("target", "error"), [
    ((5, 2), "as many values as a sample, 12"), ((-1, 5), "as many values as a sample, 12"),
    ((-1, -1), "-1 at most once"), ((0, 12), "positive integers"), ((-2, 6), "at least -1"),
])
def test_wrong_targets_are_refused(target, error):
    with pytest.raises(ValueError, match=error):
        Reshape(target).build((None, 3, 4))


def test_target_must_hold_integers():
    for target in ((2.5, 2), 12, "ab"):
        with pytest.raises(TypeError, match="target_shape must be"):
            Reshape(target)


def test_config_makes_the_same_layer():
    config = Reshape((3, -1), name="cut").get_config()
    assert config["target_shape"] == [3, -1]
    assert Reshape.from_config(config).get_config() == config
