"""Residual: the sum of a stack of layers and a shortcut around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import kernels
from cnnlite.layers.base import Layer
from cnnlite.layers.composite import CompositeLayer, fits, unbuilt_on_error
from cnnlite.layers.input import InputLayer
from cnnlite.layers.serialization import describe, rebuild, registered, revive
from cnnlite.layers.settings import float_dtype
from cnnlite.support.arguments import boolean, float_array
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from cnnlite.model.sequential import Sequential

_BRANCHES = ("body", "shortcut")


class Residual(CompositeLayer):
    """y = body(x) + shortcut(x), or body(x) + x if there is no shortcut (He et al., 2015).

    Backward, dx = body.backward(dy) + shortcut.backward(dy), or body.backward(dy) + dy. So the gradient also reaches
    the layers below by a path without weights, which is what makes networks of a hundred layers trainable.

    Args:
        body: a layer, a list of layers, or a `Sequential`.
        shortcut: likewise; by default x itself, so the body must keep the shape of x. If it doesn't, pass a 1x1
            convolution with the body's filters and strides (a "projection shortcut").
        **kwargs: name, dtype, trainable, input_shape; see `Layer`. The dtype defaults to that of the inner layers; if
            given, it is set on all of them.

    Attributes:
        body, shortcut: the two branches, each a `Sequential` (named "body" and "shortcut" unless you named it);
            shortcut is None for the identity. Weights are named "residual/body/conv2d/kernel".

    Shapes: x any that both branches take; y the shape of the body's output, which the shortcut's must match.

    A layer of your own in a branch must not write into x or dy: the other branch gets the same array.

    Keras has no such layer; there you write the functional `layers.add([body(x), x])`, or `Add()`.

    Raises:
        TypeError: body or shortcut is something else.
        ValueError: a branch has no layers, a layer is in both, or, when it is built, their output shapes differ.

    Example (the block of ResNet-18 that halves the image):

    >>> import numpy as np
    >>> import cnnlite
    >>> from cnnlite import layers
    >>> def convolution(filters, size, strides=1):
    ...     return layers.Conv2D(filters, size, strides, padding="same", use_bias=False)
    >>> block = cnnlite.Sequential([
    ...     layers.Residual(
    ...         [convolution(16, 3, 2), layers.BatchNorm(), layers.ReLU(), convolution(16, 3), layers.BatchNorm()],
    ...         shortcut=[convolution(16, 1, 2), layers.BatchNorm()],
    ...     ),
    ...     layers.ReLU(),
    ... ])
    >>> block(np.zeros((1, 8, 8, 3))).shape
    (1, 4, 4, 16)
    """

    def __init__(
        self,
        body: Layer | Sequence[Layer | InputLayer],
        shortcut: Layer | Sequence[Layer | InputLayer] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        branches = [_stack(body, "body", type(self).__name__)]
        if shortcut is not None:
            branches.append(_stack(shortcut, "shortcut", type(self).__name__))
            in_body = {id(layer) for layer in branches[0].walk()}
            for layer in branches[1].walk():
                if id(layer) in in_body:
                    raise ValueError(
                        f"{self.name}: a layer can be in a stack only once. Received: {layer.name!r} in the body and "
                        "in the shortcut. Make another one of the same kind."
                    )
        self.inner_layers = branches
        if self.given_input_shape is None:
            given = (branch.given_input_shape for branch in branches)
            self.given_input_shape = next((shape for shape in given if shape is not None), None)
        if kwargs.get("dtype") is not None:
            self.dtype = kwargs["dtype"]
        if not self.trainable:
            self.trainable = False

    @property
    def body(self) -> Sequential:
        """The layers that the shortcut bypasses."""
        return self.inner_layers[0]  # type: ignore[return-value]  # both are stacks: see __init__

    @property
    def shortcut(self) -> Sequential | None:
        """The layers of the shortcut, or None for the identity."""
        inner = self.inner_layers
        return inner[1] if len(inner) > 1 else None  # type: ignore[return-value]  # as above

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the body, to which inputs and outputs are converted; setting it sets it on all layers."""
        return self.inner_layers[0].dtype if self.inner_layers else self._dtype

    @dtype.setter
    def dtype(self, dtype: DTypeLike | None) -> None:
        self._dtype = float_dtype(dtype, "dtype", type(self).__name__)
        layers = [layer for branch in getattr(self, "inner_layers", ()) for layer in branch.walk()]
        layers = [layer for layer in layers if not isinstance(layer, CompositeLayer)]
        # Layers with weights first: if one of them raises, nothing has changed.
        for layer in sorted(layers, key=lambda layer: not (layer._params or layer._state)):
            layer.dtype = self._dtype

    def build(self, input_shape: Shape) -> None:
        self.check_input_shape(input_shape)
        input_shape = (None, *input_shape[1:])
        self.compute_output_shape(input_shape)  # first, so that a mismatch leaves all layers as they were
        with unbuilt_on_error(self.inner_layers):
            for branch in self.inner_layers:
                branch.build_once(input_shape)
        self.input_shape = input_shape
        self.built = True

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        x = self.prepare(x)
        a = float_array(self.body.forward(x, training=training), self.dtype, "the output of body", self.name)
        b = x
        if self.shortcut is not None:
            b = float_array(
                self.shortcut.forward(x, training=training), self.dtype, "the output of shortcut", self.name
            )
        if a.shape != b.shape:  # say, after an attribute of an inner layer was set
            self.compute_output_shape(x.shape)
        if training:
            self.remember(a.shape)
        return kernels.add(a, b)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.recall()
        dy = self.prepare_gradient(dy, shape)
        a = float_array(self.body.backward(dy), self.dtype, "dx of body", self.name)
        b = dy
        if self.shortcut is not None:
            b = float_array(self.shortcut.backward(dy), self.dtype, "dx of shortcut", self.name)
        return kernels.add(a, b)

    def backward_weights(self, dy: Array) -> None:
        (shape,) = self.recall()
        dy = self.prepare_gradient(dy, shape)
        for branch in self.inner_layers:
            branch.backward_weights(dy)

    def prepare(self, x: ArrayLike) -> Array:
        x = float_array(x, self.dtype, "x", self.name)
        built_for = self.build_once(x.shape)
        if x.shape[1:] != built_for[1:] or x.ndim == 0:
            self.check_fits(x.shape)
        return x

    def check_fits(self, input_shape: Shape) -> None:
        built_for = self.input_shape
        if self.built and (built_for is None or not input_shape or not fits(input_shape[1:], built_for[1:])):
            self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        input_shape = tuple(input_shape)
        shapes = [input_shape, input_shape]
        for i, branch in enumerate(self.inner_layers):
            branch.check_fits(input_shape)
            shapes[i] = tuple(branch.compute_output_shape(input_shape))
        ours, theirs = shapes
        if not fits(ours, theirs):
            remedy = "layers that give the shape of the body"
            if len(ours) == len(input_shape) == 4:
                remedy = "a 1x1 convolution with the body's filters and strides: shortcut=Conv2D(filters, 1, strides)"
            raise ValueError(
                f"{self.name}: body and shortcut must give the same shape. Received: {ours} from the body and {theirs} "
                f"from the shortcut{' (x itself)' if self.shortcut is None else ''}, for an input of {input_shape}. "
                f"Pass as shortcut {remedy}."
            )
        return tuple(b if a is None else a for a, b in zip(ours, theirs))

    def get_config(self) -> Config:
        config = super().get_config()
        del config["dtype"]  # the layers have their own
        return {
            **config,
            "body": describe(self.body),
            "shortcut": None if self.shortcut is None else describe(self.shortcut),
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict[str, Any] | None = None) -> Self:
        """Make a layer from what `get_config` returned.

        Args:
            config: the name and the two branches.
            custom_objects: the classes of inner layers that are not cnnlite's, by name: {"Scale": Scale}.
        """
        arguments = {
            key: rebuild(value, custom_objects) if key in _BRANCHES and value is not None
            else revive(value, custom_objects or {})
            for key, value in config.items()
        }
        if arguments.get("body") is None:  # a subclass that makes its own layers
            return cls(**arguments)
        trainable = boolean(arguments.pop("trainable", True), "trainable", cls.__name__)
        layer = cls(**arguments)
        # Not the property, which would also set it on the inner layers.
        layer._trainable = trainable
        return layer


def _stack(layers: Any, role: str, owner: str) -> Sequential:
    """Return a branch as a `Sequential`, named after its role unless it has a name."""
    stack = registered("Sequential")
    if not isinstance(layers, (Layer, list, tuple)):
        raise TypeError(
            f"{owner}: {role} must be a layer, a list of layers or a Sequential. "
            f"Received: {role}={layers!r}, a {type(layers).__name__}."
        )
    if not isinstance(layers, stack):
        layers = stack([layers] if isinstance(layers, Layer) else layers, name=role)
    if not layers.inner_layers:
        remedy = "None stands for x itself" if role == "shortcut" else "Add a layer to it first"
        raise ValueError(f"{owner}: {role} must have at least one layer. Received: an empty one. {remedy}.")
    if not layers.name_is_given:
        layers.name = role
    layers.name_is_given = True
    return layers
