"""What Conv2D and DepthwiseConv2D share: their arguments, and where the window goes."""

from __future__ import annotations

from typing import Any

from cnnlite import activations, initializers
from cnnlite.kernels.geometry import Pads, window_output_size, window_pads
from cnnlite.layers.image import ImageLayer
from cnnlite.layers.inner_activation import InnerActivation
from cnnlite.layers.settings import RegularizerSetting, Setting, image_layout, made_by
from cnnlite.layers.weights import Weight
from cnnlite.support.arguments import boolean, padding_mode, pair
from cnnlite.support.identifiers import to_config
from cnnlite.types import Config, Identifier, IntPair, Shape


class Convolution(ImageLayer):
    """The base class of the convolutions: a subclass defines the passes and ends `__init__` with `check_settings`."""

    channel_axis: int

    kernel, bias = Weight(), Weight()
    kernel_size = Setting(pair, fixed=True)
    strides = Setting(pair)
    padding = Setting(padding_mode)
    data_format = Setting(image_layout, fixed=True)
    dilation_rate = Setting(pair)
    activation = InnerActivation()
    use_bias = Setting(boolean, fixed=True)
    bias_initializer = Setting(made_by(initializers.get))
    bias_regularizer = RegularizerSetting("bias")

    def __init__(
        self,
        kernel_size: IntPair,
        strides: IntPair,
        padding: str,
        data_format: str | None,
        dilation_rate: IntPair,
        activation: Identifier | None,
        use_bias: bool,
        bias_initializer: Identifier,
        bias_regularizer: Identifier | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.dilation_rate = dilation_rate
        self.activation = activation
        self.use_bias = use_bias
        self.bias_initializer = bias_initializer
        self.bias_regularizer = bias_regularizer

    def check_settings(self) -> None:
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{type(self).__name__}: strides above 1 can't be combined with a dilation_rate above 1. "
                f"Received: strides={self.strides}, dilation_rate={self.dilation_rate}."
            )
        self.channel_axis = -1 if self.data_format == "channels_last" else 1

    def geometry(self, x_shape: Shape) -> tuple[tuple[int, int], Pads, tuple[int, int]]:
        """Return (strides, pads, dilation), the arguments of the kernels, for images of shape (N, H, W, C)."""
        # Kernels compute addresses from these values, so each is capped where a larger one makes no difference: of taps
        # two image sizes apart, at most one lands in the image; a stride as large as the image leaves one window.
        height, width = x_shape[1:3]
        strides = min(self.strides[0], max(height, 1)), min(self.strides[1], max(width, 1))
        dilation = min(self.dilation_rate[0], 2 * height + 1), min(self.dilation_rate[1], 2 * width + 1)
        pads = window_pads(height, width, self.kernel_size, strides, self.padding, dilation)
        return strides, pads, dilation

    def output_channels(self, channels: int | Any) -> int | Any:
        """Return the number of output channels for an input with `channels`."""
        raise NotImplementedError(f"{type(self).__name__} must define output_channels(channels).")

    def output_image_shape(self, n: int | Any, height: int | Any, width: int | Any, channels: int | Any) -> Shape:
        """Return (N, OH, OW, output channels) for images of that shape."""
        size = window_output_size(height, width, self.kernel_size, self.strides, self.padding, self.dilation_rate,
                                  self.name)
        return (n, *size, self.output_channels(channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.join(*self.output_image_shape(*self.split(input_shape)))

    def get_config(self) -> Config:
        return {
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": to_config(self.bias_initializer),
            "bias_regularizer": to_config(self.bias_regularizer),
            **super().get_config(),
        }
