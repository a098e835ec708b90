"""The kernels of losses and of the mean over a batch: the compiled stages against the definitions in plain NumPy."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone

# name: (the kernel, the kind of predictions, the kind of targets, the arguments that are not arrays)
CASES = {
    "classes of logits": ("crossentropy", "logits", "classes", (True,)),
    "one-hot of logits": ("crossentropy", "logits", "shares", (True,)),
    "one-hot of probabilities": ("crossentropy", "shares", "shares", (False,)),
    "binary of logits": ("binary_crossentropy", "logits", "shares", (True,)),
    "binary of probabilities": ("binary_crossentropy", "shares", "shares", (False,)),
    "squared": ("squared_error", "logits", "logits", ()),
    "absolute": ("absolute_error", "logits", "logits", ()),
    "huber": ("huber", "logits", "logits", (0.7,)),
}
every_case = pytest.mark.parametrize("case", CASES)


def drawn(kind, shape, dtype, rng):
    if kind == "classes":
        return rng.integers(0, shape[-1], shape[:-1])
    numbers = rng.normal(size=shape) * 3 if kind == "logits" else rng.uniform(0.05, 0.95, shape)
    return numbers.astype(dtype)


def arguments(case, shape=(5, 2, 7), dtype="float32", seed=0):
    name, predictions, targets, rest = CASES[case]
    rng = np.random.default_rng(seed)
    return name, drawn(predictions, shape, dtype, rng), drawn(targets, shape, dtype, rng), rest


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
def test_kernel_equals_the_definition(case, dtype, tolerance):
    name, y, t, rest = arguments(case, dtype=dtype)
    losses, dy = getattr(kernels, name)(y, t, *rest)
    expected, expected_dy = getattr(reference, name)(y, t, *rest)
    assert (losses.shape, losses.dtype, dy.dtype) == (y.shape[:-1], y.dtype, y.dtype)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(dy, expected_dy, rtol=0, atol=tolerance * max(1, np.abs(expected_dy).max()))


@every_case
def test_losses_alone_have_the_bits_that_they_have_beside_their_gradient(case):
    name, y, t, rest = arguments(case)
    losses, _ = getattr(kernels, name)(y, t, *rest)
    np.testing.assert_array_equal(getattr(kernels, name)(y, t, *rest, gradient=False), losses)


@every_case
def test_what_is_not_finite_passes_as_in_the_definition(case):
    name, y, t, rest = arguments(case, (9, 4))
    y[0, 1], y[1, 1], y[2, 1], y[3], y[4] = np.nan, np.inf, -np.inf, 0, -np.inf
    if t.dtype != np.int64:
        t[:3, 1] = 0
        t[5, 0], t[6, 2] = 0, 1
    with np.errstate(all="ignore"):
        expected, expected_dy = getattr(reference, name)(y, t, *rest)
        losses, dy = getattr(kernels, name)(y, t, *rest)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dy, expected_dy, rtol=1e-5, atol=1e-6)
    assert np.isfinite(losses[5:]).all()


def test_a_number_that_is_no_class_makes_nan_and_reads_nothing_beyond_the_row():
    y = np.ones((3, 4), np.float32)
    for module in (kernels, reference):
        losses, dy = module.crossentropy(y, np.array([4, 0, -1]), True)
        assert np.isnan(losses).tolist() == [True, False, True]
        assert np.isnan(dy).all(axis=1).tolist() == [True, False, True]


WEIGHTS = {"none": (), "a sample": (6,), "a row": (6, 3), "a number": (6, 3, 2)}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mean_and_its_gradient_equal_the_definition(weights, mean, dtype):
    rng = np.random.default_rng(1)
    losses, dy = rng.normal(size=(6, 3, 2)).astype(dtype), rng.normal(size=(6, 3, 2, 4)).astype(dtype)
    weights = rng.uniform(size=WEIGHTS[weights]).astype(dtype) if WEIGHTS[weights] else None
    value = kernels.mean_loss(losses, weights, mean)
    assert (value.shape, value.dtype) == ((1,), np.float64)
    np.testing.assert_allclose(value, reference.mean_loss(losses, weights, mean), rtol=1e-14)
    expected = reference.scale_gradient(dy, weights, mean)
    np.testing.assert_allclose(kernels.scale_gradient(dy, weights, mean), expected, rtol=1e-6)
    assert kernels.scale_gradient(dy, weights, mean, out=dy) is dy
    np.testing.assert_allclose(dy, expected, rtol=1e-6)


def test_the_mean_of_no_losses_is_0():
    empty = np.zeros((0, 3), np.float32)
    assert kernels.mean_loss(empty) == kernels.mean_loss(empty, empty, False) == [0.0]
    assert kernels.scale_gradient(np.zeros((0, 3, 2), np.float32), empty).shape == (0, 3, 2)


def test_float32_losses_are_added_in_float64():
    losses = np.ones(3000, np.float32)
    losses[::2] = 1e8
    assert kernels.mean_loss(losses) == [(1e8 + 1) / 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda y: kernels.squared_error(y, y[:2]), ValueError, r"t must have the shape \(3, 4\)"),
        (lambda y: kernels.huber(y, y.astype("float64"), 1.0), TypeError, "t must be of dtype float32"),
        (lambda y: kernels.absolute_error(y[0], y[0]), ValueError, "y must have 2 axes"),
        (lambda y: kernels.crossentropy(y, np.zeros(2, np.int64), True), ValueError, r"t must have the shape \(3,\)"),
        (lambda y: kernels.mean_loss(y, y[:2]), ValueError, r"weights must have the shape \(3, 4\)"),
        (lambda y: kernels.mean_loss(y, np.ones(3)), TypeError, "weights must be of dtype float32"),
        (lambda y: kernels.scale_gradient(y, out=y[:2]), ValueError, r"out must have the shape \(3, 4\)"),
    ],
)
@compiled_kernels_needed
def test_arrays_that_do_not_fit_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((3, 4), np.float32))


@every_case
@compiled_kernels_needed
def test_the_bits_do_not_depend_on_how_the_stages_are_scheduled(case):
    name, y, t, rest = arguments(case, (37, 2, 3))
    weights = np.random.default_rng(2).uniform(size=37).astype(np.float32)

    def trained(y, t, weights):
        losses, dy = getattr(kernels, name)(y, t, *rest)
        return kernels.mean_loss(losses, weights), kernels.scale_gradient(dy, weights, out=dy)

    assert_same_bits(trained, {"y": y, "t": t, "weights": weights}, "y t weights")
    assert_same_bits_alone(lambda y, t: getattr(kernels, name)(y, t, *rest), {"y": y, "t": t}, "y t")
