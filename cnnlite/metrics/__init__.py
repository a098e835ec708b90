"""Metrics: what is reported about a model, but not trained for.

A metric takes one batch after another through `update_state` and keeps sums, so that `result` covers all samples
and a short last batch gets no extra weight. A batch of 0 samples changes nothing.
"""

from __future__ import annotations

from typing import Any

from cnnlite.losses import Loss
from cnnlite.metrics.accuracy import (
    AccuracyByForm,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from cnnlite.metrics.base import Mean, MeanMetricWrapper, Metric
from cnnlite.metrics.confusion import Precision, Recall
from cnnlite.metrics.of_logits import OfLogits, of_logits
from cnnlite.metrics.of_losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CrossentropyByForm,
    Huber,
    LossMetric,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Config

__all__ = [
    "AccuracyByForm",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CrossentropyByForm",
    "Huber",
    "LossMetric",
    "Mean",
    "MeanAbsoluteError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "Metric",
    "OfLogits",
    "Precision",
    "Recall",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "get",
    "serialize",
]

METRICS = {
    "accuracy": AccuracyByForm,
    "acc": AccuracyByForm,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "precision": Precision,
    "recall": Recall,
    "crossentropy": CrossentropyByForm,
    "ce": CrossentropyByForm,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
}


def get(identifier: Any, loss: Any = None) -> Metric:
    """Return the metric for a name, a config, a metric, a loss or a function.

    Args:
        identifier: a name such as "accuracy", which becomes the name of the metric; a `Metric`; a `Loss`
            or a function of your own, `fn(y_true, y_pred)`, whose mean is taken; or a saved config.
        loss: the loss that the model is trained with. If its predictions are logits, a metric given by name has the
            same value as for the probabilities: "accuracy", "precision" and the like then threshold binary
            predictions at 0, and cross-entropies are computed from logits. (Keras treats logits as probabilities.)
            A metric given as an object takes predictions as they are.

    Raises:
        ValueError: the name is not known; the message lists those that are.
        TypeError: it is none of the above.

    >>> get("acc").name
    'acc'
    """
    if isinstance(identifier, Loss):
        return LossMetric(identifier)
    # These can be read from a file, but not requested by name: they need their loss, function or metric.
    of_files = {"loss_metric": LossMetric, "mean_metric_wrapper": MeanMetricWrapper, "of_logits": OfLogits}
    table = {**METRICS, **of_files} if isinstance(identifier, dict) else METRICS
    metric = from_identifier(identifier, table, Metric, "metric")
    if isinstance(identifier, str):
        if getattr(loss, "from_logits", False):
            metric = of_logits(metric, getattr(loss, "probability_activation", None))
        metric.name = identifier
    return metric if isinstance(metric, Metric) else MeanMetricWrapper(metric)


def serialize(metric: Metric | None) -> Config | None:
    """Return {"class_name", "config"} for a metric, or None for None."""
    return to_config(metric)
