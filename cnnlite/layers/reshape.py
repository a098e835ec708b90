"""Reshape: the same values in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting
from cnnlite.support.arguments import integer
from cnnlite.types import Array, ArrayLike, Config, Shape


def _target_shape(value: Any, name: str, owner: str) -> tuple[int, ...]:
    try:
        shape = tuple(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be a tuple of integers. Received: {name}={value!r}.") from None
    shape = tuple(integer(size, name, owner, minimum=-1) for size in shape)
    if shape.count(-1) > 1 or 0 in shape:
        raise ValueError(
            f"{owner}: {name} must hold positive integers, and -1 at most once. Received: {name}={shape}."
        )
    return shape


class Reshape(Layer):
    """Give each sample the shape `target_shape`, keeping its values in order. dx is dy in the shape of x.

    Args:
        target_shape: integers, without the batch axis; one may be -1 and is computed from the others.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x (N, ...), y (N, *target_shape).

    Raises:
        ValueError: the shape doesn't hold as many values as a sample has.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.Reshape((-1, 2, 2))(np.zeros((5, 12))).shape
    (5, 3, 2, 2)
    """

    target_shape = Setting(_target_shape)

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = target_shape

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)
        super().build(input_shape)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        if training:
            self.remember(x.shape)
        return x.reshape(self.compute_output_shape(x.shape))

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        return self.prepare_gradient(dy, self.compute_output_shape(shape)).reshape(shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *sample = input_shape
        if None in sample:
            return (batch, *(None if size == -1 else size for size in self.target_shape))
        size, known = math.prod(sample), math.prod(size for size in self.target_shape if size != -1)
        if size % known or (-1 not in self.target_shape and size != known):
            raise ValueError(
                f"{self.name}: target_shape must hold as many values as a sample, {size}. Received: "
                f"target_shape={self.target_shape}, a sample of shape {tuple(sample)}."
            )
        return (batch, *(size // known if target == -1 else target for target in self.target_shape))

    def get_config(self) -> Config:
        return {**super().get_config(), "target_shape": list(self.target_shape)}
