"""Sums of outer products over many rows, of matrices and of the windows of images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference
from cnnlite.kernels.convolution import conv2d_gradients
from cnnlite.kernels.geometry import Geometry, fields
from cnnlite.kernels.operation import operation
from cnnlite.kernels.product.outer_products import BLOCKS, LEAF, PIECE, add_outer_products, block_size
from tests.kernels.drawn import (
    EPSILON,
    assert_close,
    compiled_kernels_needed,
    dtypes,
    geometries,
    guarded,
    seeds,
    spoilt,
)
from tests.kernels.stages import assert_same_bits

pytestmark = compiled_kernels_needed

BLOCK_ROWS, BLOCK_COLUMNS = BLOCKS[-1]

numbers = st.sampled_from([1, 3, 16, 17, 33, BLOCK_ROWS + 1, 70])


@operation(samples="x dy")
def kernel_gradient(x, dy, dkernel, geometry):
    sizes = fields(x.shape, dkernel.shape, dy.shape[1:3], geometry)
    add_outer_products(x, dy.reshape(-1, dy.shape[3]), dkernel.reshape(-1, dkernel.shape[3]), windows=sizes)
    return dkernel


@settings(max_examples=150, deadline=None)
@given(geometries(), st.sampled_from([0, 1, 2, 19]), numbers, st.sampled_from([1, 16, 17, 33, BLOCK_COLUMNS + 3]),
       st.booleans(), dtypes, seeds)
@np.errstate(all="ignore")
def test_windows_give_the_gradient_of_a_kernel(geometry, n, c, f, spoils, dtype, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(size=shape).astype(dtype) for shape in ((n, *geometry.size, c), (n, *geometry.output, f)))
    if spoils:
        x, dy = spoilt(x, rng), spoilt(dy, rng)
    x, dy = guarded(x)[0], guarded(dy)[0]
    dkernel, around = guarded(np.full((*geometry.window, c, f), 7, dtype))
    before = around.copy()
    kernel_gradient(x, dy, dkernel, Geometry(*geometry.where))
    wide = x.astype(np.float64), dy.astype(np.float64)
    expected = reference.conv2d_kernel_gradient(*wide, dkernel.shape, *geometry.where)
    assert_close(dkernel, expected, EPSILON[dtype])
    dkernel[...] = 7
    np.testing.assert_array_equal(around, before)  # nothing is written around it


@pytest.mark.parametrize("rows", [1, PIECE, PIECE + 1, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF + 1, 5 * LEAF, 7 * LEAF + 3])
@pytest.mark.parametrize("n", [10, BLOCK_COLUMNS + 1])
def test_any_number_of_leaves_is_added_up_once(rows, n):
    rng = np.random.default_rng(rows)
    a, b = (rng.integers(-9, 10, (rows, columns)).astype(np.float32) for columns in (BLOCK_ROWS + 7, n))
    np.testing.assert_array_equal(kernels.matmul(a, b, transpose_a=True), a.T.astype(int) @ b.astype(int))


def test_blocks_are_as_large_as_leaves_enough_of_them():
    assert block_size(2048, 2048) == BLOCKS[0]
    assert block_size(1024, 512) == BLOCKS[1]
    assert block_size(784, 512) == block_size(10, 3) == BLOCKS[2]


@pytest.mark.parametrize("shape", [(1024 + 5, 1024 + 17), (1024 + 5, 512 + 3)])
def test_large_blocks_cover_a_result_of_any_size_once(shape):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, (LEAF + 7, columns)).astype(np.float32) for columns in shape)
    assert block_size(*shape) in BLOCKS[:2]
    np.testing.assert_array_equal(kernels.matmul(a, b, transpose_a=True), a.T.astype(int) @ b.astype(int))


def test_many_rows_lose_no_digits():
    # In float32, adding 0.1 a million times one by one gives 100958.
    ones = np.ones((1_000_000, 1), np.float32)
    total = kernels.matmul(ones, 0.1 * ones, transpose_a=True)
    assert total[0, 0] == pytest.approx(100_000, rel=1e-5)


def test_the_bits_depend_on_no_schedule():
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=shape).astype(np.float32) for shape in ((19, 6, 5, 33), (19, 6, 5, 130)))

    def gradient(x, dy):
        sizes = fields(x.shape, (3, 3, 33, 130), (6, 5), Geometry(pads=((1, 1), (1, 1))))
        out = x.graph.work((3 * 3 * 33, 130), x.dtype)
        add_outer_products(x, dy.reshape(-1, 130), out, windows=sizes)
        return out

    assert_same_bits(gradient, {"x": x, "dy": dy}, "x dy")


@pytest.mark.parametrize(("size", "strides", "image", "channels", "filters", "how_often"), [
    (3, 1, 8, 16, 24, 0), (3, 2, 8, 128, 72, 1), (3, 1, 8, 128, 72, 0), (3, 1, 8, 256, 460, 0), (3, 1, 24, 256, 460, 1),
    (1, 1, 8, 256, 460, 0), (5, 2, 8, 3, 900, 0),
])
def test_large_kernels_go_this_way(monkeypatch, size, strides, image, channels, filters, how_often):
    way = []
    monkeypatch.setattr(conv2d_gradients, "add_outer_products",
                        lambda *args, **more: way.append(1) or add_outer_products(*args, **more))
    rng = np.random.default_rng(0)
    where = {"strides": (strides,) * 2, "pads": ((size // 2,) * 2,) * 2}
    x = rng.normal(size=(2, image, image + 1, channels)).astype(np.float32)
    kernel = rng.normal(size=(size, size, channels, filters)).astype(np.float32)
    y = kernels.conv2d(x, kernel, **where)
    dy = rng.normal(size=y.shape).astype(np.float32)
    dkernel, dx = np.empty_like(kernel), np.empty_like(x)
    kernels.conv2d_backward(x, dy, kernel, **where, dkernel=dkernel, dx=dx)
    assert_close(y, reference.conv2d(x, kernel, **where), 1e-5)
    assert_close(dkernel, reference.conv2d_kernel_gradient(x, dy, kernel.shape, **where), 1e-5)
    assert_close(dx, reference.conv2d_input_gradient(dy, kernel, x.shape, **where), 1e-5)
    assert len(way) == how_often  # 1 x 1 convolutions are a matmul instead
    alone = kernels.conv2d_kernel_gradient(x, dy, kernel.shape, **where)
    assert alone.tobytes() == dkernel.tobytes()
