"""Labels and sample weights that do not fit are refused with rule, value and remedy."""

import tracemalloc

import numpy as np
import pytest

from cnnlite import losses


def sparse(y):
    return losses.SparseCategoricalCrossentropy(), y


def categorical(y):
    return losses.CategoricalCrossentropy(), y


def binary(y):
    return losses.BinaryCrossentropy(), y


BAD_LABELS = [
    (*sparse([0, 10, 1, 2]), "less than 10.*the label 10"),
    (*sparse([0, -1, 1, 2]), "at least 0.*the label -1"),
    (*sparse([0, 1.5, 1, 2]), "whole numbers.*1.5"),
    (*sparse([0, np.nan, 1, 2]), "whole numbers.*nan"),
    (*sparse([0, np.inf, 1, 2]), "the label inf"),
    (*sparse(np.eye(10)[:4]), "use CategoricalCrossentropy, or y.argmax"),
    (*sparse(np.zeros((4, 3))), r"y_true.shape=\(4, 3\)"),
    (*categorical([0, 1, 2, 3]), r"Use SparseCategoricalCrossentropy, or cnnlite.utils.to_categorical\(y, 10\)"),
    (*categorical([[0], [1], [2], [3]]), "Use SparseCategoricalCrossentropy"),
    (*categorical(np.zeros((4, 9))), r"y_true.shape=\(4, 9\).*a column for each of the last layer's 10 units"),
    (*categorical(-np.eye(10)[:4]), "between 0 and 1.*from -1.0"),
    (*categorical(np.full((4, 10), np.nan)), "between 0 and 1.*nan"),
    (*binary(np.full((4, 10), 2)), "between 0 and 1.*to 2"),
    (*binary(np.zeros(4)), "must have the shape of the predictions"),
    (losses.MeanSquaredError(), np.full((4, 10), np.nan), "finite.*nan"),
    (losses.Huber(), np.zeros((4, 9)), "must have the shape of the predictions"),
]


@pytest.mark.parametrize(("loss", "y_true", "message"), BAD_LABELS)
def test_check_refuses_labels_that_do_not_fit_with_rule_value_and_remedy(loss, y_true, message):
    with pytest.raises(ValueError, match=message) as caught:
        loss.check(y_true, (None, 10))
    assert str(caught.value).startswith(f"{loss.name}: ")


@pytest.mark.parametrize(("loss", "y_true", "message"), BAD_LABELS[:-2])
def test_a_batch_with_bad_labels_is_refused_too(loss, y_true, message):
    with pytest.raises(ValueError, match=message):
        loss(y_true, np.full((4, 10), 0.1))
    with pytest.raises(ValueError, match=message):
        loss.backward(y_true, np.full((4, 10), 0.1))


@pytest.mark.parametrize("kind", [losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy])
def test_a_single_class_is_refused_with_the_remedy(kind):
    with pytest.raises(ValueError, match=r"at least 2 classes.*BinaryCrossentropy"):
        kind().check(np.zeros((4, 1)), (None, 1))


def test_text_is_not_a_label():
    with pytest.raises(TypeError, match="real numbers"):
        losses.SparseCategoricalCrossentropy().check(["cat", "dog"], (None, 2))


@pytest.mark.parametrize("weights", [np.ones(3), np.ones((4, 2)), np.ones((1, 4))])
def test_sample_weights_of_another_shape_are_refused(weights):
    with pytest.raises(ValueError, match=r"one number per sample, shape \(4,\)"):
        losses.MeanSquaredError()(np.zeros((4, 5)), np.zeros((4, 5)), weights)


def test_check_makes_no_copy_of_the_labels():
    y_true = np.zeros((2_000_000, 1), np.float32)
    tracemalloc.start()
    losses.SparseCategoricalCrossentropy().check(y_true, (None, 10))
    losses.BinaryCrossentropy().check(y_true, (None, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < y_true.nbytes / 4
