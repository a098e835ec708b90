"""Max pooling: an image made smaller by keeping the largest value of each window."""

from __future__ import annotations

from cnnlite import kernels
from cnnlite.layers.pool import Pool
from cnnlite.types import Array, ArrayLike


class MaxPool(Pool):
    """The maximum of each window of an image, channel by channel.

    forward:   y[n, i, j, c] = max over (a, b) in the window of x[n, i·SH + a, j·SW + b, c]
    backward:  dx at the maximum += dy[n, i, j, c]

    A training forward keeps the argmax instead of x: argmax[n, i, j, c] = a·KW + b, the index of the pixel in its
    window, in one byte if the window has at most 256 pixels.

    If values tie, the first in row-major order wins and gets the gradient. The gradients of overlapping windows
    add up. A window that contains a NaN gives NaN. With padding="same" the image is padded with -inf, so padding
    never wins. OH = ceil(H / SH); if the padding is odd, the extra pixel goes at the bottom and right, as in Keras.

    Args:
        pool_size: the window (KH, KW), or one integer for both (default 2).
        strides: the steps (SH, SW), or one integer; None (default) means `pool_size`.
        padding: "valid" (default) for windows inside the image only, or "same".
        data_format: "channels_last" or "channels_first"; None (default) uses `cnnlite.config.image_data_format()`.
        **kwargs: name, dtype, trainable, input_shape.

    Input shape: (N, H, W, C), or (N, C, H, W) with "channels_first".
    Output shape: (N, OH, OW, C), or (N, C, OH, OW).

    Raises:
        ValueError: a size is below 1, or, when the layer is built, the window is larger than the image.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> x = np.array([[1, 2, 0], [5, 4, 3], [7, 6, 9]]).reshape(1, 3, 3, 1)
    >>> cnnlite.layers.MaxPool(2, strides=1)(x)[0, :, :, 0]
    array([[5., 4.],
           [7., 9.]], dtype=float32)
    """

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        y, argmax = kernels.max_pool(x, *self.window(x.shape))
        if training:
            self.remember(argmax, x.shape)
        return self.finish(y)

    def backward(self, dy: Array) -> Array:
        argmax, x_shape = self.recall()
        dy = self.prepare_image_gradient(dy, argmax.shape)
        return self.finish(kernels.max_pool_backward(dy, argmax, x_shape, *self.window(x_shape)))
