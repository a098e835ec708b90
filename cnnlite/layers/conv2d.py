"""Conv2D: a kernel slides over the image, and every output pixel is a weighted sum of the window under it."""

from cnnlite import activations, initializers, kernels, regularizers
from cnnlite.arguments import boolean, data_format_or_default, integer, padding_mode, pair
from cnnlite.identifiers import to_config
from cnnlite.kernels.geometry import window_output_size, window_pads
from cnnlite.layers.base import Layer, channels_first, channels_last


class Conv2D(Layer):
    """y[n, oh, ow, f] = activation(bias[f] + sum of x[n, oh*s + ky*d, ow*s + kx*d, c] * kernel[ky, kx, c, f])

    The sum runs over ky, kx and c; s are the strides and d the dilation. As in all of deep learning this is
    the cross-correlation: the kernel is not turned round.

    Args:
        filters: how many output channels.
        kernel_size: (height, width) of the window, or one integer for both.
        strides: by how many pixels the window moves.
        padding: "valid" for none, or "same" for zeros round the image, so that the output has the size
            ceil(size / stride); the odd pixel goes to the bottom and the right.
        data_format: "channels_last" (N, H, W, C), the default, or "channels_first" (N, C, H, W).
        dilation_rate: the distance between the pixels of a window; above 1 only with strides of 1.
        groups: cut the channels and the filters into so many groups that don't see each other.
        activation: a name ("relu"), an activation layer, or None for none.
        use_bias: False leaves the bias out, as is usual before a BatchNorm.
        kernel_initializer: "glorot_uniform" by default.
        bias_initializer: "zeros" by default.
        kernel_regularizer, bias_regularizer: a penalty on the weights ("l2", `L2(1e-4)`), or None.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, filters), bias (filters,), y (N, OH, OW, filters).

    Example:

    >>> import numpy as np
    >>> from cnnlite import layers
    >>> layers.Conv2D(4, 3, strides=2, padding="same")(np.ones((1, 28, 28, 3))).shape
    (1, 14, 14, 4)
    """

    rank = 4

    def __init__(self, filters, kernel_size, strides=(1, 1), padding="valid", data_format=None,
                 dilation_rate=(1, 1), groups=1, activation=None, use_bias=True,
                 kernel_initializer="glorot_uniform", bias_initializer="zeros",
                 kernel_regularizer=None, bias_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.filters = integer(filters, "filters", "Conv2D")
        self.kernel_size = pair(kernel_size, "kernel_size", "Conv2D")
        self.strides = pair(strides, "strides", "Conv2D")
        self.padding = padding_mode(padding, "Conv2D")
        self.data_format = data_format_or_default(data_format, "Conv2D")
        self.dilation_rate = pair(dilation_rate, "dilation_rate", "Conv2D")
        self.groups = integer(groups, "groups", "Conv2D")
        if self.filters % self.groups:
            raise ValueError(
                f"Conv2D: filters must be divisible by groups. Received: filters={filters}, groups={groups}."
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Conv2D: strides above 1 can't be combined with a dilation_rate above 1. "
                f"Received: strides={self.strides}, dilation_rate={self.dilation_rate}."
            )
        self.activation = activations.get(activation, dtype=self.dtype)
        self.use_bias = boolean(use_bias, "use_bias", "Conv2D")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.inner_layers = [self.activation]
        self.channel_axis = -1 if self.data_format == "channels_last" else 1

    def build(self, input_shape):
        super().build(input_shape)
        channels = input_shape[self.channel_axis]
        if channels % self.groups:
            self.built = False
            raise ValueError(
                f"{self.name}: the channels of the input must be divisible by groups. "
                f"Received: channels={channels}, groups={self.groups}."
            )
        self.compute_output_shape(input_shape)
        self.add_weight("kernel", (*self.kernel_size, channels // self.groups, self.filters),
                        self.kernel_initializer, regularizer=self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer, regularizer=self.bias_regularizer)

    def forward(self, x, training=False):
        return self.activation.forward(self.preactivation(x, training), training)

    def preactivation(self, x, training=False):
        """z = x * kernel + bias, the convolution itself."""
        x = channels_last(self.prepare(x), self.data_format)
        n, h, w, _ = x.shape
        z = self.allocate("z", (n, *self._output_size(h, w), self.filters), training)
        kernels.conv2d(x, self.params["kernel"], self.params.get("bias"), *self._geometry(h, w), self.groups, out=z)
        if training:
            self.remember(x, z.shape)
        return channels_first(z, self.data_format)

    def backward(self, dy):
        return self.backward_preactivation(self.activation.backward(dy))

    def backward_preactivation(self, dz):
        """dkernel = sum of x * dz over all pixels,  dbias = sum of dz,  dx = dz * kernel, transposed"""
        dz = self._backward_weights(dz)
        x, _ = self.recall()
        dx = self.allocate("dx", x.shape)
        geometry = self._geometry(*x.shape[1:3])
        kernels.conv2d_input_gradient(dz, self.params["kernel"], x.shape, *geometry, self.groups, out=dx)
        return channels_first(dx, self.data_format)

    def backward_weights(self, dy):
        self._backward_weights(self.activation.backward(dy))

    def _backward_weights(self, dz):
        x, z_shape = self.recall()
        dz = channels_last(self.prepare_gradient(dz, layout_shape(z_shape, self.data_format)), self.data_format)
        if self.trainable:
            kernel = self.grads["kernel"]
            geometry = self._geometry(*x.shape[1:3])
            kernels.conv2d_kernel_gradient(x, dz, kernel.shape, *geometry, self.groups, out=kernel)
            if self.use_bias:
                kernels.column_sums(dz.reshape(-1, self.filters), out=self.grads["bias"])
        return dz

    def im2col(self, x):
        """Return the matrix whose product with the kernel this convolution is: (N * OH * OW, KH * KW * C).

        For study. With groups=1:

        >>> import numpy as np
        >>> from cnnlite import layers
        >>> layer, x = layers.Conv2D(2, 3), np.random.default_rng(0).normal(size=(1, 5, 5, 4))
        >>> y = layer(x)
        >>> product = layer.im2col(x) @ layer.params["kernel"].reshape(-1, 2) + layer.params["bias"]
        >>> bool(np.allclose(y, product.reshape(y.shape), atol=1e-5))
        True
        """
        x = channels_last(self.prepare(x), self.data_format)
        return kernels.im2col(x, self.kernel_size, *self._geometry(*x.shape[1:3]))

    def _geometry(self, height, width):
        """Return (strides, pads, dilation) for images of that size."""
        pads = window_pads(height, width, self.kernel_size, self.strides, self.padding, self.dilation_rate)
        return self.strides, pads, self.dilation_rate

    def _output_size(self, height, width):
        return window_output_size(height, width, self.kernel_size, self.strides, self.padding,
                                  self.dilation_rate, self.name)

    def compute_output_shape(self, input_shape):
        n, h, w, _ = layout_shape(input_shape, self.data_format, to="channels_last")
        return layout_shape((n, *self._output_size(h, w), self.filters), self.data_format)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": list(self.dilation_rate),
            "groups": self.groups,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": to_config(self.kernel_initializer),
            "bias_initializer": to_config(self.bias_initializer),
            "kernel_regularizer": to_config(self.kernel_regularizer),
            "bias_regularizer": to_config(self.bias_regularizer),
        }
