"""Input: the shape of what goes into a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite.support.arguments import integer, shape_tuple, text
from cnnlite.types import DTypeLike


class InputLayer:
    """The shape of one sample, to start a `Sequential` with, which then builds its layers as they are added.

    `cnnlite.Input` is another name for this class.

    Args:
        shape: the shape without the batch axis, such as (28, 28, 1); None in it stands for any size.
        batch_size: the size of the batch, for your own use: a model takes any.
        dtype: the type of the data, for your own use: a model converts to the dtype of its first layer.
        batch_shape: the shape with the batch axis, such as (None, 28, 28, 1), instead of `shape` and `batch_size`.
        input_shape: another name for `shape`, which older Keras scripts use.
        name: a name, for your own use.

    Raises:
        ValueError: there is no shape, or more than one; the batch size is given twice; a size is not positive.
        TypeError: a size is not an integer, or dtype is not a dtype.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Input(shape=(28, 28, 1))
    <InputLayer shape=(28, 28, 1)>
    """

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: DTypeLike | None = None,
        *,
        batch_shape: Sequence[int | None] | None = None,
        input_shape: Sequence[int | None] | int | None = None,
        name: str | None = None,
    ) -> None:
        if shape is not None and batch_shape is input_shape is None:
            sample = shape
        elif input_shape is not None and shape is batch_shape is None:
            sample = input_shape
        elif batch_shape is not None and shape is input_shape is None:
            batch_size, sample = _split(batch_shape, batch_size)
        else:
            raise ValueError(
                f"Input: shape must be given exactly once. Received: shape={shape}, batch_shape={batch_shape}, "
                f"input_shape={input_shape}. Pass one like shape=(28, 28, 1)."
            )
        self.shape = shape_tuple(sample, "shape", "Input")
        self.batch_size = None if batch_size is None else integer(batch_size, "batch_size", "Input")
        self.dtype = None if dtype is None else _dtype_name(dtype)
        self.name = "input_layer" if name is None else text(name, "name", "Input")

    def __repr__(self) -> str:
        return f"<InputLayer shape={self.shape}>"


def _split(batch_shape: Any, batch_size: Any) -> tuple[Any, Sequence[int | None]]:
    """Split `batch_shape` into the batch size and the shape of a sample."""
    if batch_size is not None:
        raise ValueError(
            "Input: batch_size must not be given with batch_shape, which includes it. "
            f"Received: batch_size={batch_size!r}, batch_shape={batch_shape!r}. Pass shape and batch_size instead."
        )
    if not isinstance(batch_shape, Sequence) or isinstance(batch_shape, str) or not batch_shape:
        raise ValueError(
            "Input: batch_shape must be a tuple that starts with the batch, such as (None, 28, 28, 1). "
            f"Received: batch_shape={batch_shape!r}."
        )
    return batch_shape[0], batch_shape[1:]


def _dtype_name(dtype: DTypeLike) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        raise TypeError(f"Input: dtype must be a NumPy dtype, such as 'float32'. Received: dtype={dtype!r}.") from None


Input = InputLayer
