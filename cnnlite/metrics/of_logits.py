"""Metrics of probabilities, for models whose outputs are logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlite import kernels
from cnnlite.metrics.accuracy import AccuracyByForm, BinaryAccuracy
from cnnlite.metrics.base import Metric
from cnnlite.metrics.confusion import Precision, Recall
from cnnlite.metrics.of_losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CrossentropyByForm,
    SparseCategoricalCrossentropy,
)
from cnnlite.support.arguments import float_array, one_of
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

_ACTIVATIONS: dict[str, Callable[..., Array]] = {"sigmoid": kernels.sigmoid, "softmax": kernels.softmax}

# Straight from the logits, which is exact even where the probability would round: sigmoid(z) > 0.5 is z > 0.
_FROM_LOGITS: dict[str, dict[type[Metric], dict[str, Any]]] = {
    "sigmoid": {
        AccuracyByForm: {"from_logits": True}, BinaryAccuracy: {"threshold": 0.0},
        Precision: {"thresholds": 0.0}, Recall: {"thresholds": 0.0},
        BinaryCrossentropy: {"from_logits": True}, CrossentropyByForm: {"from_logits": True},
    },
    "softmax": {
        AccuracyByForm: {"from_logits": True}, CategoricalCrossentropy: {"from_logits": True},
        SparseCategoricalCrossentropy: {"from_logits": True}, CrossentropyByForm: {"from_logits": True},
    },
}
_OF_ITS_KIND = {**_FROM_LOGITS["softmax"], **_FROM_LOGITS["sigmoid"]}
_OF_PROBABILITIES = {cls.__name__: cls for metrics in _FROM_LOGITS.values() for cls in metrics}


def of_logits(metric: Metric, activation: Any) -> Metric:
    """Return a metric whose value for logits is the value of `metric` for the probabilities.

    Metrics that have the same value for both, or that are not about probabilities, are returned unchanged.

    Args:
        metric: a metric with the defaults of its class.
        activation: "sigmoid" or "softmax", which turns the logits into probabilities. If the loss names neither,
            each metric assumes the one that suits its own kind of labels.
    """
    cls = type(metric)
    from_logits = _FROM_LOGITS[activation] if activation in _ACTIVATIONS else _OF_ITS_KIND
    if cls in from_logits:
        return cls(**from_logits[cls])
    return OfLogits(metric, activation) if cls in _OF_PROBABILITIES.values() else metric


class OfLogits(Metric):
    """A metric of probabilities, for predictions that are logits, which go through an activation first.

    Args:
        metric: the metric, or its config.
        activation: "sigmoid" or "softmax", over the last axis.
        name: by default the metric's name.
        dtype: see `Metric`.

    >>> metric = OfLogits(Precision(), "softmax")
    >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[-1.0, 3.0, 0.5], [0.2, 0.1, 0.3]])
    >>> metric.result()
    1.0
    """

    def __init__(
        self, metric: Any, activation: str, name: str | None = None, dtype: DTypeLike | None = None
    ) -> None:
        self.metric: Metric = from_identifier(metric, _OF_PROBABILITIES, Metric, "metric")
        self.activation = one_of(activation, tuple(_ACTIVATIONS), "activation", "OfLogits")
        super().__init__(dtype, self.metric.name if name is None else name)

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        self.metric.check(y_true, output_shape)

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        logits = float_array(y_pred, None, "y_pred", self.name)
        logits = logits if logits.dtype.kind == "f" else logits.astype(np.float64)
        self.metric.update_state(y_true, _ACTIVATIONS[self.activation](logits), sample_weight)

    def result(self) -> float:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()

    def get_config(self) -> Config:
        return {**super().get_config(), "metric": to_config(self.metric), "activation": self.activation}
