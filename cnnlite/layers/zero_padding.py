"""ZeroPadding2D: a frame of zeros around each image."""

import numbers

from cnnlite import config
from cnnlite.arguments import one_of, pair
from cnnlite.layers.base import Layer


class ZeroPadding2D(Layer):
    """Add rows and columns of zeros around images: (N, H, W, C) to (N, top + H + bottom, left + W + right, C).

    dx is dy without the frame.

    Args:
        padding: how many: an integer for all sides, a pair (height, width) for both sides each, or
            ((top, bottom), (left, right)). 1 on every side by default.
        data_format: "channels_last" or "channels_first" for (N, C, H, W); by default
            `cnnlite.config.image_data_format()`.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.ZeroPadding2D(((0, 1), (2, 0)))(np.ones((1, 1, 1, 1)))[0, :, :, 0]
    array([[0., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """

    rank = 4

    def __init__(self, padding=(1, 1), data_format=None, **kwargs):
        super().__init__(**kwargs)
        sides = (padding, padding) if isinstance(padding, numbers.Integral) else padding
        if isinstance(sides, str) or not hasattr(sides, "__len__") or len(sides) != 2:
            raise ValueError(
                "ZeroPadding2D: padding must be an integer, a pair of integers or a pair of pairs. "
                f"Received: padding={padding!r}."
            )
        self.padding = tuple(pair(side, "padding", "ZeroPadding2D", minimum=0) for side in sides)
        data_format = config.image_data_format() if data_format is None else data_format
        self.data_format = one_of(data_format, ("channels_last", "channels_first"), "data_format", "ZeroPadding2D")
        self.first_axis = 1 if self.data_format == "channels_last" else 2

    def forward(self, x, training=False):
        x = self.prepare(x)
        if training:
            self.remember(x.shape)
        y = self.allocate("y", self.compute_output_shape(x.shape), training)
        y.fill(0)
        y[self._inside(x.shape)] = x
        return y

    def backward(self, dy):
        (shape,) = self.recall()
        dy = self.prepare_gradient(dy, self.compute_output_shape(shape))
        dx = self.allocate("dx", shape)
        dx[...] = dy[self._inside(shape)]
        return dx

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for axis, (before, after) in enumerate(self.padding, self.first_axis):
            shape[axis] = None if shape[axis] is None else before + shape[axis] + after
        return tuple(shape)

    def get_config(self):
        padding = [list(side) for side in self.padding]
        return {**super().get_config(), "padding": padding, "data_format": self.data_format}

    def _inside(self, shape):
        """Return the place of an image of that shape in the padded one."""
        place = [slice(None)] * 4
        for axis, (before, _) in enumerate(self.padding, self.first_axis):
            place[axis] = slice(before, before + shape[axis])
        return tuple(place)
