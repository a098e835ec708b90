"""Flatten: all axes but the batch become one."""

from __future__ import annotations

import math
from typing import Any

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting, image_layout
from cnnlite.types import Array, ArrayLike, Config, Shape


class Flatten(Layer):
    """Reshape (N, H, W, C) to (N, H * W * C); (N,) becomes (N, 1). dx is dy in the shape of x.

    Args:
        data_format: with "channels_first" the input (N, C, H, W) is transposed to (N, H, W, C) first, so that the
            layers above can use the same weights for both layouts; by default `cnnlite.config.image_data_format()`,
            "channels_last".
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.Flatten()(np.zeros((2, 4, 4, 3))).shape
    (2, 48)
    """

    data_format = Setting(image_layout)

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        y: Array = self.prepare(x)
        if self.data_format == "channels_first" and y.ndim > 2:
            y = kernels.moveaxis(y, 1, -1)
        if training:
            self.remember(y.shape)
        return y.reshape(self.compute_output_shape(y.shape))

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        dx = self.prepare_gradient(dy, self.compute_output_shape(shape)).reshape(shape)
        if self.data_format == "channels_first" and dx.ndim > 2:
            dx = kernels.moveaxis(dx, -1, 1)
        return dx

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sample = input_shape[1:]
        return (input_shape[0], None if None in sample else math.prod(sample))

    def get_config(self) -> Config:
        return {**super().get_config(), "data_format": self.data_format}
