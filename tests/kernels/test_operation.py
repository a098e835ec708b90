"""What holds for every kernel that is made of stages, whatever it computes."""

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import Plan
from cnnlite.layers.weights import ArrayDict
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

WINDOW = (2, 2), (2, 2), ((0, 0), (0, 0))


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    assert not raw.flags.aligned
    return raw


def test_arrays_that_are_not_aligned_are_read_and_written():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    expected = kernels.average_pool(x, *WINDOW)
    out = misaligned(np.zeros_like(expected))
    assert kernels.average_pool(misaligned(x), *WINDOW, out=out) is out
    np.testing.assert_array_equal(out, expected)
    results = misaligned(np.zeros_like(expected)), np.zeros(expected.shape, np.uint8)
    kernels.max_pool(x, *WINDOW, out=results)
    np.testing.assert_array_equal(results[0], kernels.max_pool(x, *WINDOW)[0])


def test_a_read_only_array_may_be_read_but_not_written():
    x = np.ones((1, 4, 4, 3), "float32")
    x.flags.writeable = False
    out = kernels.average_pool(x, *WINDOW)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        kernels.average_pool(x, *WINDOW, out=out)


def test_a_kernel_of_weights_alone_belongs_to_the_graph_that_is_being_made():
    weights = ArrayDict()
    weights.bind("variance", np.ones(3, "float32"))
    graph = Graph(np.float32, [weights])
    with graph.being_made():
        plan = Plan(graph, [kernels.inverse_deviation(weights["variance"], 3.0)])
    for variance in (1, 6):
        weights["variance"] = np.full(3, variance)
        np.testing.assert_array_equal(plan.run(1, {})[0], np.full(3, 1 / np.sqrt(variance + 3.0), "float32"))
