"""Checks of the samples that users train on: errors are raised before anything is changed.

Each check reads the whole array once, in pieces where it would otherwise need as much memory again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnlite.support.arguments import integer, real_array
from cnnlite.support.floating import arithmetic, conversion
from cnnlite.types import Array, ArrayLike

PIECE = 1 << 18  # numbers checked at a time; a piece of float32 is 1 MB and stays in cache


def checked_samples(
    model: Any,
    x: ArrayLike,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[int, float] | None = None,
    owner: str = "fit",
) -> tuple[Array, Array, Array | None]:
    """Return (x, y, sample_weight) as matching arrays that the model and its loss can take.

    x and y keep their dtype, and are not copied if they are arrays already. sample_weight is an array (N,) of the
    model's dtype, the weight of each sample times the weight of its class, or None.

    Raises:
        TypeError: text, objects or complex numbers.
        ValueError: no samples; lengths that differ; a sample of the wrong shape; a NaN or an infinity; labels
            that do not fit the loss; weights that are negative or of a class that does not exist.
    """
    if y is None:  # checked first, as a list of batches is not an array
        raise ValueError(
            f"{owner}: y must be given, one target for each sample. Received: y=None. "
            f"Pass {owner}(x, y), or let a generator yield (x, y)."
        )
    x = number_array(x, "x", owner)
    y = number_array(y, "y", owner)
    check_same_length(x, y, "y", owner)
    output_shape = output_shape_for(model, x.shape, owner)
    check_finite(x, "x", owner, model.dtype)
    check_finite(y, "y", owner)
    model.loss.check(y, output_shape)
    for metric in model.metrics:
        metric.check(y, output_shape)
    return x, y, _combined_weights(y, sample_weight, class_weight, output_shape, model.dtype, owner)


def number_array(values: ArrayLike, name: str, owner: str) -> Array:
    """Return `values` as an array of real numbers with at least one sample, without a copy if it already is one."""
    array = real_array(values, name, owner)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{owner}: {name} must hold at least one sample. Received: shape={array.shape}.")
    return array


def output_shape_for(model, shape, owner):
    """Return the model's output shape for an x of `shape`; a ValueError if the model can't take such an x."""
    expected = model.input_shape
    if expected is None:
        if model.given_input_shape is None:
            return model.compute_output_shape((None, *shape[1:]))
        expected = (None, *model.given_input_shape)
    if not _fits(shape, expected):
        hint = ""
        if model.given_input_shape is None:  # then the layers decide
            try:
                return model.compute_output_shape((None, *shape[1:]))
            except ValueError as error:
                hint = f" {error}"
        if _fits((*shape, 1), expected):
            hint = " Add a channel axis: x[..., np.newaxis]."
        elif _fits((1, *shape), expected):
            hint = " Add a batch axis: x[np.newaxis]."
        raise ValueError(f"{owner}: x must have the shape {expected}. Received: shape={tuple(shape)}.{hint}")
    return model.compute_output_shape((None, *shape[1:]))


def _fits(shape, expected):
    return len(shape) == len(expected) and all(wanted in (None, size) for size, wanted in zip(shape, expected))


def check_finite(array, name, owner, dtype=None):
    """Raise a ValueError that names the first number, if any, that is not finite, or would not be in `dtype`."""
    if array.dtype.kind != "f" or array.size == 0:
        return
    rows = max(1, PIECE // max(1, array[0].size))
    for start in range(0, len(array), rows):
        with np.errstate(all="ignore"):
            piece = array[start : start + rows].astype(dtype or array.dtype, copy=False)
            # Finite only if all of them are; otherwise look closely.
            if np.isfinite(piece.max() - piece.min()):
                continue
        bad = np.argwhere(~np.isfinite(piece))
        if len(bad):
            index = (start + int(bad[0][0]), *(int(i) for i in bad[0][1:]))
            limit = f", within the range of {piece.dtype}" if np.isfinite(array[index]) else ""
            raise ValueError(
                f"{owner}: {name} must hold finite numbers only{limit}. Received: {array[index]} at "
                f"{name}[{', '.join(map(str, index))}]. Remove or replace it, for example by np.nan_to_num({name})."
            )


def check_same_length(x, other, name, owner):
    """Raise a ValueError if two arrays do not hold the same number of samples."""
    if len(other) != len(x):
        raise ValueError(
            f"{owner}: x and {name} must have the same number of samples. "
            f"Received: {len(x)} in x, {len(other)} in {name}."
        )


def _combined_weights(y, sample_weight, class_weight, output_shape, dtype, owner):
    weights = None
    if sample_weight is not None:
        weights = number_array(sample_weight, "sample_weight", owner)
        check_same_length(y, weights, "sample_weight", owner)
        if weights.size != len(weights):
            raise ValueError(
                f"{owner}: sample_weight must be one number for each sample. Received: shape={weights.shape}."
            )
        with conversion():
            weights = weights.reshape(-1).astype(dtype)
        check_finite(weights, "sample_weight", owner)
        if weights.min() < 0:
            index = int(weights.argmin())
            raise ValueError(
                f"{owner}: sample_weight must be at least 0. "
                f"Received: {weights[index]} at sample_weight[{index}]."
            )
    if class_weight is not None:
        by_class = _weights_by_class(y, class_weight, output_shape, owner)
        with conversion():
            weights = by_class.astype(dtype) if weights is None else weights * by_class.astype(dtype)
    return weights


def _weights_by_class(y, class_weight, output_shape, owner):
    """Return the class weight of each sample; a row of probabilities counts as the class of its largest entry."""
    if not isinstance(class_weight, dict):
        raise TypeError(
            f"{owner}: class_weight must be a dict from class to weight. Received: {class_weight!r}."
        )
    labels = _one_class_each(y, owner)
    last = max(2, output_shape[-1] or 2) - 1
    for key, value in class_weight.items():
        if isinstance(key, bool) or not isinstance(key, (int, np.integer)) or not 0 <= key <= last:
            raise ValueError(
                f"{owner}: the keys of class_weight must be classes, from 0 to {last}. Received: {key!r}."
            )
        if not isinstance(value, (int, float, np.floating, np.integer)) or not 0 <= value < np.inf:
            raise ValueError(
                f"{owner}: the weights of class_weight must be numbers of at least 0. Received: {key}: {value!r}."
            )
    table = np.full(last + 1, np.nan)
    table[list(class_weight)] = list(class_weight.values())
    with arithmetic():  # a number may be too large for a label
        whole = np.rint(labels).astype(np.int64)
    unknown = (whole < 0) | (whole > last)
    weights = table[np.where(unknown, 0, whole)]
    weights[unknown] = np.nan
    if np.isnan(weights).any():
        missing = labels[np.isnan(weights)][0]
        raise ValueError(
            f"{owner}: class_weight must have a weight for each class in y. Received: the label {missing} and the "
            f"keys {sorted(class_weight)}. Add {missing}: 1.0 to leave its samples as they are."
        )
    return weights


def _one_class_each(y, owner):
    """Return the class (N,) of each sample; a ValueError if a sample has several classes, or none."""
    remedy = "Weight the samples themselves: sample_weight=, one number for each."
    if y.ndim == 2 and y.shape[1] > 1:
        # One-hot, or smoothed: a row with several ones, or none, does not hold probabilities of classes.
        wrong = (y.min(axis=1) < 0) | (abs(y.sum(axis=1, dtype=np.float64) - 1) > 1e-3)
        labels = y.argmax(axis=1)
        rule = "class_weight needs one class for each sample, so each row of y must be one-hot"
    elif y.size == len(y):
        labels = y.reshape(-1)
        wrong = labels != np.rint(labels)
        rule = "class_weight needs classes, so y must be whole numbers"
    else:
        raise ValueError(
            f"{owner}: class_weight needs one label for each sample. Received: y of shape {y.shape}. {remedy}"
        )
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"{owner}: {rule}. Received: {y[index].tolist()} at y[{index}]. {remedy}")
    return labels


def optional_integer(value: Any, name: str, owner: str) -> int | None:
    """Return None, or `value` as an int of at least 1."""
    return None if value is None else integer(value, name, owner)
