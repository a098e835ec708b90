"""Arrays that compiled code can't use directly; how units are distributed is tested in tests/engine."""

import numpy as np
import pytest

from cnnlite import kernels, layers
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed
SHAPES = [((1, 8, 8, 3), (3, 3, 3, 4)), ((40, 28, 28, 3), (3, 3, 3, 32)), ((40, 14, 14, 16), (3, 3, 16, 32))]


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
