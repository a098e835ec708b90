"""Cross-entropies: the losses of classifiers."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np

from cnnlite import kernels, labels
from cnnlite.arguments import boolean, number
from cnnlite.floating import arithmetic
from cnnlite.losses.base import Loss, at_least_2d
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

# Probabilities are kept this far from 0 and 1, so that their logarithm stays finite; Keras's epsilon.
EPSILON = 1e-7


class _Crossentropy(Loss):
    """What the cross-entropies share: logits or probabilities, and label smoothing."""

    probability_activation = ""

    def __init__(
        self,
        from_logits: bool,
        label_smoothing: float,
        axis: int,
        reduction: str | None,
        name: str | None,
        dtype: DTypeLike | None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        owner = type(self).__name__
        self.from_logits = boolean(from_logits, "from_logits", owner)
        self.label_smoothing = number(label_smoothing, "label_smoothing", owner, minimum=0)
        if self.label_smoothing > 1:
            raise ValueError(
                f"{owner}: label_smoothing must be between 0 and 1. Received: label_smoothing={label_smoothing}."
            )
        if axis != -1:
            raise ValueError(
                f"{owner}: axis must be -1, the last. Received: axis={axis!r}. "
                "Move the classes there with np.moveaxis(y, axis, -1)."
            )

    @property
    def fused_activation(self) -> str | None:
        return None if self.from_logits else self.probability_activation

    def on_logits(self) -> Loss:
        loss = copy.copy(self)
        loss.from_logits = True
        return loss

    def get_config(self) -> Config:
        return {**super().get_config(), "from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class CategoricalCrossentropy(_Crossentropy):
    """The cross-entropy of one-hot labels t and probabilities p of the classes.

        loss = -sum(t * log(p))     p = softmax(y_pred) if from_logits, else y_pred / sum(y_pred)

    Label smoothing s replaces t by t * (1 - s) + s / classes. From logits, the logarithm is computed as
    y - log(sum(exp(y))) with the largest logit taken off first, so logits of 1000 are safe. Probabilities are
    clipped to [1e-7, 1 - 1e-7], as in Keras; the gradient of one that is outside is 0. Training is spared that:
    of a model that ends in a softmax, `fit` takes the logits by itself.

    Shapes: labels and predictions (N, ..., classes), losses (N, ...). NaN in, NaN out.

    >>> loss = CategoricalCrossentropy()
    >>> round(loss([[0, 1, 0], [0, 0, 1]], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]), 3)
    1.177

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        label_smoothing: s, from 0 to 1.
        axis: that of the classes; it must be the last, -1.
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: labels of another shape than the predictions, or outside [0, 1].
    """

    probability_activation = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def forward(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        t, y = self.prepare(y_true, y_pred)
        log_p = kernels.log_softmax(y) if self.from_logits else np.log(_clip(_normalise(y)))
        return -_weighted_sum(t, log_p)

    def gradient(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        t, y = self.prepare(y_true, y_pred)
        if self.from_logits:
            return kernels.softmax(y) * t.sum(axis=-1, keepdims=True) - t
        p = _normalise(y)
        dp = np.where(_is_clipped(p), 0, -t / _clip(p)).astype(y.dtype, copy=False)
        # p = y / sum(y), so each y also makes all the other p smaller.
        with np.errstate(all="ignore"):
            return (dp - (dp * p).sum(axis=-1, keepdims=True)) / y.sum(axis=-1, keepdims=True)

    def value_and_gradient(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        if not self.from_logits or not _is_as_written(self):
            return super().value_and_gradient(y_true, y_pred, sample_weight)
        self._require_reduction()
        with arithmetic():
            t, y = self.prepare(y_true, y_pred)
            log_p, p = kernels.log_softmax_and_softmax(y)
            value = self._reduce(-_weighted_sum(t, log_p), sample_weight)
            return value, self._scale(p * t.sum(axis=-1, keepdims=True) - t, y_pred, sample_weight)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return the smoothed probabilities t and the predictions, both (N, ..., classes)."""
        y_pred = self.prepare_predictions(y_pred)
        t = labels.probability_labels(labels.one_hot_labels(y_true, y_pred.shape, self.name), self.name)
        return self._smooth(t.astype(y_pred.dtype, copy=False)), y_pred

    def _smooth(self, t: Array) -> Array:
        s = self.label_smoothing
        return t * (1 - s) + s / t.shape[-1] if s else t

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels are one-hot, (N, ..., classes), with values in [0, 1]."""
        labels.probability_labels(labels.one_hot_labels(y_true, output_shape, self.name), self.name)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """The cross-entropy of labels that are the number of a class, and probabilities p of the classes.

        loss = -log(p[label])     p = softmax(y_pred) if from_logits, else y_pred / sum(y_pred)

    It is `CategoricalCrossentropy` of the one-hot labels.

    Shapes: labels (N, ...) or (N, ..., 1), predictions (N, ..., classes), losses (N, ...).

    >>> loss = SparseCategoricalCrossentropy()
    >>> round(loss([1, 2], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]), 3)
    1.177

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        ignore_class: must be None; give the samples to be ignored sample_weight=0.
        reduction, name, dtype: see `Loss`.
        axis: that of the classes; it must be the last, -1.
        label_smoothing: s in t * (1 - s) + s / classes, from 0 to 1. Keras has it for one-hot labels only.

    Raises:
        ValueError: labels that are one-hot, that are not whole numbers, or that are not among the classes.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: DTypeLike | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        if ignore_class is not None:
            raise ValueError(
                f"SparseCategoricalCrossentropy: ignore_class must be None. Received: ignore_class={ignore_class!r}. "
                "Give the samples that are to be ignored a label of any class and sample_weight=0."
            )

    # From logits, nothing is as large as the predictions but what is made of them: there may be a million classes.

    def forward(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        if not self.from_logits or self.label_smoothing:
            return super().forward(y_true, y_pred)
        classes, y = self._classes(y_true, y_pred)
        return -_at(classes, kernels.log_softmax(y))

    def gradient(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        if not self.from_logits or self.label_smoothing:
            return super().gradient(y_true, y_pred)
        classes, y = self._classes(y_true, y_pred)
        return _less_one(kernels.softmax(y), classes)

    def value_and_gradient(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        if not self.from_logits or self.label_smoothing or not _is_as_written(self):
            return super().value_and_gradient(y_true, y_pred, sample_weight)
        self._require_reduction()
        with arithmetic():
            classes, y = self._classes(y_true, y_pred)
            log_p, p = kernels.log_softmax_and_softmax(y)
            value = self._reduce(-_at(classes, log_p), sample_weight)
            return value, self._scale(_less_one(p, classes), y_pred, sample_weight)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return the smoothed one-hot labels t and the predictions, both (N, ..., classes)."""
        classes, y_pred = self._classes(y_true, y_pred)
        t = np.zeros(y_pred.shape, y_pred.dtype)
        _rows(t)[_places(classes)] = 1
        return self._smooth(t), y_pred

    def _classes(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return the labels (N, ...) and the predictions (N, ..., classes)."""
        y_pred = self.prepare_predictions(y_pred)
        return labels.integer_labels(y_true, y_pred.shape, self.name).astype(np.intp), y_pred

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels are whole numbers from 0 to classes - 1, one for each sample."""
        labels.integer_labels(y_true, output_shape, self.name)


# What value_and_gradient computes in one go. A subclass, a patched class or an object may have another of them.
_parts_of = operator.attrgetter("forward", "gradient", "backward", "__call__", "prepare", "prepare_predictions",
                                "_reduce", "_scale")
_written = {cls: _parts_of(cls) for cls in (CategoricalCrossentropy, SparseCategoricalCrossentropy)}


def _is_as_written(loss: Loss) -> bool:
    cls: Any = type(loss)
    return _written.get(cls) == _parts_of(cls) and not any(map(callable, vars(loss).values()))


class BinaryCrossentropy(_Crossentropy):
    """The cross-entropy of yes-or-no labels t and probabilities p of a yes, averaged over the last axis.

        loss = -mean(t * log(p) + (1 - t) * log(1 - p))     p = sigmoid(y_pred) if from_logits, else y_pred

    Label smoothing s replaces t by t * (1 - s) + s / 2. Logits of 1000 are safe. Probabilities are clipped to
    [1e-7, 1 - 1e-7], as in Keras; the gradient of one that is outside is 0. Training is spared that: of a model
    that ends in a sigmoid, `fit` takes the logits by itself.

    Shapes: labels and predictions (N, ..., K), losses (N, ...); (N,) counts as (N, 1). NaN in, NaN out.

    >>> round(BinaryCrossentropy()([0, 1, 0, 0], [0.4, 0.6, 0.1, 0.2]), 3)
    0.338

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        label_smoothing: s, from 0 to 1.
        axis: that of the average; it must be the last, -1.
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: labels of another shape than the predictions, or outside [0, 1].
    """

    probability_activation = "sigmoid"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def forward(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        t, y = self.prepare(y_true, y_pred)
        if self.from_logits:
            # -log(sigmoid(y)) = max(-y, 0) + log(1 + exp(-|y|)), and with -y for -log(1 - sigmoid(y)): neither
            # overflows, nor is a small loss the difference of two large numbers.
            yes, no, rest = np.maximum(-y, 0), np.maximum(y, 0), kernels.softplus(-np.abs(y))
            losses = (t * yes + (1 - t) * no + rest).mean(axis=-1)
            if np.isnan(losses).any():
                losses = (_times(t, yes) + _times(1 - t, no) + rest).mean(axis=-1)
            return losses
        p = _clip(y)
        return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=-1)

    def gradient(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        t, y = self.prepare(y_true, y_pred)
        if self.from_logits:
            return (kernels.sigmoid(y) - t) / y.shape[-1]
        p = _clip(y)
        return np.where(_is_clipped(y), 0, ((1 - t) / (1 - p) - t / p) / y.shape[-1]).astype(y.dtype, copy=False)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return the smoothed labels t and the predictions, both (N, ..., K)."""
        t, y_pred = super().prepare(y_true, y_pred)
        labels.probability_labels(t, self.name)
        s = self.label_smoothing
        return (t * (1 - s) + 0.5 * s if s else t), y_pred

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels have the shape of the predictions and values in [0, 1]."""
        labels.probability_labels(labels.same_shape(y_true, at_least_2d(output_shape), self.name), self.name)


# Not np.take_along_axis and np.put_along_axis, which take 8 us to make the same indices.


def _rows(values: Array) -> Array:
    """Return contiguous values (N, ..., classes) as a matrix, which shares their memory."""
    return values.reshape(-1, values.shape[-1])


def _places(classes: Array) -> tuple[Array, Array]:
    """Return the number of each row, and the column of its class, for classes (N, ...)."""
    return np.arange(classes.size), classes.reshape(-1)


def _at(classes: Array, log_p: Array) -> Array:
    """Return the numbers (N, ...) of log_p (N, ..., classes) at the classes (N, ...)."""
    return _rows(log_p)[_places(classes)].reshape(classes.shape)


def _less_one(p: Array, classes: Array) -> Array:
    """Return p (N, ..., classes), changed: less 1 at the classes (N, ...)."""
    _rows(p)[_places(classes)] -= 1
    return p


def _weighted_sum(t: Array, log_p: Array) -> Array:
    """Return the sum of t * log(p) over the classes, to which one with t = 0 adds 0 though its p may be 0."""
    total = (t * log_p).sum(axis=-1)
    return _times(t, log_p).sum(axis=-1) if np.isnan(total).any() else total


def _times(t: Array, cost: Array) -> Array:
    """Return t * cost, and 0 where that would be 0 times infinity."""
    return np.where((t == 0) & np.isinf(cost), 0, t * cost).astype(cost.dtype, copy=False)


def _normalise(y: Array) -> Array:
    # A row of zeros becomes NaN, as in Keras, and shows in the loss.
    with np.errstate(all="ignore"):
        return y / y.sum(axis=-1, keepdims=True)


def _clip(p: Array) -> Array:
    return np.clip(p, EPSILON, 1 - EPSILON)


def _is_clipped(p: Array) -> Array:
    # Written so that NaN is not.
    return (p < EPSILON) | (p > 1 - EPSILON)
