"""The parts of a stack of layers: its layers, with each nested model replaced by the layers in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cnnlite.engine.graph import stages_of
from cnnlite.layers.activation import ActivationLayer, leaving_out
from cnnlite.layers.base import Layer
from cnnlite.layers.overrides import class_keeps, is_untouched, keeps
from cnnlite.types import Array

# A model in a stack that overrides one of these is not split into its layers, but runs as a single part.
STACK_PASSES = ("prepare", "forward", "backward", "backward_weights", "forward_pass", "backward_pass")


class Part(NamedTuple):
    """A layer that runs as a unit.

    Attributes:
        layer: the layer.
        is_ours: whether a plan can replace it; see `is_ours`.
        within: the nested models that begin with this part, outermost first; each checks its input.
        left_out: the activation that passes its input through; see `leaving_out`.
    """

    layer: Layer
    is_ours: bool
    within: tuple[Any, ...] = ()
    left_out: ActivationLayer | None = None


def whole(layer: Any) -> Part:
    """Return a layer as a single part."""
    return Part(layer, is_ours(layer))


def parts_of(layer: Any) -> list[Part]:
    """Return the parts of a layer: for a model the parts of its layers, else the layer itself."""
    if hasattr(layer, "forward_pass") and keeps(layer, *STACK_PASSES) and layer.inner_layers:
        first, *rest = [part for inner in layer.inner_layers for part in parts_of(inner)]
        return [first._replace(within=(layer, *first.within)), *rest]
    return [whole(layer)]


def is_ours(layer: Any) -> bool:
    """Return whether a plan can replace a layer: it and all inside it are untouched, traceable and of one dtype."""
    return all(is_untouched(inner) and inner.is_traceable and inner.dtype == layer.dtype for inner in layer.walk())


def backward_of_weights(layer: Any) -> Callable[[Array], Any]:
    """Return `layer.backward_weights`, or `layer.backward` if that is the only one the user has overridden."""
    if isinstance(layer, Layer) and class_keeps(type(layer), "backward_weights") and not keeps(layer, "backward"):
        return layer.backward
    return layer.backward_weights


class SinglePart:
    """A part that runs on its own: on arrays, or on the buffers of the graph being built."""

    def __init__(self, part: Part) -> None:
        self.part = part

    @property
    def has_trainable_weights(self) -> bool:
        return has_trainable_weights(self.part.layer)

    def forward(self, x: Any, training: bool = False) -> Any:
        with self._context():
            for model in self.part.within:
                x = model.prepare(x)
            return self.part.layer.forward(x, training=training)

    def forward_pass(self, x: Any) -> tuple[Any, SinglePart]:
        """Return the output in training mode, and the object whose `backward` belongs to this pass."""
        return self.forward(x, training=True), self

    def backward(self, dy: Any) -> Any:
        with self._context():
            return self.part.layer.backward(dy)

    def backward_weights(self, dy: Any) -> None:
        with self._context():
            backward_of_weights(self.part.layer)(dy)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        with stages_of(self.part.layer.name):
            if self.part.left_out is None:
                yield
                return
            with leaving_out(self.part.left_out):
                yield


def weights_of(parts: Iterable[Part]) -> list[dict[str, Array]]:
    """Return the dicts of all arrays that the parts own, without duplicates."""
    layers = {id(layer): layer for part in parts for layer in part.layer.walk()}
    return [arrays for layer in layers.values() for arrays in (layer._params, layer._grads, layer._state) if arrays]


def has_trainable_weights(layer: Layer) -> bool:
    return any(inner.trainable and inner._params for inner in layer.walk())
