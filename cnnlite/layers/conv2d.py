"""Conv2D: a kernel slides over the image, and every output pixel is a weighted sum of the window under it."""

from __future__ import annotations

from typing import Any

from cnnlite import initializers, kernels
from cnnlite.layers.convolution import Convolution
from cnnlite.layers.settings import RegularizerSetting, Setting, made_by
from cnnlite.support.arguments import integer
from cnnlite.support.identifiers import to_config
from cnnlite.types import Array, ArrayLike, Config, Identifier, IntPair, Shape


class Conv2D(Convolution):
    """y[n, oh, ow, f] = activation(bias[f] + sum of x[n, oh*s + ky*d, ow*s + kx*d, c] * kernel[ky, kx, c, f])

    The sum runs over ky, kx and c; s is the stride and d the dilation rate. The formula is for padding="valid";
    with "same", x is the image padded with zeros. As is usual in deep learning, this is a cross-correlation: the
    kernel is not flipped. `im2col` shows the convolution as a matrix product. Arguments and defaults are Keras's.

    Args:
        filters: the number of output channels.
        kernel_size: (height, width) of the window, or one integer for both.
        strides: how many pixels the window moves at each step.
        padding: "valid" for none, or "same" for zeros around the image, so that the output has the size
            ceil(size / stride); if the padding is odd, the extra pixel goes at the bottom and right.
        data_format: "channels_last" (N, H, W, C) or "channels_first" (N, C, H, W); None (default) uses
            `cnnlite.config.image_data_format()`, which is "channels_last".
        dilation_rate: the distance between the pixels of a window; above 1 only with strides of 1.
        groups: split the channels and the filters into this many independent groups.
        activation: a name ("relu"), an activation layer, or None for none.
        use_bias: False leaves the bias out, as is usual before a BatchNorm.
        kernel_initializer: "glorot_uniform" by default.
        bias_initializer: "zeros" by default.
        kernel_regularizer, bias_regularizer: a penalty on the weights ("l2", `L2(1e-4)`), or None.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, filters), bias (filters,), y (N, OH, OW, filters).

    Raises:
        ValueError: filters or channels are not divisible by groups, strides are combined with a dilation, or
            the window is larger than the image.

    Example:

    >>> import numpy as np
    >>> from cnnlite import layers
    >>> layers.Conv2D(4, 3, strides=2, padding="same")(np.ones((1, 28, 28, 3))).shape
    (1, 14, 14, 4)
    """

    filters = Setting(integer, fixed=True)
    groups = Setting(integer, fixed=True)
    kernel_initializer = Setting(made_by(initializers.get))
    kernel_regularizer = RegularizerSetting("kernel")

    def __init__(
        self,
        filters: int,
        kernel_size: IntPair,
        strides: IntPair = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: IntPair = (1, 1),
        groups: int = 1,
        activation: Identifier | None = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                         bias_initializer, bias_regularizer, **kwargs)
        self.filters = filters
        self.groups = groups
        self.kernel_initializer = kernel_initializer
        self.kernel_regularizer = kernel_regularizer
        self.check_settings()

    def check_settings(self) -> None:
        super().check_settings()
        if self.filters % self.groups:
            raise ValueError(
                f"{type(self).__name__}: filters must be divisible by groups. "
                f"Received: filters={self.filters}, groups={self.groups}."
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        channels = input_shape[self.channel_axis]
        self.add_weight("kernel", (*self.kernel_size, channels // self.groups, self.filters),
                        self.kernel_initializer, regularizer=self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer, regularizer=self.bias_regularizer)
        self.activation.build_once(self.compute_output_shape(input_shape))

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """y = activation(x * kernel + bias), where * is the convolution."""
        x = self.prepare(x)
        z = kernels.conv2d(x, self.params["kernel"], self.params.get("bias"), *self.geometry(x.shape), self.groups)
        if training:
            self.remember(x, z.shape)
        return self.activation.forward(self.finish(z), training)

    def backward(self, dy: Array) -> Array:
        """dx[n, h, w, c] = sum of dz[n, oh, ow, f] * kernel[ky, kx, c, f] over all z that x[n, h, w, c] feeds into

        with dz = dy * activation'(z), and the gradients of the weights as in `_weight_gradients`.
        """
        x, _ = self.recall()
        dx = self.allocate("dx", x.shape)
        self._weight_gradients(dy, dx)
        return self.finish(dx)

    def backward_weights(self, dy: Array) -> None:
        self._weight_gradients(dy)

    def _weight_gradients(self, dy: Array, dx: Array | None = None) -> None:
        """dkernel[ky, kx, c, f] = sum of x[n, oh*s + ky*d, ow*s + kx*d, c] * dz[n, oh, ow, f],  dbias[f] = sum of dz

        Both sums run over all images and all output pixels, n, oh and ow. dx, if given, is written as well.
        """
        x, z_shape = self.recall()  # first, so that an error names this layer, not its activation
        dz = self.prepare_image_gradient(self.activation.backward(dy), z_shape)
        dkernel, dbias = (self.grads["kernel"], self.grads.get("bias")) if self.trainable else (None, None)
        kernels.conv2d_backward(x, dz, self.params["kernel"], *self.geometry(x.shape), self.groups, dkernel, dbias, dx)

    def im2col(self, x: ArrayLike) -> Array:
        """Return the matrix (N * OH * OW, KH * KW * C) whose product with the kernel is this convolution.

        For study. With groups=1:

        >>> import numpy as np
        >>> from cnnlite import layers
        >>> layer, x = layers.Conv2D(2, 3), np.random.default_rng(0).normal(size=(1, 5, 5, 4))
        >>> y = layer(x)
        >>> product = layer.im2col(x) @ layer.params["kernel"].reshape(-1, 2) + layer.params["bias"]
        >>> bool(np.allclose(y, product.reshape(y.shape), atol=1e-5))
        True
        """
        x = self.prepare(x)
        return kernels.im2col(x, self.kernel_size, *self.geometry(x.shape))

    def output_channels(self, channels: int | Any) -> int:
        if channels is not None and channels % self.groups:
            raise ValueError(
                f"{self.name}: the channels of the input must be divisible by groups. "
                f"Received: channels={channels}, groups={self.groups}."
            )
        return self.filters

    def get_config(self) -> Config:
        return {
            "filters": self.filters,
            "groups": self.groups,
            "kernel_initializer": to_config(self.kernel_initializer),
            "kernel_regularizer": to_config(self.kernel_regularizer),
            **super().get_config(),
        }
