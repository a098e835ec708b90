"""The kernel gradient by Winograd's method as 36 matrix products, also for shapes that normally go another way."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import fusion, kernels, layers, reference
from cnnlite.kernels.convolution.winograd_kernel_gradient import (
    NUMBERS_A_UNIT,
    add_winograd_kernel_gradient,
    has_large_products,
)
from cnnlite.kernels.geometry import Geometry, fields
from cnnlite.kernels.operation import operation
from cnnlite.kernels.product.outer_products import LEAF
from tests.kernels.drawn import MARGIN, compiled_kernels_needed, guarded
from tests.kernels.stages import assert_same_bits
from tests.kernels.test_winograd_gradients import assert_close, problems

pytestmark = compiled_kernels_needed

BAD = {"NaN": np.nan, "infinity": -np.inf, "too large": 1e13}


@operation(samples="x dy")
def by_products(x, dy, pads, dkernel):
    sizes = fields(x.shape, dkernel.shape, dy.shape[1:3], Geometry(pads=pads))
    add_winograd_kernel_gradient(x, dy, dkernel, sizes)


def images(n, size, c, f, seed=0):
    """Return x and dy of a convolution with 3 taps and padding "same", and an array for the kernel gradient."""
    rng = np.random.default_rng(seed)
    return (*(rng.normal(size=(n, size, size, channels)).astype("f4") for channels in (c, f)),
            np.full((3, 3, c, f), 7, "f4"))


@np.errstate(all="ignore")  # NumPy warns of NaN, compiled code doesn't
def expected(x, dy, shape, pads):
    return reference.conv2d_kernel_gradient(x.astype(np.float64), dy.astype(np.float64), shape, pads=pads)


SAME = ((1, 1), (1, 1))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_it_equals_its_definition_and_touches_nothing_else(problem):
    x, dy, kernel, pads = problem
    dkernel, around = guarded(np.full_like(kernel, 7))
    by_products(guarded(x)[0], guarded(dy)[0], pads, dkernel)
    assert_close(dkernel, expected(x, dy, kernel.shape, pads))
    assert np.isnan(around[:MARGIN]).all()
    assert np.isnan(around[-MARGIN:]).all()


@pytest.mark.parametrize("n", [LEAF // 4, LEAF // 4 + 1, 3 * LEAF // 4 + 5])
def test_more_tiles_than_are_added_one_by_one(n):
    x, dy, dkernel = images(n, 8, 16, 17)
    by_products(x, dy, SAME, dkernel)
    assert_close(dkernel, expected(x, dy, dkernel.shape, SAME))


@pytest.mark.parametrize(("c", "f"), [(16, 16), (16, NUMBERS_A_UNIT // 16), (43, 61), (45, 47), (66, 65)])
def test_every_number_is_transformed_back_once(c, f):
    x, dy, dkernel = images(3, 5, c, f)
    by_products(x, dy, SAME, dkernel)
    assert_close(dkernel, expected(x, dy, dkernel.shape, SAME))


@pytest.mark.parametrize("where", ["x", "dy", "both"])
@pytest.mark.parametrize("bad", BAD)
def test_numbers_that_are_not_bounded_spoil_no_more_than_by_the_definition(bad, where):
    x, dy, dkernel = images(5, 9, 17, 33)
    if where != "dy":
        x[3, 4, 5, 6] = BAD[bad]
    if where != "x":
        dy[1, 0, 0, 32] = BAD[bad]
    by_products(x, dy, SAME, dkernel)
    wanted = expected(x, dy, dkernel.shape, SAME)
    fine = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isfinite(dkernel), fine)
    # A sum that contains 1e13 is only as precise as that number; the others keep all their digits.
    small = fine & (np.abs(wanted) < 1e6)
    assert small.any()
    assert not small.all()
    np.testing.assert_allclose(dkernel[small], wanted[small], atol=1e-4)
    np.testing.assert_allclose(dkernel[fine], wanted[fine], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bad", [None, np.nan])
def test_it_has_the_same_bits_however_it_is_cut(bad):
    x, dy, dkernel = images(37, 6, 94, 80)
    if bad is not None:
        x[8, 1, 1, 1] = bad

    def run(x, dy):
        return kernels.conv2d_kernel_gradient(x, dy, dkernel.shape, pads=SAME)

    assert has_large_products(fields(x.shape, dkernel.shape, dy.shape[1:3], Geometry(pads=SAME)), 4)
    (actual,) = assert_same_bits(run, {"x": x, "dy": dy}, "x dy")
    wanted, fine = expected(x, dy, dkernel.shape, SAME), np.isfinite(actual)
    np.testing.assert_array_equal(fine, np.isfinite(wanted))
    np.testing.assert_allclose(actual[fine], wanted[fine], atol=1e-3)


@pytest.mark.parametrize(("size", "c", "f", "is_taken"), [
    (8, 256, 256, True), (8, 64, 128, True), (14, 256, 256, True), (4, 64, 64, False),
    (16, 128, 128, False), (26, 32, 64, False), (32, 64, 64, False)])
def test_small_images_of_many_channels_go_this_way(size, c, f, is_taken):
    sizes = fields((None, size, size, c), (3, 3, c, f), (size, size), Geometry(pads=SAME))
    assert has_large_products(sizes, 4) == is_taken


@pytest.mark.parametrize(("taps", "size", "is_taken"), [(3, 8, True), (3, 5, True), (4, 4, False), (5, 8, False)])
def test_tiles_that_would_take_much_more_memory_than_the_images_do_not(taps, size, is_taken):
    geometry = Geometry(pads=((taps // 2,) * 2,) * 2)
    sizes = fields((None, size, size, 512), (taps, taps, 512, 512), (size, size), geometry)
    assert has_large_products(sizes, 4) == is_taken


@pytest.mark.parametrize("bad", [None, 1e13, np.nan])
def test_a_model_trains_the_same_with_stages_joined_and_apart_and_in_eager_mode(bad):
    x, _, _ = images(5, 8, 3, 4)
    if bad is not None:
        x[2, 3, 4, 1] = bad
    gradients = []
    for way in (contextlib.nullcontext, fusion.disabled, cnnlite.reference_mode):
        cnnlite.utils.set_random_seed(0)
        model = cnnlite.Sequential([
            cnnlite.Input((8, 8, 3)), layers.Conv2D(96, 1, activation="relu"), layers.Conv2D(97, 3, padding="same"),
            layers.ReLU(), layers.MaxPool(), layers.Flatten(), layers.Dense(4)])
        with way(), np.errstate(all="ignore"):
            out = model.forward(x, training=True)
            model.backward_weights(np.ones_like(out))
            gradients.append(model.layers[1].grads["kernel"].copy())
    np.testing.assert_array_equal(gradients[0], gradients[1])
    scale = np.nanmax(np.abs(gradients[2]), initial=0)
    np.testing.assert_allclose(gradients[0], gradients[2], rtol=0, atol=1e-5 * (scale if np.isfinite(scale) else 1))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3))
def test_both_gradients_are_right_where_the_kernels_goes_this_way(n):
    x, dy, dkernel = images(n, 8, 96, 96)
    kernel, dx = np.random.default_rng(1).normal(size=dkernel.shape).astype("f4"), np.full_like(x, 7)
    kernels.conv2d_backward(x, dy, kernel, pads=SAME, dkernel=dkernel, dx=dx)
    assert_close(dkernel, expected(x, dy, dkernel.shape, SAME))
    assert_close(dx, reference.conv2d_input_gradient(dy.astype("f8"), kernel.astype("f8"), x.shape, pads=SAME))
