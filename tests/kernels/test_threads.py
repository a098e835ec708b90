"""What the kernels' one parallel loop must not lose."""

import numpy as np
import pytest

from cnnlite import kernels, layers
from cnnlite.engine.jit import kernel
from cnnlite.kernels.threads import run
from tests.kernels.drawn import compiled_kernels_needed, two_threads_needed

pytestmark = compiled_kernels_needed
SHAPES = [((1, 8, 8, 3), (3, 3, 3, 4)), ((40, 28, 28, 3), (3, 3, 3, 32)), ((40, 14, 14, 16), (3, 3, 16, 32))]


@kernel
def _fails_at_three(x, unit):
    if unit == 3:
        raise ValueError("on purpose")
    x[unit] = 1


@two_threads_needed
@pytest.mark.parametrize("alone", [True, False])
def test_an_error_in_a_task_is_raised_in_whichever_thread_it_comes_up(alone):
    x = np.zeros(8)
    with pytest.raises((ValueError, RuntimeError), match=r"on purpose|failed in another thread"):
        run(_fails_at_three, 8, (x,), alone)
    x[:] = 0
    run(_fails_at_three, 3, (x,), alone)
    assert x.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    memory = bytearray(array.nbytes + 1)
    result = np.frombuffer(memory, array.dtype, array.size, 1).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


@pytest.mark.parametrize("kind", [read_only, unaligned])
@pytest.mark.parametrize(("x_shape", "kernel_shape"), SHAPES)
def test_read_only_and_unaligned_arrays_are_taken_like_others(kind, x_shape, kernel_shape):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=x_shape).astype("f4"), rng.normal(size=kernel_shape).astype("f4")
    y = kernels.conv2d(x, weights)
    for mine, expected in [
        (kernels.conv2d(kind(x), weights), y),
        (kernels.conv2d(x, kind(weights)), y),
        (kernels.conv2d_input_gradient(kind(y), weights, x.shape), kernels.conv2d_input_gradient(y, weights, x.shape)),
        (kernels.conv2d_kernel_gradient(kind(x), kind(y), weights.shape),
         kernels.conv2d_kernel_gradient(x, y, weights.shape)),
    ]:
        np.testing.assert_array_equal(mine, expected)
    layer = layers.Conv2D(kernel_shape[3], 3)
    np.testing.assert_array_equal(layer(kind(x)), layer(x))
