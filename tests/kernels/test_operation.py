"""Properties of every kernel made of stages, whatever it computes."""

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import Plan
from cnnlite.kernels import operation
from cnnlite.layers.weights import ArrayDict
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

WINDOW = (2, 2), (2, 2), ((0, 0), (0, 0))


def misaligned(array):
    raw = np.zeros(array.nbytes + 2, np.uint8)
    odd = 1 - raw.ctypes.data % 2
    result = raw[odd:odd + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


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


def backward_calls(n):
    """Return calls, for n samples, of the kernels that take the shape of x as an argument."""
    ones, dy = np.ones, np.ones((n, 2, 2, 3), "float32")
    return [
        lambda x_shape: kernels.average_pool_backward(dy, x_shape, *WINDOW),
        lambda x_shape: kernels.max_pool_backward(dy, np.zeros(dy.shape, np.uint8), x_shape, *WINDOW),
        lambda x_shape: kernels.conv2d_input_gradient(dy, ones((3, 3, 3, 3), "float32"), x_shape),
        lambda x_shape: kernels.depthwise_conv2d_input_gradient(dy, ones((3, 3, 3, 1), "float32"), x_shape),
    ]


def test_one_plan_serves_all_numbers_of_samples():
    counts = set()
    for n in (2, 1, 5, 0):
        for call in backward_calls(n):
            assert call((n, 4, 4, 3)).shape == (n, 4, 4, 3)
        counts.add(len(operation._plans))
    assert len(counts) == 1


@pytest.mark.parametrize("x_shape", [(3, 4, 4, 3), (2, 4, 3), (4, 4, 3), (2, 4, 4, 2)])
def test_the_shape_of_x_must_fit_also_where_another_one_did(x_shape):
    for call in backward_calls(2):
        call((2, 4, 4, 3))
        with pytest.raises((ValueError, IndexError)):
            call(x_shape)


def test_results_are_named_in_their_places_whether_given_or_new():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    y, argmax = kernels.max_pool(x, *WINDOW)
    given = np.zeros_like(y), np.zeros_like(argmax)
    results = kernels.max_pool(x, *WINDOW, out=given)
    assert type(results) is tuple
    assert [result is array for result, array in zip(results, given)] == [True, True]
    np.testing.assert_array_equal(given[0], y)
    np.testing.assert_array_equal(given[1], argmax)
    columns = np.zeros((18, 12), "float32")
    assert kernels.im2col(x, (2, 2), out=columns) is columns
    np.testing.assert_array_equal(columns, kernels.im2col(x, (2, 2)))


def test_a_kernel_of_weights_alone_belongs_to_the_graph_that_is_being_made():
    weights = ArrayDict()
    weights.bind("variance", np.ones(3, "float32"))
    graph = Graph(np.float32, [weights])
    with graph.recording():
        plan = Plan(graph, [kernels.inverse_deviation(weights["variance"], 3.0)])
    for variance in (1, 6):
        weights["variance"] = np.full(3, variance)
        np.testing.assert_array_equal(plan.run(1, {})[0], np.full(3, 1 / np.sqrt(variance + 3.0), "float32"))


def test_zeros_of_different_signs_are_different_arguments():
    x = np.full((1, 3), -1.0, "float32")
    signs = [np.signbit(kernels.leaky_relu(x, slope)).all() for slope in (0.0, -0.0, 0.0)]
    assert signs == [np.signbit(np.float32(-1.0) * slope) for slope in (0.0, -0.0, 0.0)] == [True, False, True]


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match=r"relu: x must be a NumPy array. Received: a list. Use np.asarray\(x"):
        kernels.relu([1.0, 2.0])
