"""Initializers: the statistics of what they draw, and that a seed alone decides it."""

import json
import math

import numpy as np
import pytest

from cnnlite import initializers
from cnnlite.utils import set_random_seed

SHAPE = (5, 4, 20, 60)  # fan_in 400, fan_out 1200
# name: (variance, largest size)
SCALED = {
    "glorot_uniform": (2 / 1600, math.sqrt(6 / 1600)),
    "glorot_normal": (2 / 1600, 2 * math.sqrt(2 / 1600) / 0.8796256610342398),
    "he_uniform": (2 / 400, math.sqrt(6 / 400)),
    "he_normal": (2 / 400, 2 * math.sqrt(2 / 400) / 0.8796256610342398),
    "lecun_uniform": (1 / 400, math.sqrt(3 / 400)),
    "lecun_normal": (1 / 400, 2 * math.sqrt(1 / 400) / 0.8796256610342398),
}
RANDOM = [name for name in initializers.INITIALIZERS if name not in ("zeros", "ones", "constant")]


def make(name, **arguments):
    return initializers.INITIALIZERS[name](**arguments)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((), (1, 1)), ((7,), (7, 7)), ((7, 3), (7, 3)), ((5, 4, 20, 60), (400, 1200)), ((2, 3, 4), (6, 8))],
)
def test_fans_count_the_inputs_and_outputs_of_a_unit(shape, fans):
    assert initializers.compute_fans(shape) == fans


@pytest.mark.parametrize("name", SCALED)
def test_variance_and_limit_are_those_of_the_formula(name):
    weights = make(name, seed=1)(SHAPE, "float64")
    variance, limit = SCALED[name]
    assert weights.var() == pytest.approx(variance, rel=0.03)
    assert abs(weights.mean()) < 5 * math.sqrt(variance / weights.size)
    assert 0.95 * limit < np.abs(weights).max() <= limit


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform"])
def test_variance_scaling_has_the_variance_scale_over_fan(mode, distribution):
    fan = {"fan_in": 400, "fan_out": 1200, "fan_avg": 800}[mode]
    weights = initializers.VarianceScaling(3.0, mode, distribution, seed=2)(SHAPE, "float64")
    assert weights.var() == pytest.approx(3 / fan, rel=0.03)


def test_random_normal_has_its_mean_and_deviation():
    weights = initializers.RandomNormal(1.0, 0.5, seed=3)((200, 200), "float64")
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert weights.std() == pytest.approx(0.5, rel=0.02)


def test_truncated_normal_ends_at_two_deviations():
    weights = initializers.TruncatedNormal(1.0, 0.5, seed=3)((200, 200), "float64")
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert 0.99 < np.abs(weights - 1).max() <= 1.0
    assert weights.std() == pytest.approx(0.5 * 0.8796, rel=0.02)


def test_random_uniform_fills_its_range():
    weights = initializers.RandomUniform(-1.0, 3.0, seed=3)((200, 200), "float64")
    assert weights.min() >= -1
    assert weights.max() < 3
    assert weights.mean() == pytest.approx(1.0, abs=0.03)
    assert weights.std() == pytest.approx(4 / math.sqrt(12), rel=0.02)


def test_constants():
    np.testing.assert_array_equal(make("zeros")((2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(make("ones")((2, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(make("constant", value=0.5)((2, 3)), np.full((2, 3), 0.5))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 3, 4), (3, 3, 2, 8), (5, 5)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    weights = initializers.Orthogonal(gain=2.0, seed=4)(shape, "float64")
    matrix = weights.reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, 4 * np.eye(min(matrix.shape)), atol=1e-12)


def test_orthogonal_matrices_are_spread_over_all_directions():
    # Without a correction of the signs, the first entries would all be negative.
    first = [initializers.Orthogonal(seed=seed)((4, 4))[0, 0] for seed in range(40)]
    assert 8 < sum(value > 0 for value in first) < 32


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_gives_the_same_values_at_each_call_in_either_precision(name):
    initializer = make(name, seed=7)
    first = initializer((4, 6), "float64")
    np.testing.assert_array_equal(initializer((4, 6), "float64"), first)
    np.testing.assert_array_equal(make(name, seed=7)((4, 6)), first.astype("float32"))
    assert not np.array_equal(make(name, seed=8)((4, 6), "float64"), first)


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_seed_each_call_differs_and_the_library_seed_decides(name):
    set_random_seed(3)
    initializer = make(name)
    first, second = initializer((4, 6)), initializer((4, 6))
    assert not np.array_equal(first, second)
    set_random_seed(3)
    np.testing.assert_array_equal(make(name)((4, 6)), first)


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_array_is_new_contiguous_and_of_the_dtype_that_was_asked_for(name, dtype):
    weights = make(name)((4, 6), dtype)
    assert weights.dtype == dtype
    assert weights.shape == (4, 6)
    assert weights.flags.writeable
    assert weights.flags.c_contiguous


def test_the_global_state_of_numpy_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    set_random_seed(1)
    for name in RANDOM:
        make(name)((4, 6))
        make(name, seed=1)((4, 6))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_a_config_makes_the_same_initializer_again(name):
    initializer = make(name, seed=5) if name in RANDOM else make(name)
    restored = initializers.get(json.loads(json.dumps(initializers.serialize(initializer))))
    assert type(restored) is type(initializer)
    np.testing.assert_array_equal(restored((4, 6)), initializer((4, 6)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.RandomNormal(stddev=-1.0), ValueError, "RandomNormal: stddev must be at least 0"),
        (lambda: initializers.RandomUniform(1.0, 0.0), ValueError, "maxval must be at least 1.0"),
        (lambda: initializers.VarianceScaling(0.0), ValueError, "scale must be greater than 0"),
        (lambda: initializers.VarianceScaling(mode="fan"), ValueError, "mode must be one of"),
        (lambda: initializers.VarianceScaling(distribution="unifrom"), ValueError, "Did you mean 'uniform'"),
        (lambda: initializers.GlorotUniform(seed=-1), ValueError, "GlorotUniform: seed must be at least 0"),
        (lambda: initializers.GlorotUniform(seed=0.5), TypeError, "seed must be an integer"),
        (lambda: initializers.Constant("one"), TypeError, "value must be a number"),
        (lambda: initializers.Orthogonal()((3,)), ValueError, "the shape must have at least 2 axes"),
        (lambda: initializers.get("he_norml"), ValueError, "Unknown initializer: 'he_norml'.*Did you mean 'he_normal'"),
        (lambda: initializers.Initializer()((2, 2)), NotImplementedError, "must define __call__"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", sorted(initializers.INITIALIZERS))
def test_the_spelling_in_lower_case_is_the_same_class(name):
    assert getattr(initializers, name) is initializers.INITIALIZERS[name]
