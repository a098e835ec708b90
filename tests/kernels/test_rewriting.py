"""A derivative that is taken before the way back through a pooling: when, and with what bits."""

import functools

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
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
    """Return the names of the stages and the sizes of what they write, a sample's."""
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
