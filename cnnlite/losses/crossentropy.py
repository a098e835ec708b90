"""Cross-entropies: the losses of classifiers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from cnnlite import kernels
from cnnlite.data import labels
from cnnlite.losses.base import KernelLoss, Loss, at_least_2d
from cnnlite.support.arguments import boolean, number
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape


class _Crossentropy(KernelLoss):
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
    """The cross-entropy of one-hot labels t and class probabilities p.

        loss = -sum(t * log(p))     p = softmax(y_pred) if from_logits, else y_pred / sum(y_pred)

    Label smoothing s replaces t by t * (1 - s) + s / classes. From logits, the logarithm is computed as
    y - log(sum(exp(y))) with the largest logit subtracted first, so logits of 1000 are safe. Probabilities are
    clipped to [1e-7, 1 - 1e-7], as in Keras; the gradient of a clipped one is 0. Training avoids this: for a
    model that ends in a softmax, `fit` takes the logits automatically.

    Shapes: labels and predictions (N, ..., classes), losses (N, ...). NaN in, NaN out.

    >>> loss = CategoricalCrossentropy()
    >>> round(loss([[0, 1, 0], [0, 0, 1]], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]), 3)
    1.177

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        label_smoothing: s, from 0 to 1.
        axis: the axis of the classes; it must be -1, the last.
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: the labels differ in shape from the predictions, or lie outside [0, 1].
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

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        return kernels.crossentropy(y, t, self.from_logits, gradient)

    def prepare_targets(self, y_true: ArrayLike, output_shape: Shape, dtype: DTypeLike) -> Array:
        """Return the smoothed probabilities t (N, ..., classes)."""
        t = labels.probability_labels(labels.one_hot_labels(y_true, output_shape, self.name), self.name)
        return self._smooth(t.astype(dtype, copy=False))

    def _smooth(self, t: Array) -> Array:
        s = self.label_smoothing
        return t * (1 - s) + s / t.shape[-1] if s else t

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels are one-hot, (N, ..., classes), with values in [0, 1]."""
        labels.probability_labels(labels.one_hot_labels(y_true, output_shape, self.name), self.name)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """The cross-entropy of integer class labels and class probabilities p.

        loss = -log(p[label])     p = softmax(y_pred) if from_logits, else y_pred / sum(y_pred)

    It is `CategoricalCrossentropy` of the one-hot labels.

    Shapes: labels (N, ...) or (N, ..., 1), predictions (N, ..., classes), losses (N, ...).

    >>> loss = SparseCategoricalCrossentropy()
    >>> round(loss([1, 2], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]), 3)
    1.177

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        ignore_class: must be None; to ignore samples, give them sample_weight=0.
        reduction, name, dtype: see `Loss`.
        axis: the axis of the classes; it must be -1, the last.
        label_smoothing: s in t * (1 - s) + s / classes, from 0 to 1. Keras offers it for one-hot labels only.

    Raises:
        ValueError: the labels are one-hot, are not whole numbers, or are not among the classes.
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
                "To ignore samples, give them any valid label and sample_weight=0."
            )

    def prepare_targets(self, y_true: ArrayLike, output_shape: Shape, dtype: DTypeLike) -> Array:
        """Return the class indices, int64 (N, ...); with smoothing, or for probabilities, the labels of `prepare`."""
        classes = labels.integer_labels(y_true, output_shape, self.name).astype(np.int64, copy=False)
        # One-hot labels only where needed: they are as large as the logits, and there may be a million classes.
        if self.from_logits and not self.label_smoothing:
            return classes
        return self._one_hot(classes, output_shape[-1], dtype)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return the smoothed one-hot labels t and the predictions, both (N, ..., classes)."""
        t, y_pred = super().prepare(y_true, y_pred)
        return (t if t.dtype == y_pred.dtype else self._one_hot(t, y_pred.shape[-1], y_pred.dtype)), y_pred

    def _prepared(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Any, Any]:
        """Return what `prepare` returns if it is the user's own, else the labels as `prepare_targets` returns them."""
        prepares = super().prepare if type(self).prepare is _prepare and "prepare" not in vars(self) else self.prepare
        return prepares(y_true, y_pred)

    def _one_hot(self, classes: Array, count: int, dtype: DTypeLike) -> Array:
        t = np.zeros((classes.size, count), dtype)
        t[np.arange(classes.size), classes.reshape(-1)] = 1
        return self._smooth(t.reshape(*classes.shape, count))

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels are whole numbers from 0 to classes - 1, one for each sample."""
        labels.integer_labels(y_true, output_shape, self.name)


_prepare = SparseCategoricalCrossentropy.prepare


class BinaryCrossentropy(_Crossentropy):
    """The cross-entropy of binary labels t and probabilities p, averaged over the last axis.

        loss = -mean(t * log(p) + (1 - t) * log(1 - p))     p = sigmoid(y_pred) if from_logits, else y_pred

    Label smoothing s replaces t by t * (1 - s) + s / 2. Logits of 1000 are safe. Probabilities are clipped to
    [1e-7, 1 - 1e-7], as in Keras; the gradient of a clipped one is 0. Training avoids this: for a model that
    ends in a sigmoid, `fit` takes the logits automatically.

    Shapes: labels and predictions (N, ..., K), losses (N, ...); (N,) counts as (N, 1). NaN in, NaN out.

    >>> round(BinaryCrossentropy()([0, 1, 0, 0], [0.4, 0.6, 0.1, 0.2]), 3)
    0.338

    Args:
        from_logits: whether predictions are scores of any size rather than probabilities.
        label_smoothing: s, from 0 to 1.
        axis: the axis to average over; it must be -1, the last.
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: the labels differ in shape from the predictions, or lie outside [0, 1].
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

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        return kernels.binary_crossentropy(y, t, self.from_logits, gradient)

    def prepare_targets(self, y_true: ArrayLike, output_shape: Shape, dtype: DTypeLike) -> Array:
        """Return the smoothed labels t (N, ..., K)."""
        t = labels.probability_labels(super().prepare_targets(y_true, output_shape, dtype), self.name)
        s = self.label_smoothing
        return t * (1 - s) + 0.5 * s if s else t

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError unless labels have the shape of the predictions and values in [0, 1]."""
        labels.probability_labels(labels.same_shape(y_true, at_least_2d(output_shape), self.name), self.name)
