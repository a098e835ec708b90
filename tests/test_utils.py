"""The helpers of training scripts."""

import numpy as np
import pytest

import cnnlite
from cnnlite.utils import set_random_seed, to_categorical


def test_one_hot_rows_stand_where_the_labels_say():
    one_hot = to_categorical([2, 0, 1, 2])
    np.testing.assert_array_equal(one_hot, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert one_hot.dtype == np.float64


@pytest.mark.parametrize(("shape", "expected"), [
    ((4,), (4, 5)), ((4, 1), (4, 5)), ((2, 3), (2, 3, 5)), ((2, 3, 1), (2, 3, 5)), ((), (5,)), ((1,), (1, 5)),
    ((0,), (0, 5)), ((1, 1), (1, 5)),
])
def test_the_axis_of_the_classes_comes_last_and_an_axis_of_one_goes(shape, expected):
    labels = np.random.default_rng(0).integers(0, 5, shape)
    one_hot = to_categorical(labels, 5)
    assert one_hot.shape == expected
    np.testing.assert_array_equal(one_hot.argmax(-1).ravel(), labels.ravel())
    assert (one_hot.sum(-1) == 1).all()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_labels_of_any_numeric_type_are_taken(dtype):
    np.testing.assert_array_equal(to_categorical(np.array([0, 1], dtype)), np.eye(2))


def test_labels_that_are_not_contiguous_are_read_in_their_order():
    labels = np.arange(10)[::-2]
    np.testing.assert_array_equal(to_categorical(labels, 10).argmax(-1), labels)


@pytest.mark.parametrize(
    ("x", "num_classes", "error", "message"),
    [
        ([0, -1], None, ValueError, "at least 0. Received: -1 at position 1"),
        ([0, 1, 3], 3, ValueError, "less than num_classes=3. Received: 3 at position 2"),
        ([0.0, 1.5], None, ValueError, "whole numbers. Received: 1.5 at position 1"),
        ([0.0, np.nan], None, ValueError, "whole numbers. Received: nan at position 1"),
        ([0.0, np.inf], None, ValueError, "whole numbers. Received: inf at position 1"),
        (-1, None, ValueError, "at least 0. Received: -1"),
        ([], None, ValueError, "x is empty.* Pass num_classes"),
        (["a"], None, TypeError, "Received: dtype=<U1"),
        ([0], 0, ValueError, "num_classes must be at least 1"),
        ([0], 2.5, TypeError, "num_classes must be an integer"),
    ],
)
def test_labels_that_stand_for_no_class_are_refused(x, num_classes, error, message):
    with pytest.raises(error, match=message):
        to_categorical(x, num_classes)


def test_the_seed_decides_what_is_drawn():
    def draw():
        return cnnlite.initializers.get("he_normal")((3, 4))

    set_random_seed(1)
    first, second = draw(), draw()
    set_random_seed(1)
    np.testing.assert_array_equal(draw(), first)
    np.testing.assert_array_equal(draw(), second)
    assert not np.array_equal(first, second)
    set_random_seed(2)
    assert not np.array_equal(draw(), first)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError), (True, TypeError)])
def test_a_seed_that_is_no_whole_number_is_refused(seed, error):
    with pytest.raises(error, match="set_random_seed: seed must be"):
        set_random_seed(seed)


@pytest.mark.parametrize("order", [1, 2])
def test_a_norm_of_many_numbers_keeps_its_digits_along_any_axis(order):
    x = np.full((200_000, 3), 0.1, np.float32)
    y = cnnlite.utils.normalize(x, 0, order)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, 200_000 ** (-1 / order), rtol=2e-7)


@pytest.mark.parametrize(("axis", "order"), [(-1, 2), (0, 2), (1, 1)])
def test_normalised_rows_have_norm_one_and_zeros_stay(axis, order):
    x = np.array([[[3, -4], [0, 0]], [[1, 2], [0, 0]]])
    norms = np.linalg.norm(cnnlite.utils.normalize(x, axis, order), ord=order, axis=axis)
    np.testing.assert_allclose(norms[np.linalg.norm(x, axis=axis) > 0], 1)
    np.testing.assert_array_equal(cnnlite.utils.normalize(x, axis, order)[:, 1], 0)
