"""Average pooling: an image made smaller by taking the mean of each window."""

from __future__ import annotations

from cnnlite import kernels
from cnnlite.layers.pool import Pool
from cnnlite.types import Array, ArrayLike


class AveragePool(Pool):
    """The mean of each window of an image, channel by channel.

    forward:   y[n, i, j, c] = 1/K Σ x[n, i·SH + a, j·SW + b, c] over the K pixels (a, b) of the window
    backward:  dx at each of the K pixels += dy[n, i, j, c] / K

    With padding="same" only pixels of the image count, not the padding, so K is smaller at the border.
    OH = ceil(H / SH); if the padding is odd, the extra pixel goes at the bottom and right, as in Keras.

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
    >>> cnnlite.layers.AveragePool(2, padding="same")(x)[0, :, :, 0]
    array([[3. , 1.5],
           [6.5, 9. ]], dtype=float32)
    """

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        y = kernels.average_pool(x, *self.window(x.shape))
        if training:
            self.remember(x.shape, y.shape)
        return self.finish(y)

    def backward(self, dy: Array) -> Array:
        x_shape, y_shape = self.recall()
        dy = self.prepare_image_gradient(dy, y_shape)
        return self.finish(kernels.average_pool_backward(dy, x_shape, *self.window(x_shape)))
