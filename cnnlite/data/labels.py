"""Checks of labels and sample weights. Every error says what is wrong and how to fix it.

They read an array once or twice without copying it, so `fit` can afford to check all its labels. An entry
of `shape` that is None (the batch axis) accepts any size.
"""

from __future__ import annotations

import numpy as np

from cnnlite.support.arguments import float_array
from cnnlite.types import Array, ArrayLike, Shape

_BLOCK = 1 << 16


def number_array(values: ArrayLike, name: str, owner: str) -> Array:
    """Return `values` as an array of real numbers; the dtype is kept."""
    return float_array(values, None, name, owner)


def same_shape(y_true: ArrayLike, shape: Shape, owner: str) -> Array:
    """Return the labels in the shape of the predictions, (N, ..., K).

    As in Keras, (N,) counts as (N, 1) and (N, 1) as (N,). Nothing else is broadcast.

    Raises:
        ValueError: the shapes differ.
    """
    y_true = number_array(y_true, "y_true", owner)
    aligned = y_true
    if y_true.ndim + 1 == len(shape) and shape[-1] == 1:
        aligned = y_true[..., np.newaxis]
    elif y_true.ndim == len(shape) + 1 and y_true.shape[-1] == 1:
        aligned = y_true[..., 0]
    if not _fits(aligned.shape, shape):
        raise ValueError(
            f"{owner}: y_true must have the shape of the predictions, {_text(shape)}. "
            f"Received: y_true.shape={y_true.shape}. Reshape the labels, or change the units of the last layer."
        )
    return aligned


def finite_labels(y_true: Array, owner: str) -> None:
    """Check that no label is NaN or infinite."""
    low, high = _extent(y_true)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"{owner}: y_true must hold finite numbers. Received: labels from {low} to {high}. "
            "Remove the samples without a label, or give them any label and sample_weight=0."
        )


def probability_labels(y_true: Array, owner: str) -> Array:
    """Return the labels if every one is a probability, at least 0 and at most 1; a ValueError otherwise."""
    low, high = _extent(y_true)
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{owner}: y_true must be between 0 and 1. Received: labels from {low} to {high}. "
            "Divide pixels by 255, or turn labels of -1 and 1 into 0 and 1 with (y + 1) / 2."
        )
    return y_true


def one_hot_labels(y_true: ArrayLike, shape: Shape, owner: str) -> Array:
    """Return labels with one number per class, as `to_categorical` makes them, of shape (N, ..., classes).

    Raises:
        ValueError: the shape differs; integer labels, say.
    """
    y_true = number_array(y_true, "y_true", owner)
    several_classes(shape, owner)
    if not _fits(y_true.shape, shape):
        classes = shape[-1]
        if _fits(y_true.shape, shape[:-1]) or _fits(y_true.shape, (*shape[:-1], 1)):
            remedy = f"Use SparseCategoricalCrossentropy, or cnnlite.utils.to_categorical(y, {classes})."
        else:
            remedy = f"There must be a row for each sample and a column for each of the last layer's {classes} units."
        raise ValueError(
            f"{owner}: y_true must be one-hot, with the shape of the predictions, {_text(shape)}. "
            f"Received: y_true.shape={y_true.shape}. {remedy}"
        )
    return y_true


def integer_labels(y_true: ArrayLike, shape: Shape, owner: str) -> Array:
    """Return integer class labels of shape (N, ...), given in that shape or as (N, ..., 1).

    Whole numbers in an array of floats are accepted, as in Keras; the dtype is kept.

    Args:
        y_true: the labels.
        shape: the shape of the predictions, (N, ..., classes).
        owner: the loss or metric that opens the errors.

    Raises:
        ValueError: the shape differs (one-hot labels, say), or a label is not a whole number or not a class.
    """
    y_true = number_array(y_true, "y_true", owner)
    several_classes(shape, owner)
    classes = shape[-1]
    labels = y_true[..., 0] if y_true.ndim == len(shape) and y_true.shape[-1] == 1 else y_true
    if not _fits(labels.shape, shape[:-1]):
        remedy = "There must be one label per sample."
        if _fits(labels.shape, shape):
            remedy = "If they are one-hot, use CategoricalCrossentropy, or y.argmax(axis=-1)."
        raise ValueError(
            f"{owner}: y_true must hold one integer class per sample, shape {_text(shape[:-1])}. "
            f"Received: y_true.shape={y_true.shape}. {remedy}"
        )
    if labels.dtype.kind == "f":
        _whole_numbers(labels, owner)
    low, high = _extent(labels)
    if low < 0 or high >= classes:
        worst = low if low < 0 else high
        raise ValueError(
            f"{owner}: labels must be at least 0 and less than {classes}, the number of classes in the "
            f"predictions. Received: the label {worst}. "
            "Count the classes from 0, or give the last layer more units."
        )
    return labels


def several_classes(shape: Shape, owner: str) -> None:
    """Check that predictions of `shape` are scores of at least two classes."""
    if len(shape) < 2 or shape[-1] < 2:
        raise ValueError(
            f"{owner}: the predictions must have the shape (N, ..., classes) with at least 2 classes. "
            f"Received: y_pred.shape={_text(shape)}. For a single unit use BinaryCrossentropy or BinaryAccuracy."
        )


def weights_for(shape: Shape, sample_weight: ArrayLike, owner: str) -> Array:
    """Return sample weights, one per sample or per value, in a shape that broadcasts against values of `shape`.

    Args:
        shape: the shape of the values, (N, ...).
        sample_weight: a number, or an array whose shape is a prefix of `shape`; trailing axes of size 1 don't count.
        owner: the caller, which opens the errors.
    """
    weight = leading_weights(shape, sample_weight, owner)
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))


def leading_weights(shape: Shape, sample_weight: ArrayLike, owner: str) -> Array:
    """Return what `weights_for` returns, in a shape that is a prefix of `shape`; () for a number."""
    weight = number_array(sample_weight, "sample_weight", owner)
    given = weight.shape
    while weight.ndim > 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    if weight.shape != shape[: weight.ndim]:
        values = "" if len(shape) == 1 else f", or one per value, shape {shape}"
        raise ValueError(
            f"{owner}: sample_weight must have one number per sample, shape {shape[:1]}{values}. "
            f"Received: sample_weight.shape={given}."
        )
    return weight


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(e is None or s == e for s, e in zip(shape, expected))


def _text(shape: Shape) -> str:
    sizes = ["N" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _extent(values):
    """Return the smallest and the largest value; NaN for both if any is NaN, 0 for both if there are no values."""
    if values.size == 0:
        return 0, 0
    return values.min(), values.max()


def _whole_numbers(labels: Array, owner: str) -> None:
    flat = labels.reshape(-1)
    # In blocks: the floor of all labels at once would take as much memory again as the labels.
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        wrong = np.floor(block) != block
        if wrong.any():
            raise ValueError(
                f"{owner}: labels must be whole numbers, the classes counted from 0. "
                f"Received: the label {block[wrong][0]}. Round them, or remove the samples without a label."
            )
