"""What the pooling layers share: the arguments of a sliding window."""

from __future__ import annotations

from typing import Any

from cnnlite.arguments import padding_mode, pair
from cnnlite.kernels.geometry import Pads, window_output_size, window_pads
from cnnlite.layers.image import ImageLayer
from cnnlite.types import Config, IntPair, Shape

Window = tuple[tuple[int, int], tuple[int, int], Pads]


class Pool(ImageLayer):
    """The base of the layers that slide a window over an image; a subclass defines forward and backward."""

    def __init__(
        self,
        pool_size: IntPair = (2, 2),
        strides: IntPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        owner = type(self).__name__
        self.pool_size = pair(pool_size, "pool_size", owner)
        self.strides = self.pool_size if strides is None else pair(strides, "strides", owner)
        self.padding = padding_mode(padding, owner)

    def window(self, shape: Shape) -> Window:
        """Return (window, strides, pads), the arguments of the kernels, for images of shape (N, H, W, C)."""
        return self.pool_size, self.strides, window_pads(shape[1], shape[2], self.pool_size, self.strides, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, height, width, channels = self.split(input_shape)
        height, width = window_output_size(height, width, self.pool_size, self.strides, self.padding, (1, 1), self.name)
        return self.join(n, height, width, channels)

    def get_config(self) -> Config:
        return {
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": self.padding,
            **super().get_config(),
        }
