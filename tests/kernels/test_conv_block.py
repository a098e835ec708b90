"""A convolution with what follows it, against the definitions of its parts one after the other."""

import hypothesis.strategies as st
import numpy as np
import pytest
from cnnlite.kernels.conv_block import (
    conv_block,
    conv_block_gradient_sums,
    follow,
)
from cnnlite.kernels.conv_tasks import AVERAGE_POOL, MAX_POOL, NO_POOL, Following
from hypothesis import given, settings

from cnnlite import reference
from cnnlite.kernels.conv_images import combine_gradient_sums, combine_statistics
from cnnlite.kernels.geometry import Geometry, window_of
from cnnlite.kernels.pooling import argmax_dtype, pooled_shape
from tests.kernels.drawn import (
    EPSILON,
    MARGIN,
    assert_close,
    assert_same_bits_with_one_thread_and_two,
    compiled_kernels_needed,
    dtypes,
    geometries,
    guarded,
    seeds,
    two_threads_needed,
)

pytestmark = compiled_kernels_needed

batches = st.sampled_from([0, 1, 2, 5, 16, 17, 33])
# (channels, filters) a group: from 16 of both on, Winograd's method may do it
channels = st.sampled_from([(1, 1), (1, 17), (3, 8), (2, 33), (16, 16), (17, 19), (20, 40)])


class Problem:
    """All arrays of a block, in one dtype, and what follows the convolution."""

    def __init__(self, geometry, n, channels, groups, dtype, seed, pool, first_relu, relu):
        rng = np.random.default_rng(seed)
        c, f = channels
        self.dtype = np.dtype(dtype)
        self.geometry = Geometry(*geometry.where, groups)
        shapes = (n, *geometry.size, c * groups), (*geometry.window, c, f * groups), (f * groups,), (3, f * groups)
        self.x, self.kernel, self.bias, self.affine = (rng.normal(size=shape).astype(dtype) for shape in shapes)
        self.z_shape = (n, *geometry.output, f * groups)
        kind, *self.window = pool
        (kh, kw), _, (rows, columns) = self.window
        oh, ow = geometry.output
        if kh > oh + sum(rows) or kw > ow + sum(columns):
            kind = NO_POOL  # the window doesn't fit
        self.following = Following(first_relu, relu, kind)
        self.shape = self.z_shape
        if kind != NO_POOL:
            self.following = self.following._replace(window=window_of(*self.window))
            self.shape = pooled_shape(self.z_shape, *self.window)
        self.dy = rng.normal(size=self.shape).astype(dtype)

    def __repr__(self):
        shapes = f"x {self.x.shape}, kernel {self.kernel.shape}, {self.dtype}"
        return f"{shapes}, {self.geometry}, {self.following}, pooled by {self.window}"

    def output(self):
        """Return (y, argmax), and the long arrays that they are the middle of."""
        argmax = np.full(self.shape if self.following.pool == MAX_POOL else (0, 0, 0, 0), 77,
                         argmax_dtype(self.window[0]))
        y, around = guarded(np.full(self.shape, 7, self.dtype))
        whole = np.full(argmax.size + 2 * MARGIN, 99, argmax.dtype)
        argmax = whole[MARGIN : MARGIN + argmax.size].reshape(argmax.shape)
        return (y, argmax), (around, whole)

    def assert_close(self, mine, expected):
        assert_close(mine, expected, EPSILON[self.dtype.name])


@st.composite
def problems(draw, kinds=(NO_POOL, MAX_POOL, MAX_POOL, AVERAGE_POOL)):
    sizes, strides, pads = [], [], []
    for _ in range(2):
        sizes.append(draw(st.integers(1, 3)))
        strides.append(draw(st.integers(1, 3)))
        pads.append(draw(st.tuples(st.integers(0, sizes[-1] - 1), st.integers(0, sizes[-1] - 1)) | st.just((0, 0))))
    pool = draw(st.sampled_from(kinds)), tuple(sizes), tuple(strides), tuple(pads)
    return Problem(draw(geometries()), draw(batches), draw(channels), draw(st.sampled_from([1, 1, 2])), draw(dtypes),
                   draw(seeds), pool, draw(st.booleans()), draw(st.booleans()))


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


def assert_only_the_middle_was_written(around, whole):
    assert np.isnan(around[:MARGIN]).all()
    assert np.isnan(around[-MARGIN:]).all()
    assert (whole[:MARGIN] == 99).all()
    assert (whole[-MARGIN:] == 99).all()


def convolved(problem, statistics=False):
    z, around = guarded(np.full(problem.z_shape, 7, problem.dtype))
    sums = conv_block(problem.x, problem.kernel, problem.bias, problem.geometry,
                      following=Following(problem.following.first_relu), z=z, statistics=statistics)
    assert np.isnan(around[:MARGIN]).all()
    assert np.isnan(around[-MARGIN:]).all()
    return z, sums


def mapped(z, affine, relu):
    mean, scale, beta = wide(*affine)
    y = (z.astype(np.float64) - mean) * scale + beta
    return reference.relu(y) if relu else y


