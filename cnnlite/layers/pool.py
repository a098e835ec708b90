"""What the pooling layers share: the two layouts of images, and the arguments of a sliding window."""

import numpy as np

from cnnlite import config
from cnnlite.arguments import one_of, padding_mode, pair
from cnnlite.kernels.geometry import Pads, window_output_size, window_pads
from cnnlite.layers.base import Layer

Window = tuple[tuple[int, int], tuple[int, int], Pads]


class ImageLayer(Layer):
    """The base of layers on images: `data_format` decides the layout outside, inside it is (N, H, W, C)."""

    rank = 4

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        if data_format is None:
            data_format = config.image_data_format()
        self.data_format = one_of(data_format, ("channels_last", "channels_first"), "data_format", type(self).__name__)

    def build(self, input_shape):
        # First of all, so that a shape that doesn't fit leaves the layer as it was.
        self.compute_output_shape(input_shape)
        super().build(input_shape)

    def prepare(self, x):
        """Return x checked, and as contiguous (N, H, W, C)."""
        x = super().prepare(x)
        self.compute_output_shape(x.shape)
        return x if self.data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def finish(self, y):
        """Return images (N, H, W, C) in the layout of the user; a view."""
        return y if self.data_format == "channels_last" else y.transpose(0, 3, 1, 2)

    def split(self, input_shape):
        """Return (N, H, W, C) of a shape in the layout of the user."""
        if len(input_shape) != self.rank:
            raise ValueError(
                f"{self.name}: the input must have {self.rank} axes, the batch included. "
                f"Received: shape={tuple(input_shape)}, which has {len(input_shape)}."
            )
        n, *image = input_shape
        height, width, channels = image if self.data_format == "channels_last" else (*image[1:], image[0])
        return n, height, width, channels

    def join(self, n, height, width, channels):
        """Return these four in the layout of the user."""
        last = self.data_format == "channels_last"
        return (n, height, width, channels) if last else (n, channels, height, width)

    def get_config(self):
        return {"data_format": self.data_format, **super().get_config()}


class Pool(ImageLayer):
    """The base of the layers that slide a window over an image; a subclass defines forward and backward."""

    def __init__(self, pool_size=(2, 2), strides=None, padding="valid", data_format=None, **kwargs):
        super().__init__(data_format, **kwargs)
        owner = type(self).__name__
        self.pool_size = pair(pool_size, "pool_size", owner)
        self.strides = self.pool_size if strides is None else pair(strides, "strides", owner)
        self.padding = padding_mode(padding, owner)

    def window(self, shape) -> Window:
        """Return (window, strides, pads), the arguments of the kernels, for images of shape (N, H, W, C)."""
        return self.pool_size, self.strides, window_pads(shape[1], shape[2], self.pool_size, self.strides, self.padding)

    def prepare_gradient(self, dy, shape):
        """Return dy checked, and as contiguous (N, OH, OW, C), which is `shape`."""
        dy = super().prepare_gradient(dy, self.join(*shape))
        return dy if self.data_format == "channels_last" else np.ascontiguousarray(dy.transpose(0, 2, 3, 1))

    def compute_output_shape(self, input_shape):
        n, height, width, channels = self.split(input_shape)
        height, width = window_output_size(height, width, self.pool_size, self.strides, self.padding, (1, 1), self.name)
        return self.join(n, height, width, channels)

    def get_config(self):
        return {
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": self.padding,
            **super().get_config(),
        }
