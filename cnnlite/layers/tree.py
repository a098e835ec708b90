"""A layer as a tree of layers and weights: names, weights by path, and how they are read and set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import initializers, regularizers
from cnnlite.layers.overrides import LayerType
from cnnlite.layers.weights import ArrayDict, only_reading, zeros_to_be_loaded
from cnnlite.support.arguments import float_array, shape_tuple
from cnnlite.support.floating import conversion, converted_or_raise
from cnnlite.support.interrupts import deferred_signals
from cnnlite.types import Array, ArrayLike, Identifier, Shape

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer
    from cnnlite.regularizers import Regularizer


class LayerTree(metaclass=LayerType):
    """The part of a `Layer` that holds its weights and the layers inside it."""

    dtype: Any
    built: bool
    inner_layers: Sequence[Layer]
    regularizers: dict[str, Regularizer]
    _params: ArrayDict
    _grads: ArrayDict
    _state: ArrayDict

    @property
    def name(self) -> str:
        """What summaries, files and errors call the layer; a string without "/"."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name or "/" in name or not name.isprintable():
            owner = type(self).__name__
            raise ValueError(f"{owner}: name must be a printable string without '/'. Received: name={name!r}.")
        self._name = name

    @property
    def trainable(self) -> bool:
        """Whether the weights train; setting it also sets it on every inner layer, as in Keras."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)  # a plain bool, as files hold it
        for layer in getattr(self, "inner_layers", ()):
            layer.trainable = value

    # The setters are for `layer.params |= {...}`, which ends by setting the attribute.

    @property
    def params(self) -> ArrayDict:
        """The trainable arrays by name; assigning to a name copies into its array."""
        return self._params.handed_over()

    @params.setter
    def params(self, arrays: ArrayDict) -> None:
        self.params.require_same(arrays)

    @property
    def grads(self) -> ArrayDict:
        """d loss / d param by the same names, as the last `backward` left them."""
        return self._grads

    @grads.setter
    def grads(self, arrays: ArrayDict) -> None:
        self.grads.require_same(arrays)

    @property
    def state(self) -> ArrayDict:
        """The arrays that training changes without a gradient."""
        return self._state.handed_over()

    @state.setter
    def state(self, arrays: ArrayDict) -> None:
        self.state.require_same(arrays)

    def walk(self) -> Iterator[Any]:
        """Yield this layer and every layer inside it."""
        yield self
        for layer in self.inner_layers:
            yield from layer.walk()

    def named_inner_layers(self) -> list[tuple[str, Layer]]:
        """Return [(name, layer), ...] for the inner layers; a name that is already taken gets a number."""
        named: dict[str, Layer] = {}
        for layer in self.inner_layers:
            name, number = layer.name, 0
            while name in named:
                number += 1
                name = f"{layer.name}_{number}"
            named[name] = layer
        return list(named.items())

    def named_layers(self, path: str | None = None) -> list[tuple[str, Layer]]:
        """Return [(path, layer), ...] for this layer and all inside it that have weights of their own."""
        path = self.name if path is None else path
        pairs: list[tuple[str, Any]] = [(path, self)]
        for name, layer in self.named_inner_layers():
            pairs += layer.named_layers(f"{path}/{name}")
        return [(name, layer) for name, layer in pairs if layer._params or layer._state]

    @property
    def weights(self) -> list[Array]:
        """All arrays in Keras's order: trainable ones first, those of inner layers last."""
        inner = [array for layer in self.inner_layers for array in layer.weights]
        return [*self.params.values(), *self.state.values(), *inner]

    @property
    def trainable_weights(self) -> list[Array]:
        """The `weights` that training changes by their gradients; none if `trainable=False`."""
        return list(self.params.values()) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The rest of `weights`."""
        trainable = {id(array) for array in self.trainable_weights}
        return [array for array in self.weights if id(array) not in trainable]

    def get_weights(self) -> list[Array]:
        """Return copies of `weights`."""
        with only_reading():
            return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Copy a list of arrays, in the order of `get_weights`, into the weights: all of them, or none on an error.

        Raises:
            TypeError: not a list of arrays of numbers.
            ValueError: the shapes differ, or a number is too large for the dtype of its weight.
        """
        if not isinstance(weights, (list, tuple)):
            raise TypeError(
                f"{self.name}: set_weights takes a list of arrays. Received: a {type(weights).__name__}."
            )
        arrays = [float_array(array, None, "a weight", self.name) for array in weights]
        shapes = [array.shape for array in arrays]
        with only_reading():
            mine = self.weights
        expected = [array.shape for array in mine]
        if not self.built:
            raise ValueError(f"{self.name}: set_weights needs weights to set. Call build(input_shape) first.")
        if shapes != expected:
            raise ValueError(
                f"{self.name}: set_weights takes arrays of the shapes {expected}. Received: shapes={shapes}."
            )
        converted = [self._as_weight(array, weight.dtype) for weight, array in zip(mine, arrays)]
        with deferred_signals():
            for weight, array in zip(mine, converted):
                weight[...] = array
            for layer in self.walk():
                layer._params.version += 1
                layer._state.version += 1

    def _as_weight(self, array: Array, dtype: np.dtype[Any]) -> Array:
        try:
            return converted_or_raise(array, dtype)
        except FloatingPointError:
            largest = float(np.abs(array[np.isfinite(array)]).max())
            raise ValueError(
                f"{self.name}: set_weights takes numbers that {dtype} can hold. Received: {largest:.3g} in an array "
                f"of shape {array.shape}. Clip it with np.clip, or make the layer with dtype='float64'."
            ) from None

    def count_params(self) -> int:
        """Return how many numbers the weights hold, including the non-trainable ones."""
        if not self.built:
            raise ValueError(f"{self.name}: count_params needs weights to count. Call build(input_shape) first.")
        with only_reading():
            return sum(array.size for array in self.weights)

    def add_weight(
        self,
        name: str,
        shape: Shape,
        initializer: Identifier = "glorot_uniform",
        *,
        trainable: bool = True,
        regularizer: Identifier | None = None,
    ) -> None:
        """Create an array of `shape`: in `params`, with its gradient, or in `state` if not trainable.

        Read it from there in every pass and keep no reference to it: training moves it into the model's flat vector.
        """
        shape = shape_tuple(shape, f"the shape of {name}", self.name, minimum=0)
        if None in shape:
            raise ValueError(f"{self.name}: the shape of {name} must be fully known. Received: shape={shape}.")
        array = zeros_to_be_loaded(shape, self.dtype)
        if array is None:
            array = initializers.get(initializer)(shape, self.dtype)
            with conversion():
                # Not np.ascontiguousarray, which gives a 0-d array an axis.
                array = np.array(array, self.dtype, order="C")
        if array.shape != shape:
            raise ValueError(
                f"{self.name}: the initializer of {name} must return an array of shape {shape}. "
                f"Received: shape={array.shape}."
            )
        if trainable:
            self._params.bind(name, array)
            self._grads.bind(name, np.zeros_like(array))
        else:
            self._state.bind(name, array)
        penalty = regularizers.get(regularizer)
        if penalty is not None:
            self.regularizers[name] = penalty
        self.built = True
