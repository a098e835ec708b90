"""Small helpers that training scripts use."""

from __future__ import annotations

import numpy as np

from cnnlite.nonfinite import NonFinite, find_nonfinite
from cnnlite.random import set_random_seed
from cnnlite.support.arguments import integer, real_array
from cnnlite.support.floating import arithmetic
from cnnlite.types import Array, ArrayLike

__all__ = ["NonFinite", "clear_session", "find_nonfinite", "normalize", "set_random_seed", "to_categorical"]


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> Array:
    """Return one-hot rows: 1 at the class of each label and 0 elsewhere.

    Args:
        x: whole numbers from 0 to num_classes - 1, of any shape; a last axis of size 1 is dropped.
        num_classes: the number of classes; by default the largest label plus 1.

    Returns:
        A float64 array, as in Keras, of the shape of x with a class axis appended.

    Raises:
        TypeError: x isn't numeric.
        ValueError: a label isn't whole, is negative, or isn't below `num_classes`.

    Example:

    >>> to_categorical([0, 2, 1])
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]])
    """
    given = real_array(x, "x", "to_categorical")
    _check(np.isfinite(given) & (given == np.floor(given)), given, "must be whole numbers")
    _check(given >= 0, given, "must be at least 0")
    if num_classes is not None:
        num_classes = integer(num_classes, "num_classes", "to_categorical")
        _check(given < num_classes, given, f"must be less than num_classes={num_classes}")
    elif given.size == 0:
        raise ValueError("to_categorical: x is empty, so num_classes can't be found from it. Pass num_classes.")
    labels = given.astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    one_hot = np.zeros((labels.size, num_classes or int(labels.max()) + 1))
    one_hot[np.arange(labels.size), labels.ravel()] = 1
    return one_hot.reshape(*labels.shape, one_hot.shape[1])


def normalize(x: ArrayLike, axis: int = -1, order: float = 2) -> Array:
    """Return x divided by its norm along an axis; where the norm is 0, x stays as it is.

    Args:
        x: an array of numbers; integers give float64.
        axis: the axis along which norms are taken.
        order: which norm: 2 (default) is the root of the sum of squares, 1 the sum of absolute values.

    Example:

    >>> normalize([[3, 4], [0, 0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    x = np.atleast_1d(real_array(x, "x", "normalize"))
    # In float64, because along any axis but the last, NumPy's sums are naive, one term after another.
    exact = x.astype(np.float64) if x.dtype == np.float32 else x
    with arithmetic():
        norms = np.linalg.norm(exact, ord=order, axis=axis, keepdims=True)
        y = exact / np.where(norms == 0, 1, norms)
        return y if exact is x else y.astype(x.dtype)


def clear_session() -> None:
    """Do nothing: there is no session. Keras scripts call this between models."""


def _check(holds: Array, labels: Array, rule: str) -> None:
    """Raise a ValueError that names the first label that breaks the rule."""
    if not np.all(holds):
        wrong = np.flatnonzero(~np.atleast_1d(holds))[0]
        raise ValueError(f"to_categorical: labels {rule}. Received: {np.ravel(labels)[wrong]} at position {wrong}.")
