"""The weights of a stack of layers: the arrays of all layers by path, and the flat vector that they live in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cnnlite import regularizers
from cnnlite.engine.buffers import is_buffer
from cnnlite.engine.graph import current_graph, stages_of
from cnnlite.kernels.finite import add_numbers
from cnnlite.layers.base import Layer
from cnnlite.layers.flat_parameters import FlatParameters
from cnnlite.layers.memo import Memo
from cnnlite.layers.settings import float_dtype
from cnnlite.layers.weights import ArrayDict
from cnnlite.types import Array, DTypeLike, Shape


class CompositeLayer(Layer):
    """The part of a model that knows where its layers' weights are."""

    _flat: FlatParameters | None = None
    _memo: Memo | None = None

    @property
    def memo(self) -> Memo:
        """What the model has derived from its layers, cached until one of them changes."""
        memo = self._memo
        if memo is None:
            memo = self._memo = Memo(lambda: Layer.walk(self))
        return memo

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry over: everything that can't be derived again."""
        return {name: value for name, value in super().__getstate__().items() if name not in ("_memo", "_flat")}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the first layer, to which inputs are converted."""
        return self.inner_layers[0].dtype if self.inner_layers else self._dtype

    @dtype.setter
    def dtype(self, dtype: DTypeLike | None) -> None:
        if getattr(self, "inner_layers", ()):
            raise ValueError(
                f"{self.name}: a model takes its dtype from its layers. Received: dtype={dtype!r} for a model of "
                f"{self.dtype} layers. Pass dtype= to each layer when you make it."
            )
        self._dtype = float_dtype(dtype, "dtype", type(self).__name__)

    def _named_arrays(self, kind: str) -> ArrayDict:
        return ArrayDict({
            f"{path}/{key}": array for path, layer in self.named_layers() for key, array in getattr(layer, kind).items()
        })

    @property
    def params(self) -> ArrayDict:
        """The trainable arrays of all layers by path ("conv2d/kernel")."""
        return self._named_arrays("params")

    @params.setter
    def params(self, arrays: ArrayDict) -> None:
        self.params.require_same(arrays)

    @property
    def grads(self) -> ArrayDict:
        """d loss / d param by the same paths, as the last `backward` left them."""
        return self._named_arrays("grads")

    @grads.setter
    def grads(self, arrays: ArrayDict) -> None:
        self.grads.require_same(arrays)

    @property
    def state(self) -> ArrayDict:
        """The arrays of all layers that training changes without a gradient, by path."""
        return self._named_arrays("state")

    @state.setter
    def state(self, arrays: ArrayDict) -> None:
        self.state.require_same(arrays)

    @property
    def weights(self) -> list[Array]:
        """All arrays, layer by layer, in Keras's order."""
        return [array for layer in self.inner_layers for array in layer.weights]

    @property
    def trainable_weights(self) -> list[Array]:
        """The `weights` that training changes by their gradients."""
        return [array for layer in self.inner_layers for array in layer.trainable_weights]

    def named_layers(self, path: str | None = None) -> list[tuple[str, Layer]]:
        """Return [(path, layer), ...] for all inner layers that have weights of their own."""
        prefix = "" if path is None else f"{path}/"
        return [pair for name, layer in self.named_inner_layers() for pair in layer.named_layers(prefix + name)]

    def parameters(self) -> FlatParameters:
        """Return the `FlatParameters` that hold all the model's trainable weights and their gradients."""
        for layer in self.walk():
            layer._params.handed_over()
        return self._parameters()

    def _parameters(self) -> FlatParameters:
        """Return what `parameters` returns, without marking the arrays as handed out: for the library's own use."""
        flat = self._flat
        # A layer may have been added, or its weights moved into another model's vector.
        if flat is None or not flat.holds() or flat.owners_and_keys != self._owners_and_keys():
            flat = self._flat = FlatParameters(self.named_layers())
        return flat

    def _owners_and_keys(self) -> list[tuple[int, str]]:
        return self.memo.get("owners", lambda: [(id(layer), key) for layer in self.walk() for key in layer._params])

    def walk(self) -> Iterator[Layer]:
        """Yield this model and every layer inside it."""
        return iter(self.memo.get("walk", lambda: tuple(super(CompositeLayer, self).walk())))

    def regularization_loss(self) -> float:
        """Return the sum of the penalties of all trainable layers' regularizers."""
        return float(sum(
            penalty(_shown(layer, penalty)[key])
            for layer in self.walk() if layer.regularizers and layer.trainable
            for key, penalty in layer.regularizers.items()
        ))

    def add_penalties(self, loss: Any) -> Any:
        """Return `loss` plus `regularization_loss`: a number, or a buffer if `loss` is a graph's buffer."""
        if not is_buffer(loss):
            return loss + self.regularization_loss()
        for layer in self.walk():
            for key, penalty in layer.regularizers.items() if layer.trainable else ():
                with stages_of(layer.name):
                    loss = add_numbers(loss, penalty(loss.graph.of_array(layer._params[key])))
        return loss

    def add_regularization_gradients(self) -> None:
        """Add the gradients of `regularization_loss` to `grads`."""
        graph = current_graph()
        for layer in self.walk():
            if layer.regularizers and layer.trainable:
                for key, penalty in layer.regularizers.items():
                    arrays: Any = _shown(layer, penalty)[key], layer._grads[key]
                    if graph is not None:
                        arrays = map(graph.of_array, arrays)
                    with stages_of(layer.name):
                        penalty.add_gradient(*arrays)


def _shown(layer: Layer, penalty: Any) -> ArrayDict:
    """Return the weights for a penalty to read; a user's own penalty might keep a reference to them."""
    return layer._params if regularizers.is_traceable(penalty) else layer.params


@contextlib.contextmanager
def unbuilt_on_error(layers: Sequence[Layer]) -> Iterator[None]:
    """If building the layers fails half-way, leave them as unbuilt as they were."""
    unbuilt = [inner for layer in layers for inner in layer.walk() if not inner.built]
    try:
        yield
    except BaseException:
        for layer in unbuilt:
            for arrays in (layer._params, layer._grads, layer._state):
                arrays.unbind_all()
            layer.regularizers.clear()
            layer.built, layer.input_shape = False, None
        raise


def fits(shape: Shape, wanted: Shape) -> bool:
    """Return whether `shape` matches `wanted`; None on either side matches any size."""
    return len(shape) == len(wanted) and all(
        a == b or a is None or b is None for a, b in zip(shape, wanted)
    )
