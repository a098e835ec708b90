"""Packed weights always match the current weights, however those were changed."""

import gc
import threading
import weakref

import numpy as np
import pytest

from cnnlite import kernels, layers, reference
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

RNG = np.random.default_rng
# direct, with groups, Winograd's method
SHAPES = [((3, 3, 3, 7), 1), ((3, 2, 2, 10), 2), ((3, 3, 17, 19), 1)]


def fresh(x, kernel, groups):
    """Return the convolution with a new copy of the kernel, for which nothing is packed yet."""
    return kernels.conv2d(x, kernel.copy(), groups=groups)


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_every_change_in_place_is_seen(shape, groups):
    rng = RNG(0)
    x, kernel = rng.normal(size=(2, 11, 12, shape[2] * groups)).astype("f4"), rng.normal(size=shape).astype("f4")
    dy = rng.normal(size=kernels.conv2d(x, kernel, groups=groups).shape).astype("f4")
    for value in (0.5, np.nan, np.nan, 0.5, np.inf, 1e30, -1.0, -0.0, 0.0, np.nextafter(np.float32(1), 2)):
        for place in (0, kernel.size // 2, kernel.size - 1):
            kernel.flat[place] = value
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(kernels.conv2d(x, kernel, groups=groups), fresh(x, kernel, groups))
                np.testing.assert_array_equal(
                    kernels.conv2d_input_gradient(dy, kernel, x.shape, groups=groups),
                    kernels.conv2d_input_gradient(dy, kernel.copy(), x.shape, groups=groups))


def test_one_array_as_weights_of_several_kernels():
    rng = RNG(0)
    weights = rng.normal(size=(6, 6)).astype("f4")
    kernel = rng.normal(size=(3, 3, 4, 4)).astype("f4")
    x = rng.normal(size=(2, 9, 9, 4)).astype("f4")
    for _ in range(2):
        np.testing.assert_allclose(kernels.matmul(weights, weights), weights @ weights, atol=1e-5)
        np.testing.assert_allclose(kernels.matmul(weights, weights, transpose_b=True), weights @ weights.T, atol=1e-5)
        np.testing.assert_allclose(kernels.matmul(weights, weights, transpose_a=True), weights.T @ weights, atol=1e-5)
        np.testing.assert_allclose(kernels.conv2d(x, kernel), reference.conv2d(x, kernel), atol=1e-4)
        # The same kernel array, now used with groups.
        np.testing.assert_allclose(kernels.conv2d(np.concatenate([x, x], 3), kernel, groups=2),
                                   reference.conv2d(np.concatenate([x, x], 3), kernel, groups=2), atol=1e-4)
        weights += 1
        kernel += 1


def test_an_array_in_the_place_of_one_that_is_gone_is_not_taken_for_it():
    rng = RNG(0)
    x = rng.normal(size=(2, 7)).astype("f4")
    for _ in range(200):
        weights = rng.normal(size=(7, 3)).astype("f4")  # often at the address of the previous array
        np.testing.assert_allclose(kernels.matmul(x, weights), x @ weights, atol=1e-5)
        del weights


def test_nothing_is_kept_of_arrays_that_are_gone():
    x, kernel = np.ones((2, 1, 1, 7), "f4"), np.ones((1, 1, 7, 3), "f4")
    y = kernels.conv2d(x, kernel)
    gone = [weakref.ref(array) for array in (x, kernel, y)]
    del x, kernel, y
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


def test_threads_that_use_one_kernel_for_the_first_time_at_once_all_get_it_whole():
    rng = RNG(0)
    x = rng.normal(size=(2, 11, 12, 17)).astype("f4")
    for seed in range(10):
        kernel = RNG(seed).normal(size=(3, 3, 17, 19)).astype("f4")
        layer = layers.Conv2D(19, 3)
        layer.build((None, 11, 12, 17))
        layer.params["kernel"] = kernel
        expected, results = fresh(x, kernel, 1).tobytes(), []
        for compute in (layer, lambda x, kernel=kernel: kernels.conv2d(x, kernel)):
            workers = [threading.Thread(target=lambda compute=compute, results=results: results.append(
                compute(x).tobytes())) for _ in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert results == [expected] * 8
