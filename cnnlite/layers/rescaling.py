"""Rescaling: pixels from 0..255 to 0..1, say."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting, image_layout
from cnnlite.support.arguments import float_array
from cnnlite.support.floating import arithmetic
from cnnlite.types import Array, ArrayLike, Config, Shape


def _constant(value: Any, name: str, owner: str) -> Array:
    value = np.array(float_array(value, np.float64, name, owner))
    if not np.isfinite(value).all():
        raise ValueError(f"{owner}: {name} must be finite. Received: {name}={value}.")
    value.flags.writeable = False
    return value


class Rescaling(Layer):
    """y = x * scale + offset, in training and inference; dx = dy * scale.

    Args:
        scale: a number, or an array that broadcasts against x, such as one number for each channel.
        offset: likewise (default 0).
        **kwargs: name, dtype, trainable, input_shape, see `Layer`; and data_format, by default
            `cnnlite.config.image_data_format()`, which is "channels_last". With "channels_first" the first axis of an
            array is the channel axis of images (N, C, H, W).

    Attributes:
        scale, offset: read-only float64 arrays; assign new ones to change them.

    Shapes: x any, y the same.

    Raises:
        ValueError: scale or offset is not finite or, when the layer is built, doesn't broadcast against the input.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.Rescaling(1 / 127.5, offset=-1)(np.array([[0, 255]], np.uint8))
    array([[-1.,  1.]], dtype=float32)
    """

    scale = Setting(_constant)
    offset = Setting(_constant)
    data_format = Setting(image_layout)

    def __init__(self, scale: ArrayLike, offset: ArrayLike = 0.0, **kwargs: Any) -> None:
        data_format = kwargs.pop("data_format", None)
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self.data_format = data_format

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.scale.flags.writeable = self.offset.flags.writeable = False  # copying an array makes it writeable

    def check_settings(self) -> None:
        if self.input_shape is not None:
            self.constants(self.input_shape)

    def build(self, input_shape: Shape) -> None:
        self.constants(input_shape)
        super().build(input_shape)

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        scale, offset = self.constants(x.shape)
        if training:
            self.remember(x.shape)
        return kernels.add(kernels.multiply(x, scale), offset)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        dy = self.prepare_gradient(dy, shape)
        return kernels.multiply(dy, self.constants(shape)[0])

    def constants(self, input_shape: Shape) -> tuple[Array, Array]:
        """Return scale and offset in the layer's dtype, shaped to broadcast against an input of that shape."""
        with arithmetic():
            return self._aligned(self.scale, "scale", input_shape), self._aligned(self.offset, "offset", input_shape)

    @property
    def is_traceable(self) -> bool:
        """Whether the constants are the same for all samples."""
        axes = 0 if self.input_shape is None else len(self.input_shape)
        return all(value.ndim < axes or value.shape[:1] == (1,) for value in (self.scale, self.offset))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self.constants(input_shape)
        return tuple(input_shape)

    def get_config(self) -> Config:
        constants = {"scale": self.scale.tolist(), "offset": self.offset.tolist()}
        return {**super().get_config(), **constants, "data_format": self.data_format}

    def _aligned(self, value: Array, name: str, input_shape: Shape) -> Array:
        axes = len(input_shape)
        if self.data_format == "channels_first" and 0 < value.ndim < axes - 1:
            value = value.reshape(value.shape + (1,) * (axes - 1 - value.ndim))
        ends = input_shape[axes - value.ndim:]
        if value.ndim > axes or any(
            size not in (1, have) and have is not None for size, have in zip(value.shape, ends)
        ):
            raise ValueError(
                f"{self.name}: {name} must be a number or broadcast against the input. "
                f"Received: {name} of shape {value.shape}, an input of shape {tuple(input_shape)}."
            )
        return value.astype(self.dtype)
