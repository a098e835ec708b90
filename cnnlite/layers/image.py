"""What the layers on images share: the two layouts, (N, H, W, C) and (N, C, H, W)."""

from __future__ import annotations

from typing import Any

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.settings import Setting, image_layout
from cnnlite.types import Array, ArrayLike, Config, Shape


class ImageLayer(Layer):
    """The base class of layers on images: outside, the layout is `data_format`; inside, it is always (N, H, W, C)."""

    rank = 4
    data_format = Setting(image_layout)

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        self.check_input_shape(input_shape)
        # First, so that a shape that doesn't fit leaves the layer as it was.
        self.compute_output_shape(input_shape)
        super().build(input_shape)

    def prepare(self, x: ArrayLike) -> Array:
        """Return x, checked, as a contiguous array (N, H, W, C)."""
        x = super().prepare(x)
        self.compute_output_shape(x.shape)
        return x if self.data_format == "channels_last" else kernels.moveaxis(x, 1, -1)

    def prepare_image_gradient(self, dy: Array, shape: Shape) -> Array:
        """Return dy, checked, as a contiguous array of `shape`, which is (N, OH, OW, C)."""
        dy = self.prepare_gradient(dy, self.join(*shape))
        return dy if self.data_format == "channels_last" else kernels.moveaxis(dy, 1, -1)

    def finish(self, y: Array) -> Array:
        """Return images (N, H, W, C) in the user's layout."""
        return y if self.data_format == "channels_last" else kernels.moveaxis(y, -1, 1)

    def split(self, input_shape: Shape) -> Shape:
        """Return (N, H, W, C) for a shape in the user's layout."""
        if len(input_shape) != self.rank:
            raise ValueError(
                f"{self.name}: the input must have {self.rank} axes, including the batch. "
                f"Received: shape={tuple(input_shape)}, which has {len(input_shape)}."
            )
        n, *image = input_shape
        height, width, channels = image if self.data_format == "channels_last" else (*image[1:], image[0])
        return n, height, width, channels

    def join(self, n: int | Any, height: int | Any, width: int | Any, channels: int | Any) -> Shape:
        """Return the shape of n images of that height, width and channels, in the user's layout."""
        last = self.data_format == "channels_last"
        return (n, height, width, channels) if last else (n, channels, height, width)

    def get_config(self) -> Config:
        return {"data_format": self.data_format, **super().get_config()}
