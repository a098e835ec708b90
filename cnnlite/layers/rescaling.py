"""Rescaling: pixels from 0..255 to 0..1, say."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlite.arguments import float_array
from cnnlite.floating import arithmetic
from cnnlite.layers.base import Layer
from cnnlite.types import Array, ArrayLike, Config, Shape


class Rescaling(Layer):
    """y = x * scale + offset, in training and inference; dx = dy * scale.

    Args:
        scale: a number, or an array that broadcasts against x, such as one number for each channel.
        offset: the same (default 0).
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x and y any, the same.

    Raises:
        ValueError: scale or offset is not finite or, when the layer is built, doesn't broadcast against the input.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.Rescaling(1 / 127.5, offset=-1)(np.array([[0, 255]], np.uint8))
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, scale: ArrayLike, offset: ArrayLike = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = self._constant(scale, "scale")
        self.offset = self._constant(offset, "offset")

    def build(self, input_shape: Shape) -> None:
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            ends = tuple(input_shape[len(input_shape) - value.ndim:])
            if value.ndim > len(ends) or any(
                size not in (1, have) and have is not None for size, have in zip(value.shape, ends)
            ):
                raise ValueError(
                    f"{self.name}: {name} must be a number or broadcast against the input. "
                    f"Received: {name} of shape {value.shape}, an input of shape {tuple(input_shape)}."
                )
        super().build(input_shape)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        if training:
            self.remember(x.shape)
        with arithmetic():
            y = np.multiply(x, self.scale.astype(self.dtype), out=self.allocate("y", x.shape, training))
            y += self.offset.astype(self.dtype)
        return y

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        dy = self.prepare_gradient(dy, shape)
        with arithmetic():
            return np.multiply(dy, self.scale.astype(self.dtype), out=self.allocate("dx", shape))

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @staticmethod
    def _constant(value: ArrayLike, name: str) -> Array:
        value = np.array(float_array(value, np.float64, name, "Rescaling"))
        if not np.isfinite(value).all():
            raise ValueError(f"Rescaling: {name} must be finite. Received: {name}={value}.")
        return value
