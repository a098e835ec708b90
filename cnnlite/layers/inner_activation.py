"""The activation inside a layer, as an attribute that takes whatever the argument takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlite import activations
from cnnlite.layers.settings import Setting

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer


class InnerActivation(Setting[Any]):
    """The activation layer that `activations.get` makes from a name, a function, a layer or None.

    The activation is one of the `inner_layers`: frozen if the layer is, and built along with it, because it may have
    weights of its own, which an optimizer must know about before the first step.
    """

    def __init__(self) -> None:
        super().__init__(lambda value, name, owner: value)

    def __set__(self, layer: Layer, value: Any) -> None:
        before = vars(layer).get(self.name)
        activation = activations.get(value, dtype=layer.dtype)
        if not layer.trainable:
            activation.trainable = False
        if layer.built and layer.input_shape is not None:
            activation.build_once(layer.compute_output_shape(layer.input_shape))
        vars(layer)[self.name] = activation
        if before is None:
            layer.inner_layers = (*layer.inner_layers, activation)
        else:
            layer.inner_layers = [activation if inner is before else inner for inner in layer.inner_layers]
