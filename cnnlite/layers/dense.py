"""Dense: every output is a weighted sum of all inputs."""

from __future__ import annotations

from typing import Any

from cnnlite import activations, initializers, kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.inner_activation import InnerActivation
from cnnlite.layers.settings import RegularizerSetting, Setting, made_by
from cnnlite.layers.weights import Weight
from cnnlite.support.arguments import boolean, integer
from cnnlite.support.identifiers import to_config
from cnnlite.types import Array, ArrayLike, Config, Identifier, Shape


class Dense(Layer):
    """y = activation(x @ kernel + bias)

    With z the input of the activation: dkernel = x.T @ dz,  dbias = sum of dz over the rows,
    dx = dz @ kernel.T. An input with more than 2 axes is treated as rows along its last axis, as in Keras.

    Args:
        units: the number of outputs.
        activation: a name ("relu"), an activation layer, or None for none.
        use_bias: False leaves the bias out.
        kernel_initializer: "glorot_uniform" by default.
        bias_initializer: "zeros" by default.
        kernel_regularizer, bias_regularizer: a penalty on the weights ("l2", `L2(1e-4)`), or None.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x (N, ..., D), kernel (D, units), bias (units,), y (N, ..., units).

    Raises:
        ValueError: units is below 1; when the layer is built, the input has no feature axis.

    Example:

    >>> import numpy as np
    >>> from cnnlite import layers
    >>> layers.Dense(3)(np.ones((2, 5))).shape
    (2, 3)
    """

    channel_axis = -1
    takes_any_rank = True

    kernel, bias = Weight(), Weight()
    units = Setting(integer, fixed=True)
    activation = InnerActivation()
    use_bias = Setting(boolean, fixed=True)
    kernel_initializer = Setting(made_by(initializers.get))
    bias_initializer = Setting(made_by(initializers.get))
    kernel_regularizer = RegularizerSetting("kernel")
    bias_regularizer = RegularizerSetting("bias")

    def __init__(
        self,
        units: int,
        activation: Identifier | None = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = activation
        self.use_bias = use_bias
        self.kernel_initializer = kernel_initializer
        self.bias_initializer = bias_initializer
        self.kernel_regularizer = kernel_regularizer
        self.bias_regularizer = bias_regularizer

    def build(self, input_shape: Shape) -> None:
        self.check_input_shape(input_shape)
        if len(input_shape) < 2:
            raise ValueError(
                f"{self.name}: the input must have at least 2 axes, (samples, features). "
                f"Received: shape={tuple(input_shape)}."
            )
        super().build(input_shape)
        self.add_weight("kernel", (input_shape[-1], self.units), self.kernel_initializer,
                        regularizer=self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer)
        self.activation.build_once(self.compute_output_shape(input_shape))

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """y = activation(x @ kernel + bias)"""
        x = self.prepare(x)
        rows = x.reshape(-1, x.shape[-1])
        z = kernels.matmul(rows, self.params["kernel"], self.params.get("bias"))
        if training:
            self.remember(x)
        return self.activation.forward(z.reshape(*x.shape[:-1], self.units), training)

    def backward(self, dy: Array) -> Array:
        """dz = dy * activation'(z),  dkernel = x.T @ dz,  dbias = sum of dz over the rows,  dx = dz @ kernel.T"""
        (x,) = self.recall()
        dz = self._weight_gradients(dy)
        return kernels.matmul(dz, self.params["kernel"], transpose_b=True).reshape(x.shape)

    def backward_weights(self, dy: Array) -> None:
        self._weight_gradients(dy)

    def _weight_gradients(self, dy: Array) -> Array:
        """Fill `grads`, and return dz as a matrix."""
        (x,) = self.recall()  # first, so that an error names this layer, not its activation
        dz = self.prepare_gradient(self.activation.backward(dy), (*x.shape[:-1], self.units))
        if self.trainable:
            kernels.matmul(x, dz, transpose_a=True, out=self.grads["kernel"])
            if self.use_bias:
                kernels.column_sums(dz, out=self.grads["bias"])
        return dz.reshape(-1, self.units)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": to_config(self.kernel_initializer),
            "bias_initializer": to_config(self.bias_initializer),
            "kernel_regularizer": to_config(self.kernel_regularizer),
            "bias_regularizer": to_config(self.bias_regularizer),
        }
