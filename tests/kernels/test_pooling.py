"""The kernels of pooling against their definitions: ties, NaN, padding, and memory that must not be written to."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference
from cnnlite.kernels.pooling import pooled_shape
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

THREADS = range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1)
NO_PADS = ((0, 0), (0, 0))


@st.composite
def axes(draw):
    """Draw the size, window, stride and padding of one axis, such that at least one window fits."""
    window = draw(st.integers(1, 4))
    pads = draw(st.tuples(st.integers(0, window - 1), st.integers(0, window - 1)))
    size = draw(st.integers(max(1, window - sum(pads)), 7))
    return size, window, draw(st.integers(1, 4)), pads


@st.composite
def poolings(draw):
    """Draw (x, window, strides, pads). Few distinct values, so that ties are common."""
    (height, kh, sh, rows), (width, kw, sw, columns) = draw(axes()), draw(axes())
    shape = (draw(st.integers(0, 3)), height, width, draw(st.sampled_from([1, 2, 3, 17])))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = generator.integers(-3, 4, shape).astype(draw(st.sampled_from(["float32", "float64"])))
    return x, (kh, kw), (sh, sw), (rows, columns)


@settings(max_examples=50, deadline=None)
@given(poolings(), st.sampled_from([0.0, 0.3, 1.0]))
def test_max_pool_is_the_reference_bit_for_bit_with_ties_nan_and_infinities(case, share_of_specials):
    x, *window = case
    generator = np.random.default_rng(0)
    specials = generator.choice([np.nan, np.inf, -np.inf], x.shape)
    x[...] = np.where(generator.random(x.shape) < share_of_specials, specials, x)
    y, argmax = kernels.max_pool(x, *window)
    expected, where = reference.max_pool(x, *window)
    assert y.dtype == x.dtype
    assert argmax.dtype == where.dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(argmax, where)


@settings(max_examples=50, deadline=None)
@given(poolings())
def test_average_pool_is_the_reference(case):
    x, *window = case
    y = kernels.average_pool(x, *window)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, reference.average_pool(x, *window), rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(poolings())
def test_the_gradients_of_both_are_the_reference(case):
    x, *window = case
    y, argmax = kernels.max_pool(x, *window)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(x.dtype)
    dx = kernels.max_pool_backward(dy, argmax, x.shape, *window)
    assert dx.dtype == x.dtype
    np.testing.assert_allclose(dx, reference.max_pool_backward(dy, argmax, x.shape, *window), rtol=1e-5, atol=1e-6)
    dx = kernels.average_pool_backward(dy, x.shape, *window)
    assert dx.dtype == x.dtype
    np.testing.assert_allclose(dx, reference.average_pool_backward(dy, x.shape, *window), rtol=1e-5, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(poolings())
def test_the_gradients_of_both_are_written_to_no_place_but_theirs(case):
    x, *window = case
    y, argmax = kernels.max_pool(x, *window)
    behind = np.full((len(x) + 2, *x.shape[1:]), 7, x.dtype)
    kernels.max_pool_backward(np.ones_like(y), argmax, x.shape, *window, out=behind[1:-1])
    kernels.average_pool_backward(np.ones_like(y), x.shape, *window, out=behind[1:-1])
    assert (behind[0] == 7).all()
    assert (behind[-1] == 7).all()


def test_rows_of_windows_that_end_in_padding_below_leave_what_lies_behind_the_image_alone():
    shape, window = (1, 5, 5, 3), ((2, 2), (2, 2), ((0, 1), (0, 0)))
    y, argmax = kernels.max_pool(np.zeros(shape, "f4"), *window)
    behind = np.full((2, *shape[1:]), 7, "f4")
    kernels.max_pool_backward(np.ones_like(y), argmax, shape, *window, out=behind[:1])
    assert (behind[1] == 7).all()


def test_a_window_of_more_than_256_pixels_is_numbered_beyond_a_byte():
    x = np.zeros((1, 20, 20, 2), "float32")
    x[0, 19, 18, 0] = 1
    window = (20, 20), (1, 1), NO_PADS
    y, argmax = kernels.max_pool(x, *window)
    assert argmax.ravel().tolist() == [398, 0]
    dx = kernels.max_pool_backward(np.ones_like(y), argmax, x.shape, *window)
    assert np.argwhere(dx).tolist() == [[0, 0, 0, 1], [0, 19, 18, 0]]


def test_a_window_of_256_pixels_still_fits_in_a_byte():
    x = np.zeros((1, 16, 16, 1), "float32")
    x[0, 15, 15] = 1
    _, argmax = kernels.max_pool(x, (16, 16), (1, 1), NO_PADS)
    assert argmax.dtype == np.uint8
    assert argmax.ravel().tolist() == [255]


def test_padding_never_wins_and_gets_no_gradient():
    window = (3, 3), (2, 2), ((1, 1), (1, 1))
    x = np.full((1, 5, 5, 1), -7.0)
    y, argmax = kernels.max_pool(x, *window)
    assert (y == -7).all()
    x[...] = -np.inf
    y, argmax = kernels.max_pool(x, *window)
    assert (y == -np.inf).all()
    dx = kernels.max_pool_backward(np.ones_like(y), argmax, x.shape, *window)
    # Each window passes its gradient to its first real pixel; nothing is lost to the padding.
    assert dx.sum() == 9
    assert np.argwhere(dx[0, :, :, 0]).tolist() == [[r, c] for r in (0, 1, 3) for c in (0, 1, 3)]


def test_the_first_nan_of_a_window_gets_the_gradient():
    x = np.array([[9.0, np.nan], [np.nan, np.inf]]).reshape(1, 2, 2, 1)
    y, argmax = kernels.max_pool(x, (2, 2), (2, 2), NO_PADS)
    assert np.isnan(y).all()
    assert argmax.ravel().tolist() == [1]


def test_overlapping_windows_add_their_gradients():
    x = np.zeros((1, 5, 5, 1))
    x[0, 2, 2] = 1
    window = (3, 3), (1, 1), NO_PADS
    y, argmax = kernels.max_pool(x, *window)
    dy = np.arange(1.0, 10).reshape(y.shape)
    dx = kernels.max_pool_backward(dy, argmax, x.shape, *window)
    assert dx[0, 2, 2, 0] == 45
    assert np.count_nonzero(dx) == 1


def test_a_stride_larger_than_the_window_leaves_the_pixels_between_without_gradient():
    window = (1, 1), (3, 3), NO_PADS
    out = np.full((1, 4, 4, 1), 5.0)
    kernels.average_pool_backward(np.ones((1, 2, 2, 1)), out.shape, *window, out=out)
    assert out[0, :, :, 0].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]


def test_pooling_does_not_change_its_inputs():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    before = x.copy()
    window = (2, 2), (1, 1), NO_PADS
    y, argmax = kernels.max_pool(x, *window)
    dy = y.copy()
    where = argmax.copy()
    kernels.max_pool_backward(dy, argmax, x.shape, *window)
    kernels.average_pool(x, *window)
    kernels.average_pool_backward(dy, x.shape, *window)
    assert (x == before).all()
    assert (dy == y).all()
    assert (argmax == where).all()


@pytest.mark.skipif(len(THREADS) < 2, reason="numba has only one thread")
def test_any_number_of_threads_gives_the_same_bytes():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, 9, 8, 3)).astype("float32")
    window = (3, 3), (1, 2), ((1, 1), (0, 1))
    dy = generator.normal(size=pooled_shape(x.shape, *window)).astype("float32")
    results = set()
    before = numba.get_num_threads()
    try:
        for threads in THREADS:
            numba.set_num_threads(threads)
            y, argmax = kernels.max_pool(x, *window)
            arrays = (y, argmax, kernels.max_pool_backward(dy, argmax, x.shape, *window),
                      kernels.average_pool(x, *window), kernels.average_pool_backward(dy, x.shape, *window))
            results.add(b"".join(array.tobytes() for array in arrays))
    finally:
        numba.set_num_threads(before)
    assert len(results) == 1


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "window"), [
    ((9, 8), ((2, 2), (2, 2), NO_PADS)),
    ((9, 8), ((3, 3), (1, 2), ((1, 1), (0, 1)))),
    ((9, 11), ((9, 9), (1, 1), ((8, 8), (0, 0)))),  # the sum is long, and the windows overlap
    ((17, 17), ((17, 17), (1, 1), ((0, 1), (0, 0)))),  # argmax needs 32 bits
])
def test_the_bits_do_not_depend_on_how_the_stages_are_run(size, window, dtype):
    for channels, samples in ((1, 0), (3, 1), (19, 2), (33, 3), (70, 17)):
        rng = np.random.default_rng(channels)
        x = rng.normal(size=(samples, *size, channels)).astype(dtype)
        shape = pooled_shape(x.shape, *window)
        dy = rng.normal(size=shape).astype(dtype)
        _, argmax = reference.max_pool(x, *window)
        forward = [lambda x: kernels.max_pool(x, *window), lambda x: kernels.average_pool(x, *window)]
        image = (*size, channels)
        backward = [
            lambda dy, argmax, image=image: kernels.max_pool_backward(dy, argmax, (dy.shape[0], *image), *window),
            lambda dy, argmax, image=image: kernels.average_pool_backward(dy, (dy.shape[0], *image), *window),
        ]
        for functions, arrays in ((forward, {"x": x}), (backward, {"dy": dy, "argmax": argmax})):
            for function in functions:
                assert_same_bits(function, arrays, " ".join(arrays))
                assert_same_bits_alone(function, arrays, " ".join(arrays))


@compiled_kernels_needed
def test_every_number_of_channels_up_to_70_is_the_reference():
    for channels in range(1, 71):
        x = np.random.default_rng(channels).normal(size=(1, 5, 7, channels)).astype("float32")
        for window in (((2, 2), (2, 2), NO_PADS), ((3, 2), (2, 1), ((1, 1), (0, 1)))):
            y, argmax = kernels.max_pool(x, *window)
            for mine, definition in zip((y, argmax), reference.max_pool(x, *window)):
                np.testing.assert_array_equal(mine, definition)
            np.testing.assert_allclose(kernels.max_pool_backward(y, argmax, x.shape, *window),
                                       reference.max_pool_backward(y, argmax, x.shape, *window), rtol=1e-6)


@compiled_kernels_needed
def test_a_gradient_of_another_number_of_samples_than_the_images_is_an_error():
    window = (2, 2), (2, 2), NO_PADS
    dy = np.ones((2, 2, 2, 3), "float32")
    with pytest.raises(ValueError, match=r"dy must have the shape \(3, 2, 2, 3\)"):
        kernels.average_pool_backward(dy, (3, 4, 4, 3), *window)
    with pytest.raises(ValueError, match=r"argmax must have the shape \(2, 2, 2, 3\)"):
        kernels.max_pool_backward(dy, np.zeros((3, 2, 2, 3), np.uint8), (2, 4, 4, 3), *window)
