"""DepthwiseConv2D: every channel is convolved separately, with its own kernels."""

from __future__ import annotations

from typing import Any

from cnnlite import initializers, kernels
from cnnlite.layers.convolution import Convolution
from cnnlite.layers.settings import RegularizerSetting, Setting, made_by
from cnnlite.support.arguments import integer
from cnnlite.support.identifiers import to_config
from cnnlite.types import Array, ArrayLike, Config, Identifier, IntPair, Shape


class DepthwiseConv2D(Convolution):
    """y[n, oh, ow, c*M + m] = activation(sum of x[n, oh*s + ky*d, ow*s + kx*d, c] * kernel[ky, kx, c, m] + bias)

    The sum runs over ky and kx alone; s is the stride, d the dilation rate and M the depth multiplier. Followed
    by a 1x1 convolution, which mixes the channels, it does much of what a convolution does at a fraction
    of the work (Howard et al., 2017, "MobileNets").

    Args:
        kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias: see `Conv2D`.
        depth_multiplier: how many output channels each input channel gets, 1 by default.
        depthwise_initializer: for the kernel, "glorot_uniform" by default.
        bias_initializer: "zeros" by default.
        depthwise_regularizer, bias_regularizer: a penalty on the weights, or None.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x (N, H, W, C), kernel (KH, KW, C, M), bias (C * M,), y (N, OH, OW, C * M).

    Raises:
        ValueError: strides are combined with a dilation, or the window is larger than the image.

    Example:

    >>> import numpy as np
    >>> from cnnlite import layers
    >>> layers.DepthwiseConv2D(3, depth_multiplier=2)(np.ones((1, 8, 8, 3))).shape
    (1, 6, 6, 6)
    """

    depth_multiplier = Setting(integer, fixed=True)
    depthwise_initializer = Setting(made_by(initializers.get))
    depthwise_regularizer = RegularizerSetting("kernel")

    def __init__(
        self,
        kernel_size: IntPair,
        strides: IntPair = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: IntPair = (1, 1),
        activation: Identifier | None = None,
        use_bias: bool = True,
        depthwise_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        depthwise_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
                         bias_initializer, bias_regularizer, **kwargs)
        self.depth_multiplier = depth_multiplier
        self.depthwise_initializer = depthwise_initializer
        self.depthwise_regularizer = depthwise_regularizer
        self.check_settings()

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        channels = input_shape[self.channel_axis]
        self.add_weight("kernel", (*self.kernel_size, channels, self.depth_multiplier), self.depthwise_initializer,
                        regularizer=self.depthwise_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.output_channels(channels),), self.bias_initializer,
                            regularizer=self.bias_regularizer)
        self.activation.build_once(self.compute_output_shape(input_shape))

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """y = activation(x * kernel + bias), where * is the convolution, channel by channel."""
        x = self.prepare(x)
        z = kernels.depthwise_conv2d(x, self.params["kernel"], self.params.get("bias"), *self.geometry(x.shape))
        if training:
            self.remember(x, z.shape)
        return self.activation.forward(self.finish(z), training)

    def backward(self, dy: Array) -> Array:
        """dx[n, h, w, c] = sum of dz[n, oh, ow, c*M + m] * kernel[ky, kx, c, m] over all z that the pixel feeds into

        with dz = dy * activation'(z), and the gradients of the weights as in `_weight_gradients`.
        """
        x, _ = self.recall()
        dz = self._weight_gradients(dy)
        dx = kernels.depthwise_conv2d_input_gradient(dz, self.params["kernel"], x.shape, *self.geometry(x.shape))
        return self.finish(dx)

    def backward_weights(self, dy: Array) -> None:
        self._weight_gradients(dy)

    def _weight_gradients(self, dy: Array) -> Array:
        """dkernel[ky, kx, c, m] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dz[n, oh, ow, c*M + m]

        dbias[f] = sum over n, oh, ow of dz[n, oh, ow, f]. Returns dz.
        """
        x, z_shape = self.recall()  # first, so that an error names this layer, not its activation
        dz = self.prepare_image_gradient(self.activation.backward(dy), z_shape)
        if self.trainable:
            dkernel = self.grads["kernel"]
            kernels.depthwise_conv2d_kernel_gradient(x, dz, dkernel.shape, *self.geometry(x.shape), out=dkernel)
            if self.use_bias:
                kernels.column_sums(dz, out=self.grads["bias"])
        return dz

    def output_channels(self, channels: int | Any) -> int | Any:
        return None if channels is None else channels * self.depth_multiplier

    def get_config(self) -> Config:
        return {
            "depth_multiplier": self.depth_multiplier,
            "depthwise_initializer": to_config(self.depthwise_initializer),
            "depthwise_regularizer": to_config(self.depthwise_regularizer),
            **super().get_config(),
        }
