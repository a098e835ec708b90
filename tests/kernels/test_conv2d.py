"""The convolution and its two gradients, against the definition and against im2col."""

from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels
from tests.kernels.drawn import (
    EPSILON,
    Geometry,
    assert_as_defined,
    assert_close,
    assert_same_bits_with_one_thread_and_two,
    batches,
    dtypes,
    geometries,
    seeds,
    spoilt,
    two_threads_needed,
)

# (channels, filters) per group: around the widths of one and two vectors, and anything up to a bit beyond two
channels = st.sampled_from([(1, 1), (1, 16), (2, 15), (3, 17), (3, 8), (4, 31), (1, 32), (2, 33), (3, 40)])
channels |= st.tuples(st.integers(1, 35), st.integers(1, 35))


@st.composite
def squares_of_three(draw):
    """Draw a 3x3 window on images of up to 19 pixels: the most common case, for which there are faster paths."""
    size = draw(st.tuples(st.integers(3, 19), st.integers(3, 19)))
    stride = draw(st.sampled_from([1, 1, 2]))
    pads = draw(st.sampled_from([((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (0, 1)), ((1, 0), (2, 1))]))
    return Geometry(size, (3, 3), (stride, stride), pads, (1, 1))


many_channels = st.tuples(st.integers(16, 35), st.integers(16, 35))


def arrays(geometry, n, channels, groups, dtype, seed):
    """Return x, kernel, bias and dy."""
    rng = np.random.default_rng(seed)
    c, f = channels
    shapes = (n, *geometry.size, c * groups), (*geometry.window, c, f * groups), (f * groups,)
    shapes += ((n, *geometry.output, f * groups),)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(geometries(), batches, channels, st.sampled_from([1, 1, 2, 3]), st.booleans(), dtypes, seeds)
def test_all_three_equal_their_definitions(geometry, n, channels, groups, has_bias, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, groups, dtype, seed)
    assert_as_defined("conv2d", [x, kernel, bias if has_bias else None], *geometry.where, groups)
    assert_as_defined("conv2d_input_gradient", [dy, kernel], x.shape, *geometry.where, groups)
    assert_as_defined("conv2d_kernel_gradient", [x, dy], kernel.shape, *geometry.where, groups)


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(1, 3), channels, st.sampled_from([1, 2]), dtypes, seeds)
def test_nan_and_infinity_land_where_the_definition_has_them(geometry, n, channels, groups, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, groups, dtype, seed)
    rng = np.random.default_rng(seed)
    assert_as_defined("conv2d", [spoilt(x, rng), kernel, bias], *geometry.where, groups)
    assert_as_defined("conv2d_input_gradient", [spoilt(dy, rng), kernel], x.shape, *geometry.where, groups)
    assert_as_defined("conv2d_kernel_gradient", [spoilt(x, rng), dy], kernel.shape, *geometry.where, groups)
    assert_as_defined("conv2d_kernel_gradient", [x, spoilt(dy, rng)], kernel.shape, *geometry.where, groups)


@settings(max_examples=40, deadline=None)
@given(squares_of_three(), st.sampled_from([0, 1, 3]), many_channels, dtypes, seeds)
def test_3x3_with_many_channels_equals_its_definitions(geometry, n, channels, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, 1, dtype, seed)
    assert_as_defined("conv2d", [x, kernel, bias], *geometry.where, 1)
    assert_as_defined("conv2d_input_gradient", [dy, kernel], x.shape, *geometry.where, 1)
    assert_as_defined("conv2d_kernel_gradient", [x, dy], kernel.shape, *geometry.where, 1)


@settings(max_examples=20, deadline=None)
@given(squares_of_three(), many_channels, seeds)
def test_nan_and_infinity_reach_no_further_with_3x3_and_many_channels(geometry, channels, seed):
    x, kernel, bias, dy = arrays(geometry, 2, channels, 1, "float32", seed)
    rng = np.random.default_rng(seed)
    assert_as_defined("conv2d", [spoilt(x, rng), kernel, bias], *geometry.where, 1)
    assert_as_defined("conv2d_input_gradient", [spoilt(dy, rng), kernel], x.shape, *geometry.where, 1)
    assert_as_defined("conv2d_kernel_gradient", [spoilt(x, rng), dy], kernel.shape, *geometry.where, 1)


def split(array, groups):
    return [np.ascontiguousarray(part) for part in np.split(array, groups, axis=-1)]


@settings(max_examples=40, deadline=None)
@given(geometries() | squares_of_three(), st.sampled_from([0, 1, 3]), channels, st.sampled_from([1, 1, 2, 3]), dtypes,
       seeds)
