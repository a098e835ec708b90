"""Precision and recall: the fraction of predicted, and of actual, positives that are true positives."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from cnnlite.data import labels
from cnnlite.metrics.base import Metric
from cnnlite.support.arguments import float_array, integer, number
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape


class _Confusion(Metric):
    """Counts, for each threshold, of the true positives and of the predictions that `counted` selects."""

    def __init__(
        self,
        thresholds: float | Iterable[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        owner = type(self).__name__
        super().__init__(dtype, owner.lower() if name is None else name)
        self.given_thresholds = thresholds
        if thresholds is None:
            thresholds = 0.5 if top_k is None else -np.inf
            self.thresholds = [thresholds]
        else:
            several = list(thresholds) if isinstance(thresholds, Iterable) else [thresholds]
            self.thresholds = [number(threshold, "thresholds", owner, minimum=0) for threshold in several]
            if not self.thresholds or max(self.thresholds) > 1:
                raise ValueError(
                    f"{owner}: thresholds must be one or more numbers between 0 and 1. "
                    f"Received: thresholds={thresholds!r}."
                )
        self.top_k = None if top_k is None else integer(top_k, "top_k", owner)
        self.class_id = None if class_id is None else integer(class_id, "class_id", owner, minimum=0)
        self.reset_state()

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        labels.probability_labels(labels.same_shape(y_true, output_shape, self.name), self.name)

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Count predictions (N, ..., K), with one weight per sample or per prediction."""
        y_pred = float_array(y_pred, None, "y_pred", self.name)
        y_true = labels.same_shape(y_true, y_pred.shape, self.name)
        labels.probability_labels(y_true, self.name)
        selected = ~np.isnan(y_pred)
        if self.top_k is not None:
            selected &= _top_k_mask(y_pred, self.top_k)
        weight = np.ones((1,) * y_pred.ndim)
        if sample_weight is not None:
            weight = labels.weights_for(y_pred.shape, sample_weight, self.name)
        weight = np.broadcast_to(weight, y_pred.shape)
        if self.class_id is not None:
            if y_pred.ndim < 2 or self.class_id >= y_pred.shape[-1]:
                raise ValueError(
                    f"{self.name}: class_id must be less than the size of the last axis of the predictions. "
                    f"Received: class_id={self.class_id}, y_pred.shape={y_pred.shape}."
                )
            y_true, y_pred = y_true[..., self.class_id], y_pred[..., self.class_id]
            selected, weight = selected[..., self.class_id], weight[..., self.class_id]
        is_positive = y_true != 0
        for i, threshold in enumerate(self.thresholds):
            said_positive = selected & (y_pred > threshold)
            self.true_positives[i] += weight[said_positive & is_positive].sum(dtype=np.float64)
            self.total[i] += weight[self.counted(is_positive, said_positive)].sum(dtype=np.float64)

    def counted(self, is_positive: Array, said_positive: Array) -> Array:
        """Return which predictions count in the divisor."""
        raise NotImplementedError

    def result(self) -> float | Any:
        """Return a float, or an array with one number per threshold if there are several."""
        value = np.divide(self.true_positives, self.total, out=np.zeros_like(self.total), where=self.total != 0)
        return float(value[0]) if len(value) == 1 else value

    def reset_state(self) -> None:
        self.true_positives = np.zeros(len(self.thresholds))
        self.total = np.zeros(len(self.thresholds))

    def get_state(self) -> Config:
        return {"true_positives": self.true_positives, "total": self.total}

    def get_config(self) -> Config:
        thresholds = self.given_thresholds
        if thresholds is not None and not isinstance(thresholds, numbers.Real):
            thresholds = self.thresholds
        return {**super().get_config(), "thresholds": thresholds, "top_k": self.top_k, "class_id": self.class_id}


class Precision(_Confusion):
    """true positives / (true positives + false positives); 0.0 if nothing was predicted positive.

    A prediction is positive if it is above a threshold and, with `top_k`, among the k largest of its sample (the
    first ones, if some tie). A NaN is not positive. A label is positive if it is not 0.

    Shapes: labels and predictions (N,) or (N, ..., K), the labels one-hot if the K are classes.

    >>> metric = Precision()
    >>> metric.update_state([0, 1, 1, 1], [1, 0, 1, 1])
    >>> round(metric.result(), 4)
    0.6667

    Args:
        thresholds: a number between 0 and 1 (default 0.5, or none with `top_k`), or a list of them, which
            makes the result an array. 0 suits logits.
        top_k: how many predictions per sample can be positive; None (default) for any number.
        class_id: the only class to look at; None (default) for all.
        name, dtype: see `Metric`.

    Raises:
        ValueError: a threshold or a label is outside [0, 1], or labels and predictions differ in shape.
    """

    def counted(self, is_positive: Array, said_positive: Array) -> Array:
        return said_positive


class Recall(_Confusion):
    """true positives / (true positives + false negatives); 0.0 if no label is positive.

    Shapes, arguments and what is positive: as for `Precision`.

    >>> metric = Recall()
    >>> metric.update_state([0, 1, 1, 1], [1, 0, 1, 1])
    >>> round(metric.result(), 4)
    0.6667
    """

    def counted(self, is_positive: Array, said_positive: Array) -> Array:
        return is_positive


def _top_k_mask(y_pred: Array, k: int) -> Array:
    # Stable, so that among equal predictions the first are taken; NaN sorts last.
    order = np.argsort(-y_pred, axis=-1, kind="stable")[..., :k]
    mask = np.zeros(y_pred.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask
