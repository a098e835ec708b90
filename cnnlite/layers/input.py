"""Input: the shape of what goes into a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnlite.arguments import integer, shape_tuple
from cnnlite.types import DTypeLike


class InputLayer:
    """The shape of one sample, to open a `Sequential` with: it then builds its layers as they are added.

    `cnnlite.Input` is another name of this class.

    Args:
        shape: the shape without the batch axis, such as (28, 28, 1); None in it stands for any size.
        batch_size: the size of the batch, for your own use: a model takes any.
        dtype: the type of the data, for your own use: a model converts to the dtype of its first layer.
        name: a name, for your own use.

    Raises:
        ValueError: there is no shape.

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
        name: str | None = None,
    ) -> None:
        if shape is None:
            raise ValueError("Input: shape must be given. Received: shape=None. Pass one like shape=(28, 28, 1).")
        self.shape = shape_tuple(shape, "shape", "Input")
        self.batch_size = None if batch_size is None else integer(batch_size, "batch_size", "Input")
        self.dtype = None if dtype is None else np.dtype(dtype).name
        self.name = "input_layer" if name is None else name

    def __repr__(self) -> str:
        return f"<InputLayer shape={self.shape}>"


Input = InputLayer
