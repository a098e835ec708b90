"""Losses: how far predictions are from the truth, as one number to minimise, and its gradient.

`forward` computes the loss of every sample, a call averages it over the batch, and `backward` returns the gradient
with respect to the predictions. Each function returns what `forward` of the class of the same name returns.
"""

from __future__ import annotations

from typing import Any

from cnnlite.losses.base import Loss, is_as_written
from cnnlite.losses.base import is_traceable as is_traceable
from cnnlite.losses.crossentropy import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from cnnlite.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError
from cnnlite.support.floating import arithmetic
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Array, ArrayLike, Config

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "get",
    "huber",
    "mean_absolute_error",
    "mean_squared_error",
    "serialize",
    "sparse_categorical_crossentropy",
]

LOSSES = {
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
is_as_written.remember(LOSSES.values())


def _each(loss: Loss, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
    with arithmetic():
        return loss.forward(y_true, y_pred)


def categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Return the losses (N, ...) that `CategoricalCrossentropy` averages; the arguments are the same."""
    return _each(CategoricalCrossentropy(from_logits, label_smoothing, axis), y_true, y_pred)


def sparse_categorical_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Array:
    """Return the losses (N, ...) that `SparseCategoricalCrossentropy` averages; the arguments are the same."""
    return _each(SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis), y_true, y_pred)


def binary_crossentropy(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Array:
    """Return the losses (N, ...) that `BinaryCrossentropy` averages; the arguments are the same."""
    return _each(BinaryCrossentropy(from_logits, label_smoothing, axis), y_true, y_pred)


def mean_squared_error(y_true: ArrayLike, y_pred: ArrayLike) -> Array:
    """Return the losses (N, ...) that `MeanSquaredError` averages; the arguments are the same."""
    return _each(MeanSquaredError(), y_true, y_pred)


def mean_absolute_error(y_true: ArrayLike, y_pred: ArrayLike) -> Array:
    """Return the losses (N, ...) that `MeanAbsoluteError` averages; the arguments are the same."""
    return _each(MeanAbsoluteError(), y_true, y_pred)


def huber(y_true: ArrayLike, y_pred: ArrayLike, delta: float = 1.0) -> Array:
    """Return the losses (N, ...) that `Huber` averages; the arguments are the same."""
    return _each(Huber(delta), y_true, y_pred)


def get(identifier: Any) -> Loss:
    """Return the loss that a name ("mse", "categorical_crossentropy"), a config, or a loss stands for.

    A function of this module stands for the class of the same name, as in Keras scripts.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
        TypeError: a function of your own, which has no gradient.

    >>> get("mse").name
    'mean_squared_error'
    """
    if callable(identifier) and getattr(identifier, "__module__", None) == __name__:
        identifier = identifier.__name__
    loss = from_identifier(identifier, LOSSES, Loss, "loss")
    if not isinstance(loss, Loss):
        raise TypeError(
            f"loss must have a gradient, which a plain function lacks. Received: {identifier!r}. "
            "Subclass cnnlite.losses.Loss and define forward(y_true, y_pred) and gradient(y_true, y_pred)."
        )
    return loss


def serialize(loss: Loss | None) -> Config | None:
    """Return {"class_name", "config"} for a loss, or None for None."""
    return to_config(loss)
