"""Flatten: all axes but the batch become one."""

import math

from cnnlite import config
from cnnlite.arguments import one_of
from cnnlite.layers.base import Layer


class Flatten(Layer):
    """Reshape (N, H, W, C) to (N, H * W * C); (N,) becomes (N, 1). dx is dy in the shape of x.

    Args:
        data_format: with "channels_first" the input (N, C, H, W) is brought to (N, H, W, C) before, so that the
            weights above fit both layouts; by default `cnnlite.config.image_data_format()`, "channels_last".
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.Flatten()(np.zeros((2, 4, 4, 3))).shape
    (2, 48)
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        data_format = config.image_data_format() if data_format is None else data_format
        self.data_format = one_of(data_format, ("channels_last", "channels_first"), "data_format", "Flatten")

    def forward(self, x, training=False):
        x = self.prepare(x)
        if self.data_format == "channels_first" and x.ndim > 2:
            x = x.transpose(0, *range(2, x.ndim), 1)
        if training:
            self.remember(x.shape)
        return x.reshape(self.compute_output_shape(x.shape))

    def backward(self, dy):
        (shape,) = self.recall()
        dx = self.prepare_gradient(dy, self.compute_output_shape(shape)).reshape(shape)
        if self.data_format == "channels_first" and dx.ndim > 2:
            dx = dx.transpose(0, -1, *range(1, dx.ndim - 1))
        return dx

    def compute_output_shape(self, input_shape):
        sample = input_shape[1:]
        return (input_shape[0], None if None in sample else math.prod(sample))

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}