def test_the_three_are_products_with_the_im2col_matrix(geometry, n, channels, groups, dtype, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, groups, dtype, seed)
    y, dx, dkernel = [], [], []
    for x_part, kernel_part, dy_part in zip(*(split(array, groups) for array in (x, kernel, dy))):
        rows = kernels.im2col(x_part, geometry.window, *geometry.where)
        matrix, gradient = (part.reshape(-1, channels[1]) for part in (kernel_part, dy_part))
        y.append((rows @ matrix).reshape(dy_part.shape))
        dx.append(kernels.col2im(gradient @ matrix.T, x_part.shape, geometry.window, *geometry.where))
        dkernel.append((rows.T @ gradient).reshape(kernel_part.shape))
    y, dx, dkernel = (np.concatenate(parts, axis=-1) for parts in (y, dx, dkernel))
    epsilon, where = EPSILON[dtype], (*geometry.where, groups)
    assert_close(kernels.conv2d(x, kernel, bias, *where), y + bias, epsilon)
    assert_close(kernels.conv2d_input_gradient(dy, kernel, x.shape, *where), dx, epsilon)
    assert_close(kernels.conv2d_kernel_gradient(x, dy, kernel.shape, *where), dkernel, epsilon)


@settings(max_examples=20, deadline=None)
@given(geometries(), channels, seeds)
def test_two_groups_are_two_convolutions(geometry, channels, seed):
    x, kernel, bias, dy = arrays(geometry, 2, channels, 2, "float32", seed)
    halves = partial(split, groups=2)
    parts = list(zip(halves(x), halves(kernel), halves(bias), halves(dy)))
    where = geometry.where
    y = [kernels.conv2d(x, kernel, bias, *where) for x, kernel, bias, _ in parts]
    dx = [kernels.conv2d_input_gradient(dy, kernel, x.shape, *where) for x, kernel, _, dy in parts]
    dkernel = [kernels.conv2d_kernel_gradient(x, dy, kernel.shape, *where) for x, kernel, _, dy in parts]
    for together, apart in [
        (kernels.conv2d(x, kernel, bias, *where, 2), y),
        (kernels.conv2d_input_gradient(dy, kernel, x.shape, *where, 2), dx),
        (kernels.conv2d_kernel_gradient(x, dy, kernel.shape, *where, 2), dkernel),
    ]:
        assert_close(together, np.concatenate(apart, axis=-1), EPSILON["float32"])


@two_threads_needed
@settings(max_examples=15, deadline=None)
@given(geometries(), batches, channels, st.sampled_from([1, 2]), seeds)
def test_one_thread_and_two_give_the_same_bits(geometry, n, channels, groups, seed):
    x, kernel, bias, dy = arrays(geometry, n, channels, groups, "float32", seed)

    def everything():
        return [
            kernels.conv2d(x, kernel, bias, *geometry.where, groups),
            kernels.conv2d_input_gradient(dy, kernel, x.shape, *geometry.where, groups),
            kernels.conv2d_kernel_gradient(x, dy, kernel.shape, *geometry.where, groups),
            kernels.im2col(x, geometry.window, *geometry.where),
            kernels.column_sums(dy.reshape(-1, dy.shape[-1])),
        ]

    assert_same_bits_with_one_thread_and_two(everything)


def test_a_large_image_and_a_large_batch_equal_the_definition():
    # More output rows and more images than one unit of work has.
    rng = np.random.default_rng(0)
    for shape in ((1, 40, 37, 3), (35, 6, 5, 3)):
        x, kernel = rng.normal(size=shape).astype("float32"), rng.normal(size=(3, 3, 3, 18)).astype("float32")
        y = kernels.conv2d(x, kernel)
        assert_as_defined("conv2d", [x, kernel, None])
        assert_as_defined("conv2d_kernel_gradient", [x, y], kernel.shape)
        assert_as_defined("conv2d_input_gradient", [y, kernel], x.shape)


def test_a_window_that_does_not_fit_gives_an_empty_output():
    x, kernel = np.ones((2, 3, 6, 1), np.float32), np.ones((4, 2, 1, 5), np.float32)
    assert kernels.conv2d(x, kernel).shape == (2, 0, 5, 5)


def test_where_the_window_goes_may_be_said_in_lists():
    x, kernel = np.ones((2, 3, 6, 1), np.float32), np.ones((2, 2, 1, 5), np.float32)
    y = kernels.conv2d(x, kernel, None, [1, 2], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(y, kernels.conv2d(x, kernel, None, (1, 2), ((1, 0), (0, 0))))


def test_an_image_of_the_batch_gives_the_same_bits_alone():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(20, 9, 7, 3)).astype("float32"), rng.normal(size=(3, 3, 3, 10)).astype("float32")
    together = kernels.conv2d(x, kernel, pads=((1, 1), (1, 1)))
    for i in (0, 7, 19):
        alone = kernels.conv2d(x[i : i + 1], kernel, pads=((1, 1), (1, 1)))
        assert alone.tobytes() == together[i].tobytes()
