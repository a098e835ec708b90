"""Accuracies: the fraction of samples that are predicted correctly.

All of them are means over the samples, weighted by `sample_weight`, and 0.0 before the first sample. A
prediction with a NaN in it counts as wrong. Labels that don't fit the predictions are a ValueError.
"""

from __future__ import annotations

import numpy as np

from cnnlite.data import labels
from cnnlite.losses.base import at_least_2d
from cnnlite.metrics.base import Average, ByForm, Metric
from cnnlite.support.arguments import float_array, integer, number
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape


class _Accuracy(Average):
    """The mean of `matches`, which a subclass defines: whether each prediction is correct, (N, ...).

    `labels_for`, which it defines too, returns the labels for predictions of a shape (N, ..., K), or raises.
    """

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        self.labels_for(y_true, at_least_2d(output_shape))

    def values(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        y_pred = float_array(y_pred, None, "y_pred", self.name)
        y_pred = y_pred.reshape(at_least_2d(y_pred.shape))
        return self.matches(self.labels_for(y_true, y_pred.shape), y_pred)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        """Return the labels as `matches` takes them, for predictions of that shape; a ValueError if they don't fit."""
        raise NotImplementedError(f"{type(self).__name__} must define labels_for(y_true, shape).")

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        """Return which predictions are correct."""
        raise NotImplementedError(f"{type(self).__name__} must define matches(y_true, y_pred).")


class BinaryAccuracy(_Accuracy):
    """The fraction of predictions that are above `threshold` if the label is 1, and at most that if it is 0.

    Shapes: labels and predictions (N, ..., K); (N,) counts as (N, 1).

    >>> metric = BinaryAccuracy()
    >>> metric.update_state([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]])
    >>> metric.result()
    0.75

    Args:
        name, dtype: see `Metric`.
        threshold: 0.5 by default; 0 suits logits.
    """

    def __init__(
        self,
        name: str | None = "binary_accuracy",
        dtype: DTypeLike | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(dtype, name)
        self.threshold = number(threshold, "threshold", type(self).__name__)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        return labels.same_shape(y_true, shape, self.name)

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        return (y_true == (y_pred > self.threshold)) & ~np.isnan(y_pred)

    def get_config(self) -> Config:
        return {**super().get_config(), "threshold": self.threshold}


class CategoricalAccuracy(_Accuracy):
    """The fraction of samples whose largest prediction is at the class of the one-hot label.

    Shapes: labels and predictions (N, ..., classes). Probabilities and logits give the same result; if
    predictions tie, the first counts as the largest.

    >>> metric = CategoricalAccuracy()
    >>> metric.update_state([[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]])
    >>> metric.result()
    0.5

    Args:
        name, dtype: see `Metric`.
    """

    def __init__(self, name: str | None = "categorical_accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(dtype, name)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        return labels.one_hot_labels(y_true, shape, self.name)

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        return _is_largest(y_true.argmax(axis=-1), y_pred)


class SparseCategoricalAccuracy(_Accuracy):
    """The fraction of samples whose largest prediction is at the class that the label names.

    Shapes: labels (N, ...) or (N, ..., 1), predictions (N, ..., classes). Probabilities and logits give the same
    result; if predictions tie, the first counts as the largest.

    >>> metric = SparseCategoricalAccuracy()
    >>> metric.update_state([2, 1], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]])
    >>> metric.result()
    0.5

    Args:
        name, dtype: see `Metric`.
    """

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: DTypeLike | None = None) -> None:
        super().__init__(dtype, name)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        return labels.integer_labels(y_true, shape, self.name)

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        return _is_largest(y_true, y_pred)


class TopKCategoricalAccuracy(_Accuracy):
    """The fraction of samples for which the class of the one-hot label is among the `k` largest predictions.

    A class is among them if fewer than k predictions are larger than its own: ties count in its favour, as in
    TensorFlow's `in_top_k`.

    Shapes: labels and predictions (N, ..., classes). With k classes or fewer the result is 1.

    >>> metric = TopKCategoricalAccuracy(k=2)
    >>> metric.update_state([[0, 0, 1], [1, 0, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0.1]])
    >>> metric.result()
    0.5

    Args:
        k: how many of the predictions count, 5 by default.
        name, dtype: see `Metric`.
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = "top_k_categorical_accuracy",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(dtype, name)
        self.k = integer(k, "k", type(self).__name__)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        return labels.one_hot_labels(y_true, shape, self.name)

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        return _in_top_k(y_true.argmax(axis=-1), y_pred, self.k)

    def get_config(self) -> Config:
        return {**super().get_config(), "k": self.k}


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """`TopKCategoricalAccuracy` for labels that are class indices.

    Shapes: labels (N, ...) or (N, ..., 1), predictions (N, ..., classes).

    >>> metric = SparseTopKCategoricalAccuracy(k=2)
    >>> metric.update_state([2, 0], [[0.1, 0.9, 0.8], [0.05, 0.95, 0.1]])
    >>> metric.result()
    0.5

    Args:
        k: how many of the predictions count, 5 by default.
        name, dtype: see `Metric`.
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(k, name, dtype)

    def labels_for(self, y_true: ArrayLike, shape: Shape) -> Array:
        return labels.integer_labels(y_true, shape, self.name)

    def matches(self, y_true: Array, y_pred: Array) -> Array:
        return _in_top_k(y_true, y_pred, self.k)


class AccuracyByForm(ByForm):
    """What "accuracy" stands for: binary, categorical or sparse categorical accuracy, depending on the labels.

    Args:
        name, dtype: see `Metric`.
        from_logits: whether binary predictions are logits; the threshold is then 0, the logit of probability
            0.5. (Keras keeps 0.5.) `get` takes this from the loss.

    >>> metric = AccuracyByForm()
    >>> metric.update_state([2, 1], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]])
    >>> metric.result()
    0.5
    """

    def __init__(
        self,
        name: str | None = "accuracy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype, from_logits)

    def choose(self, form: str) -> Metric:
        if form == "binary":
            return BinaryAccuracy(self.name, threshold=0.0 if self.from_logits else 0.5)
        return (SparseCategoricalAccuracy if form == "sparse" else CategoricalAccuracy)(self.name)


def _is_largest(classes: Array, y_pred: Array) -> Array:
    predicted = y_pred.argmax(axis=-1)
    # argmax takes the first NaN for the largest.
    largest = np.take_along_axis(y_pred, predicted[..., np.newaxis], axis=-1)[..., 0]
    return (classes == predicted) & ~np.isnan(largest)


def _in_top_k(classes: Array, y_pred: Array, k: int) -> Array:
    own = np.take_along_axis(y_pred, classes.astype(np.intp)[..., np.newaxis], axis=-1)
    return ((y_pred > own).sum(axis=-1) < k) & ~np.isnan(y_pred).any(axis=-1)
