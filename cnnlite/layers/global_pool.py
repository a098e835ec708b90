"""Global pooling: one number per channel of an image, from the pooling kernels with one image-sized window."""

from __future__ import annotations

from typing import Any

from cnnlite import kernels
from cnnlite.layers.image import ImageLayer
from cnnlite.layers.pool import Window
from cnnlite.layers.settings import Setting
from cnnlite.support.arguments import boolean
from cnnlite.types import Array, ArrayLike, Config, Shape


class GlobalPool(ImageLayer):
    """The base class of the layers that reduce an image to one pixel; a subclass defines forward and backward."""

    keepdims = Setting(boolean)

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format, **kwargs)
        self.keepdims = keepdims

    @staticmethod
    def window(shape: Shape) -> Window:
        """Return (window, strides, pads) of the one window that covers images of shape (N, H, W, C)."""
        return (shape[1], shape[2]), (1, 1), ((0, 0), (0, 0))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, height, width, channels = self.split(input_shape)
        if 0 in (height, width):
            raise ValueError(f"{self.name}: the image must have at least one pixel. Received: shape={input_shape}.")
        return self.join(n, 1, 1, channels) if self.keepdims else (n, channels)

    def get_config(self) -> Config:
        return {"keepdims": self.keepdims, **super().get_config()}


class GlobalMaxPool(GlobalPool):
    """The maximum of each channel over the whole image.

    forward:   y[n, c] = max over (i, j) of x[n, i, j, c]
    backward:  dx = dy at the maximum, 0 elsewhere

    If values tie, the first in row-major order wins and gets the gradient. A channel that contains a NaN
    gives NaN.

    Args:
        data_format: "channels_last" or "channels_first"; None (default) uses `cnnlite.config.image_data_format()`.
        keepdims: True keeps the two axes of the image with size 1 (default False).
        **kwargs: name, dtype, trainable, input_shape.

    Input shape: (N, H, W, C), or (N, C, H, W) with "channels_first".
    Output shape: (N, C); with `keepdims` (N, 1, 1, C), or (N, C, 1, 1).

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.GlobalMaxPool()(np.arange(8).reshape(1, 2, 2, 2))
    array([[6., 7.]], dtype=float32)
    """

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        y, argmax = kernels.max_pool(x, *self.window(x.shape))
        if training:
            self.remember(argmax, x.shape)
        return y.reshape(self.compute_output_shape(self.join(*x.shape)))

    def backward(self, dy: Array) -> Array:
        argmax, x_shape = self.recall()
        dy = self.prepare_gradient(dy, self.compute_output_shape(self.join(*x_shape))).reshape(argmax.shape)
        return self.finish(kernels.max_pool_backward(dy, argmax, x_shape, *self.window(x_shape)))


class GlobalAveragePool(GlobalPool):
    """The mean of each channel over the whole image.

    forward:   y[n, c] = 1/(H·W) Σ x[n, i, j, c] over all pixels (i, j)
    backward:  dx[n, i, j, c] = dy[n, c] / (H·W)

    Args:
        data_format: "channels_last" or "channels_first"; None (default) uses `cnnlite.config.image_data_format()`.
        keepdims: True keeps the two axes of the image with size 1 (default False).
        **kwargs: name, dtype, trainable, input_shape.

    Input shape: (N, H, W, C), or (N, C, H, W) with "channels_first".
    Output shape: (N, C); with `keepdims` (N, 1, 1, C), or (N, C, 1, 1).

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.GlobalAveragePool()(np.arange(8).reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        y = kernels.average_pool(x, *self.window(x.shape))
        if training:
            self.remember(x.shape)
        return y.reshape(self.compute_output_shape(self.join(*x.shape)))

    def backward(self, dy: Array) -> Array:
        (x_shape,) = self.recall()
        dy = self.prepare_gradient(dy, self.compute_output_shape(self.join(*x_shape)))
        dy = dy.reshape(x_shape[0], 1, 1, x_shape[3])
        return self.finish(kernels.average_pool_backward(dy, x_shape, *self.window(x_shape)))
