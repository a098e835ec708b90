"""What the pooling layers share: the arguments of a sliding window."""

from __future__ import annotations

from typing import Any

from cnnlite.kernels.geometry import Pads, window_output_size, window_pads
from cnnlite.layers.image import ImageLayer
from cnnlite.layers.settings import Setting
from cnnlite.support.arguments import padding_mode, pair
from cnnlite.types import Config, IntPair, Shape

Window = tuple[tuple[int, int], tuple[int, int], Pads]


class Pool(ImageLayer):
    """The base class of the layers that slide a window over an image; a subclass defines forward and backward."""

    pool_size = Setting(pair)
    strides = Setting(pair)
    padding = Setting(padding_mode)

    def __init__(
        self,
        pool_size: IntPair = (2, 2),
        strides: IntPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.pool_size = pool_size
        self.strides = self.pool_size if strides is None else strides
        self.padding = padding

    def window(self, shape: Shape) -> Window:
        """Return (window, strides, pads), the arguments of the kernels, for images of shape (N, H, W, C)."""
        # Capped where a larger value makes no difference, because kernels index the pixels of a window with 32 bits: a
        # window three times the image covers it at every position; a stride as large as the image leaves one window.
        sizes = shape[1:3]
        height, width = (min(window, 3 * size + 1) for window, size in zip(self.pool_size, sizes))
        stride_h, stride_w = (min(stride, max(size, 1)) for stride, size in zip(self.strides, sizes))
        pads = window_pads(*sizes, (height, width), (stride_h, stride_w), self.padding)
        return (height, width), (stride_h, stride_w), pads

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
