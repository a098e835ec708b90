"""ZeroPadding2D: a frame of zeros around each image."""

from __future__ import annotations

import numbers
from typing import Any

from cnnlite import kernels
from cnnlite.layers.image import ImageLayer
from cnnlite.layers.settings import Setting
from cnnlite.support.arguments import pair
from cnnlite.types import Array, ArrayLike, Config, IntPair, Shape


def _sides(value: Any, name: str, owner: str) -> tuple[tuple[int, int], ...]:
    sides: Any = (value, value) if isinstance(value, numbers.Integral) else value
    if isinstance(sides, str) or not hasattr(sides, "__len__") or len(sides) != 2:
        raise ValueError(
            f"{owner}: {name} must be an integer, a pair of integers or a pair of pairs. Received: {name}={value!r}."
        )
    return tuple(pair(side, name, owner, minimum=0) for side in sides)


class ZeroPadding2D(ImageLayer):
    """Add rows and columns of zeros around images: (N, H, W, C) to (N, top + H + bottom, left + W + right, C).

    dx is dy without the frame.

    Args:
        padding: how many: an integer for all sides, a pair (top and bottom, left and right), or
            ((top, bottom), (left, right)). 1 on every side by default.
        data_format: "channels_last" or "channels_first" for (N, C, H, W); by default
            `cnnlite.config.image_data_format()`.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Raises:
        ValueError: padding is none of these, or negative.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> cnnlite.layers.ZeroPadding2D(((0, 1), (2, 0)))(np.ones((1, 1, 1, 1)))[0, :, :, 0]
    array([[0., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """

    padding = Setting(_sides)

    def __init__(
        self,
        padding: IntPair | tuple[IntPair, IntPair] = (1, 1),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.padding = padding

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        if training:
            self.remember(x.shape)
        return self.finish(kernels.pad(x, self.padding))

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        dy = self.prepare_image_gradient(dy, self._padded(*shape))
        return self.finish(kernels.crop(dy, self.padding))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.join(*self._padded(*self.split(input_shape)))

    def get_config(self) -> Config:
        return {"padding": [list(side) for side in self.padding], **super().get_config()}

    def _padded(self, n: int, height: int | Any, width: int | Any, channels: int | Any) -> Shape:
        rows, columns = (sum(side) for side in self.padding)
        return n, None if height is None else height + rows, None if width is None else width + columns, channels
