"""The layer that applies an activation given by its name."""

from __future__ import annotations

from typing import Any

from cnnlite import activations
from cnnlite.layers.activation import ActivationLayer
from cnnlite.layers.inner_activation import InnerActivation
from cnnlite.types import Array, Config, Identifier, Shape


class Activation(ActivationLayer):
    """Apply an activation: `Activation("tanh")`.

    Args:
        activation: a name, a function of `cnnlite.activations`, or an activation layer.
        **kwargs: name, dtype, trainable, input_shape; see `Layer`.

    Shapes: x any, y the same.

    Raises:
        ValueError: no activation has that name.

    Example:

    >>> import cnnlite
    >>> cnnlite.layers.Activation("relu")([[-1.0, 2.0]])
    array([[0., 2.]], dtype=float32)
    """

    activation = InnerActivation()

    def __init__(self, activation: Identifier, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation

    @property
    def activation_name(self) -> str:  # type: ignore[override]  # a plain string in the base class
        """The name of the inner activation."""
        return self.activation.activation_name

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.activation.build(input_shape)

    def check_fits(self, input_shape: Shape) -> None:
        self.activation.check_fits(input_shape)
        super().check_fits(input_shape)

    def function(self, x: Array, out: Array) -> Array:
        return self.activation.function(x, out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> Array:
        return self.activation.gradient(dy, x, y, out)

    def get_config(self) -> Config:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}
