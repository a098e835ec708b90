"""Rewriting steps of a graph: when it happens, and that the bits stay the same."""

import functools

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import Plan
from cnnlite.kernels.pooling import pooled_shape
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits

pytestmark = compiled_kernels_needed

NAMES = ["relu", "leaky_relu", "sigmoid", "tanh", "softplus"]
NO_PADS = ((0, 0), (0, 0))


def there_and_back(name, window, strides, pads, x, dp):
    y = getattr(kernels, name)(x)
    _, argmax = kernels.max_pool(y, window, strides, pads)
    dy = kernels.max_pool_backward(dp, argmax, y.shape, window, strides, pads)
    return getattr(kernels, f"{name}_backward")(dy, y)


def graph_of(geometry, name="relu"):
    """Return the name of every stage and the size of its output per sample."""
    graph = Graph(np.float32)
    there_and_back(name, *geometry, graph.given((N, 8, 6, 3)), graph.given(pooled_shape((N, 8, 6, 3), *geometry)))
    return [(step.stage.name, step.outputs[0].sample_size) for step in graph.steps]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("geometry", [((2, 2), (2, 2), NO_PADS), ((2, 2), (3, 3), NO_PADS),
                                      ((3, 2), (3, 2), ((1, 0), (0, 0))), ((1, 257), (1, 257), ((0, 0), (251, 251)))])
def test_windows_that_do_not_overlap_give_the_same_numbers_of_fewer(name, geometry):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 8, 6, 3)).astype(np.float32)
    y = getattr(kernels, name)(x)
    p, argmax = kernels.max_pool(y, *geometry)
    dp = rng.normal(size=p.shape).astype(np.float32)
    dy = kernels.max_pool_backward(dp, argmax, y.shape, *geometry)
    (dx,) = assert_same_bits(functools.partial(there_and_back, name, *geometry), {"x": x, "dp": dp}, "x dp")
    np.testing.assert_array_equal(dx, getattr(kernels, f"{name}_backward")(dy, y))
    steps = graph_of(geometry, name)
    derivatives = [size for stage, size in steps if stage == f"{name}_backward"]
    assert derivatives == [dp[0].size]
    last, size = steps[-1]
    assert last.startswith("max_pool_backward")
    assert size == x[0].size


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_the_derivative_is_that_of_the_rectified_maxima_so_that_these_alone_are_kept(name):
    graph = Graph(np.float32)
    geometry = (2, 2), (2, 2), NO_PADS
    there_and_back(name, *geometry, graph.given((N, 8, 6, 3)), graph.given(pooled_shape((N, 8, 6, 3), *geometry)))
    steps = {step.stage.name: step.arguments for step in graph.steps if step.outputs[0].sample_size == 4 * 3 * 3}
    assert steps[name]["x"].number == steps["max_pool"]["y"].number
    assert steps[f"{name}_backward"]["y"].number == steps[name]["y"].number


@pytest.mark.parametrize("name", NAMES)
def test_a_rectifier_that_stands_behind_the_pooling_has_no_part_in_what_stands_before_it(name):
    geometry = (2, 2), (2, 2), NO_PADS

    def above_and_below(x, dr):
        y = getattr(kernels, name)(x)
        p, argmax = kernels.max_pool(y, *geometry)
        dp = kernels.leaky_relu_backward(dr, kernels.leaky_relu(p))
        return getattr(kernels, f"{name}_backward")(kernels.max_pool_backward(dp, argmax, y.shape, *geometry), y)

    x, dr = numbers(3, 8, 6, 3), numbers(3, 4, 3, 3)
    (dx,) = assert_same_bits(above_and_below, {"x": x, "dr": dr}, "x dr")
    np.testing.assert_array_equal(dx, above_and_below(x, dr))


def test_overlapping_windows_are_added_up_first():
    steps = graph_of(((3, 3), (2, 2), ((1, 1), (1, 1))))
    assert steps[-1] == ("relu_backward", 8 * 6 * 3)


def test_another_pooling_or_another_y_changes_nothing():
    geometry = (2, 2), (2, 2), NO_PADS
    graph = Graph(np.float32)
    x, dp = graph.given((N, 8, 6, 3)), graph.given((N, 4, 3, 3))
    y, other = kernels.relu(x), kernels.tanh(x)
    _, argmax = kernels.max_pool(other, *geometry)
    given = graph.given((N, 4, 3, 3), np.uint8)
    for where in (argmax, given):
        kernels.relu_backward(kernels.max_pool_backward(dp, where, y.shape, *geometry), y)
        assert graph.steps[-1].stage.name == "relu_backward"


def test_the_result_goes_where_it_shall():
    geometry = (2, 2), (2, 2), NO_PADS
    graph = Graph(np.float32)
    y, dp, out = graph.given((N, 8, 6, 3)), graph.given((N, 4, 3, 3)), graph.given((N, 8, 6, 3))
    _, argmax = kernels.max_pool(y, *geometry)
    dy = kernels.max_pool_backward(dp, argmax, y.shape, *geometry)
    assert kernels.relu_backward(dy, y, out) is out
    assert graph.buffers[out.number].made_by[0].stage.name == "max_pool_backward"


def normalized(x, mean, inv_std):
    return kernels.batchnorm_normalize(x, mean, inv_std, None, None)


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def normalization(shape=(N, 8, 6, 3)):
    """Return a graph and a normalised buffer in it."""
    graph = Graph(np.float32)
    return graph, normalized(graph.given(shape), graph.given((3,)), graph.given((3,)))


@pytest.mark.parametrize("shape", [(5, 3), (4, 8, 6, 3)])
def test_relu_of_a_normalisation_is_one_stage_with_the_same_bits(shape):
    x, mean, inv_std = numbers(*shape), numbers(3), np.abs(numbers(3))
    x.flat[:4] = np.nan, np.inf, -np.inf, mean[0]
    (y,) = assert_same_bits(lambda x, mean, inv_std: kernels.relu(normalized(x, mean, inv_std)),
                            {"x": x, "mean": mean, "inv_std": inv_std}, "x")
    np.testing.assert_array_equal(y, kernels.relu(normalized(x, mean, inv_std)))
    graph, z = normalization((N, *shape[1:]))
    y = kernels.relu(z)
    steps = Plan(graph, [y]).steps
    assert [step.stage.name for step in steps] == ["write_coefficients", "normalize"]
    steps = Plan(graph, [y, z]).steps  # both are results
    assert [step.stage.name for step in steps] == ["write_coefficients", "normalize", "normalize"]


def test_relu_of_what_was_rectified_or_overwritten_since_is_a_stage_of_its_own():
    graph, z = normalization()
    kernels.relu(kernels.relu(z))
    assert graph.steps[-1].stage.name == "relu"
    graph, z = normalization()
    x = graph.steps[-1].arguments["x"]
    kernels.tanh(z, out=x)
    kernels.relu(z)
    assert graph.steps[-1].stage.name == "relu"
    graph = Graph(np.float32)
    x = graph.given((N, 4, 3))
    kernels.relu(kernels.batchnorm_normalize(x, graph.given((3,)), graph.given((3,)), None, None, out=x))
    assert graph.steps[-1].stage.name == "relu"


def test_relu_of_a_normalisation_goes_where_it_shall():
    graph, z = normalization()
    out = graph.given((N, 8, 6, 3))
    assert kernels.relu(z, out) is out
    assert graph.buffers[out.number].made_by[0].stage.name == "normalize"