@settings(max_examples=40, deadline=None)
@given(problems())
def test_z_and_its_statistics_are_those_of_the_convolution(problem):
    z, sums = convolved(problem, statistics=True)
    expected = reference.conv2d(*wide(problem.x, problem.kernel, problem.bias), *problem.geometry)
    problem.assert_close(z, reference.relu(expected) if problem.following.first_relu else expected)
    assert convolved(problem)[0].tobytes() == z.tobytes()
    n, oh, ow, filters = z.shape
    for mine, theirs in zip(combine_statistics(*sums, (n, oh * ow, filters), z.dtype),
                            reference.batchnorm_statistics(z.astype(np.float64))):
        problem.assert_close(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_what_follows_is_a_map_a_relu_and_pooling(problem):
    z, _ = convolved(problem)
    following = problem.following
    (y, argmax), around = problem.output()
    follow(z, problem.affine, following, (y, argmax))
    assert_only_the_middle_was_written(*around)
    expected = mapped(z, problem.affine, following.relu)
    if following.pool == MAX_POOL:
        pooled, _ = reference.max_pool(expected, *problem.window)
        problem.assert_close(y, pooled)
        # Rounding may make another pixel the largest, but then it is hardly less. Before the ReLU it is the largest.
        before = mapped(z, problem.affine, False)
        at_argmax = np.zeros_like(pooled)
        for tap, rows, columns, real in reference._windows(z.shape, *problem.window):
            at_argmax += np.where((argmax == tap) & real, before[:, rows, columns], 0)
        problem.assert_close(at_argmax, reference.max_pool(before, *problem.window)[0])
    elif following.pool == AVERAGE_POOL:
        problem.assert_close(y, reference.average_pool(expected, *problem.window))
    else:
        problem.assert_close(y, expected)


@settings(max_examples=60, deadline=None)
@given(problems(), st.booleans())
def test_at_once_or_with_z_kept_in_between_gives_the_same_bits(problem, has_affine):
    z, _ = convolved(problem)
    affine = problem.affine
    if not has_affine:
        affine = np.stack([0 * affine[0], 1 + 0 * affine[0], 0 * affine[0]])
    (y, argmax), _ = problem.output()
    follow(z, affine, problem.following, (y, argmax))
    (once, where), around = problem.output()
    conv_block(problem.x, problem.kernel, problem.bias, problem.geometry, affine if has_affine else None,
               problem.following, out=(once, where))
    assert_only_the_middle_was_written(*around)
    np.testing.assert_array_equal(once, y)
    np.testing.assert_array_equal(where, argmax)


def unpooled(problem, y, argmax, z_shape):
    """Return dy taken back through the pooling and the last ReLU."""
    dz = problem.dy.astype(np.float64)
    if problem.following.relu:
        dz = reference.relu_backward(dz, y)
    if problem.following.pool == MAX_POOL:
        dz = reference.max_pool_backward(dz, argmax, z_shape, *problem.window)
    return dz


@settings(max_examples=60, deadline=None)
@given(problems(kinds=(NO_POOL, MAX_POOL, MAX_POOL)))
def test_the_sums_that_a_batchnorm_in_training_takes_back(problem):
    z, _ = convolved(problem)
    n, oh, ow, filters = z.shape
    rows, gamma = (n, oh * ow, filters), problem.affine[1]
    mean, variance = (array.astype(z.dtype) for array in reference.batchnorm_statistics(z))
    inv_std = (1 / np.sqrt(variance + 1e-2)).astype(z.dtype)
    out, _ = problem.output()
    follow(z, np.stack([mean, inv_std * gamma, problem.affine[2]]), problem.following, out)
    sums = conv_block_gradient_sums(problem.dy, out, z, mean, problem.following)
    dgamma, dbeta, _ = combine_gradient_sums(*sums, rows, inv_std, gamma)
    dz = unpooled(problem, *out, z.shape)
    expected = reference.batchnorm_backward(dz, *wide(z, mean, inv_std, gamma))
    problem.assert_close(dgamma, expected[1])
    problem.assert_close(dbeta, expected[2])


@two_threads_needed
@settings(max_examples=15, deadline=None)
@given(problems(kinds=(NO_POOL, MAX_POOL)))
def test_one_thread_and_two_give_the_same_bits(problem):
    def everything():
        z, sums = convolved(problem, statistics=True)
        out, _ = problem.output()
        follow(z, problem.affine, problem.following, out)
        more = conv_block_gradient_sums(problem.dy, out, z, problem.affine[0], problem.following)
        return z, *sums, *out, *more

    assert_same_bits_with_one_thread_and_two(everything)


@pytest.mark.parametrize("place", [(0, 2, 3, 1), (2, 8, 9, 15), (3, 0, 0, 0)])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_a_number_shows_where_the_definition_has_it(special, place):
    # 4 images in a unit of Winograd's method, of which one goes directly.
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(64, 9, 10, 16)).astype("f4"), rng.normal(size=(3, 3, 16, 16)).astype("f4")
    x[place] = special
    pads = ((1, 1), (1, 1))
    z = np.empty((64, 9, 10, 16), "f4")
    conv_block(x, kernel, None, Geometry(pads=pads), z=z)
    with np.errstate(all="ignore"):
        assert_close(z, reference.conv2d(*wide(x, kernel), pads=pads), 1e-5)
