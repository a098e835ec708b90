"""A stack of layers as one layer: a batch goes up the stack, and its gradient comes down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cnnlite.eager import is_eager
from cnnlite.engine.graph import current_graph
from cnnlite.layers.activation import ActivationLayer, Sigmoid, Softmax
from cnnlite.layers.activation_by_name import Activation
from cnnlite.layers.base import Layer
from cnnlite.layers.composite import CompositeLayer, fits, unbuilt_on_error
from cnnlite.layers.convolution import Convolution
from cnnlite.layers.dense import Dense
from cnnlite.layers.overrides import is_untouched, keeps
from cnnlite.layers.parts import STACK_PASSES, Part, SinglePart, parts_of, whole
from cnnlite.model.passes import segments_of
from cnnlite.support.arguments import float_array
from cnnlite.types import Array, ArrayLike, Shape

MOST_SHAPES = 64  # how many input shapes a model remembers as fitting

_LAYER_PASSES = "forward", "backward"
_PASSES = (
    "forward", "backward", "backward_weights", "forward_logits", "activate_logits", "forward_pass", "backward_pass",
    "activation", "fusable_activation",
)


class Stack(CompositeLayer):
    """The part of a model that runs its layers, forward and backward."""

    @property
    def layers(self) -> list[Layer]:
        """The layers from bottom to top, as a new list."""
        return list(self.inner_layers)

    def build(self, input_shape: Shape | None = None) -> None:
        """Create the weights of all layers for inputs of `input_shape`, the batch axis included."""
        given = self.given_input_shape
        if not self.inner_layers and given is None:  # with an Input alone, the model is the identity, as in Keras
            raise ValueError(f"{self.name}: a model needs layers before it can be built. Use add(layer).")
        if input_shape is not None:
            self.check_input_shape(input_shape)
            sample = input_shape[1:]
        elif given is not None:
            sample = given
        else:
            raise ValueError(
                f"{self.name}: the shape of the input must be known. Start the stack with Input(shape=...), or call "
                "build((None, height, width, channels))."
            )
        input_shape = shape = (None, *sample)
        if given is not None and not fits(shape[1:], given):
            raise ValueError(
                f"{self.name}: the model takes samples of shape {given}. Received: an input of shape {input_shape}."
            )
        self.compute_output_shape(input_shape)  # so that a shape that does not fit leaves all layers unchanged
        with unbuilt_on_error(self.inner_layers):
            for layer in self.inner_layers:
                layer.build_once(shape)
                shape = layer.compute_output_shape(shape)
        self.input_shape = input_shape
        self.built = True

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the output for a batch x; with `training=True` the layers remember what backward needs."""
        return self.forward_pass(x, training)

    def backward(self, dy: Array) -> Array:
        """Take d loss / d output, fill the gradients of all layers and return d loss / d input."""
        return self.backward_pass(dy)

    def backward_weights(self, dy: Array, from_logits: bool = False) -> None:
        """Fill the gradients of all trainable weights, and skip what only the gradient of the input needs.

        Args:
            dy: d loss / d output; or, with `from_logits=True`, d loss / d logits (see `forward_logits`).
        """
        if not from_logits and not keeps(self, "backward"):
            self.backward(dy)
            return
        (passes,) = self.recall()
        lowest = next((i for i, each in enumerate(passes) if each.has_trainable_weights), None)
        if lowest is None:
            return
        if is_eager() and all(isinstance(each, SinglePart) and each.part.is_ours for each in passes[:lowest + 1]):
            self.backward_pass(dy)  # all the way, so that the gradient can be followed in a debugger
            return
        for each in reversed(passes[lowest + 1:]):
            dy = each.backward(dy)
        passes[lowest].backward_weights(dy)

    def forward_pass(self, x: ArrayLike, training: bool = False, to_logits: bool = False) -> Array:
        """Run the layers in order, or the plans that replace several of them; see `passes.py`."""
        y: Array = self.prepare(x)
        units = self._units(to_logits)
        if not training:
            for unit in units:
                y = unit.forward(y)
            return y
        self.forget()  # the previous pass is over, even if this one fails
        passes = []
        for unit in units:
            y, run = unit.forward_pass(y)
            passes.append(run)
        self.remember(passes)
        return y

    def backward_pass(self, dy: Array) -> Array:
        """Take the gradient down through the passes that `forward_pass` remembered."""
        (passes,) = self.recall()
        for each in reversed(passes):
            dy = each.backward(dy)
        return dy

    def _units(self, to_logits: bool) -> list[Any]:
        if is_eager() or current_graph() is not None:
            return [SinglePart(part) for part in self._parts(lambda layer: [whole(layer)], to_logits)]
        return self.memo.get(("units", to_logits),
                             lambda: segments_of(self._parts(parts_of, to_logits), self.memo))

    def _parts(self, parts_of: Callable[[Any], list[Part]], to_logits: bool) -> list[Part]:
        parts = [part for layer in self.inner_layers for part in parts_of(layer)]
        if to_logits:
            left_out = self._activation_of_logits()
            parts[-1] = parts[-1]._replace(left_out=left_out)
        return parts

    @property
    def activation(self) -> ActivationLayer | None:
        """The activation layer that the model ends with, or None."""
        top = self.inner_layers[-1] if self.inner_layers else None
        return top if isinstance(top, ActivationLayer) else getattr(top, "activation", None)

    @property
    def output_activation(self) -> str | None:
        """The name of the activation that the model ends with ("softmax"), or None."""
        return getattr(self.activation, "activation_name", None)

    @property
    def fusable_activation(self) -> str | None:
        """The name of the activation if a loss may be computed from its input instead of its output, else None.

        It is "softmax" or "sigmoid" if the output is exactly that function of what `forward_logits` returns: not for
        a subclass of these, nor if any pass has been overridden.
        """
        return self.memo.get("fusable activation", self._find_fusable_activation)

    def _find_fusable_activation(self) -> str | None:
        if not self.inner_layers or not keeps(self, *_PASSES):
            return None
        top: Any = self.inner_layers[-1]
        if isinstance(top, Stack):
            return top.fusable_activation if keeps(top, *STACK_PASSES) else None
        if isinstance(top, (Dense, Convolution)) and keeps(top, "forward", "backward", "backward_weights"):
            top = top.activation
        if type(top) is Activation and is_untouched(top):
            top = top.activation
        fusable = type(top) is Sigmoid or (type(top) is Softmax and top.axis == (-1,))
        return top.activation_name if fusable and is_untouched(top) else None

    def _activation_of_logits(self) -> ActivationLayer:
        """Return the activation that takes the logits: the top layer itself, or the one inside it."""
        top: Any = self
        keeps_all = True
        while isinstance(top, Stack) and top.inner_layers:
            top = top.inner_layers[-1]
            keeps_all &= keeps(top, *(STACK_PASSES if isinstance(top, Stack) else _LAYER_PASSES))
        activation = top if isinstance(top, ActivationLayer) else None
        if isinstance(top, (Dense, Convolution)):
            activation = top.activation
        if activation is None:
            raise ValueError(
                f"{self.name}: for logits, the top layer must be an activation, or have one inside. Received: {top!r}."
            )
        if not keeps_all or not keeps(activation, *_LAYER_PASSES):
            raise ValueError(
                f"{self.name}: for logits, the top layer and its activation must have the library's own forward "
                f"and backward. Received: {top!r}, with overridden ones. Use forward, which calls them."
            )
        return activation

    def forward_logits(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the input of the top layer's activation.

        A cross-entropy of logits is exact where the probabilities have already been rounded to 0 or 1.
        """
        return self.forward_pass(x, training, to_logits=True)

    def activate_logits(self, logits: Array) -> Array:
        """Return the output of the model for what `forward_logits` returned."""
        activation = self.activation
        return logits if activation is None else activation.forward(logits)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        for layer in self.inner_layers:
            layer.check_fits(shape)
            shape = layer.compute_output_shape(shape)
        return shape

    def check_fits(self, input_shape: Shape) -> None:
        """Raise a ValueError unless the model takes inputs of that shape.

        If the model was given an input shape, only that one fits. Otherwise any shape that the layers can take does.
        """
        built_for, shape = self.input_shape, tuple(input_shape)
        if not self.built or built_for is None or (shape and fits(shape[1:], built_for[1:])):
            return
        rule = reason = ""
        if self.given_input_shape is None and shape:
            try:
                self.compute_output_shape(shape)
                return
            except ValueError as error:
                rule, reason = ", or another that the layers can take", f" {error}"
        if fits((*shape[1:], 1), built_for[1:]):
            reason = " Add a channel axis: x[..., np.newaxis]."
        elif fits(shape, built_for[1:]):
            reason = " Add a batch axis: x[np.newaxis]."
        raise ValueError(
            f"{self.name}: the input must have the shape {built_for}{rule}. Received: shape={shape}.{reason}"
        )

    def prepare(self, x: ArrayLike) -> Array:
        """Return x as an array of the model's dtype, checked against the shape of a sample."""
        x = float_array(x, self.dtype, "x", self.name)
        built_for = self.build_once(x.shape)
        if x.ndim == 0 or (x.shape[1:] != built_for[1:] and not fits(x.shape[1:], built_for[1:])):
            self.memo.get(("fits", x.shape), lambda: self.check_fits(x.shape), MOST_SHAPES)
        return x
