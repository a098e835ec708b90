"""How a layer holds its weights: arrays by name, which stay where they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.floating import conversion
from cnnlite.layers.changes import note_change
from cnnlite.types import Array, ArrayLike, DTypeLike, Shape

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer


class ArrayDict(dict[str, Array]):
    """Named arrays that stay where they are: `d[name] = values` copies into the array of that name.

    A model keeps all its parameters in one flat vector and its layers hold views into it. Copying on
    assignment is what lets a layer write `self.grads["kernel"] = ...` without leaving that vector.
    """

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        if name not in self:
            raise KeyError(f"{name!r} is not the name of a weight. Known: {', '.join(self) or 'none'}.")
        if np.shape(values) != self[name].shape:
            raise ValueError(
                f"{name} has shape {self[name].shape} and can't take values of shape {np.shape(values)}."
            )
        if getattr(values, "dtype", None) != self[name].dtype:
            with conversion():
                values = np.asarray(values, self[name].dtype)
        self[name][...] = values

    def bind(self, name: str, array: Array) -> None:
        """Make `array` itself the one of that name."""
        super().__setitem__(name, array)
        note_change()

    def __reduce__(self) -> tuple[Any, ...]:
        # Copying and pickling would otherwise assign to names that the new one doesn't have yet.
        return ArrayDict, (dict(self),)


class Weight:
    """A short way to a weight: with `kernel = Weight()` in its class, `layer.kernel` is `layer.params["kernel"]`.

    It is None where the layer has no such weight, and assigning to it copies, as `params` does.
    """

    def __set_name__(self, owner: type[Layer], name: str) -> None:
        self.name = name

    def __get__(self, layer: Layer | None, owner: type[Layer] | None = None) -> Any:
        return self if layer is None else layer.params.get(self.name, layer.state.get(self.name))

    def __set__(self, layer: Layer, values: ArrayLike) -> None:
        arrays = layer.params if self.name in layer.params else layer.state
        arrays[self.name] = values


# How many numbers the layers that are made now may still take for their weights; None for any.
_left: ContextVar[int | None] = ContextVar("left", default=None)


@contextlib.contextmanager
def weights_to_be_loaded(most: int) -> Iterator[None]:
    """Within it, weights are zeros for others to be copied into, and `most` numbers in all.

    So a file that describes layers which are larger than itself is refused before they cost memory, and nothing is
    drawn, or made orthogonal, in vain.
    """
    token = _left.set(most)
    try:
        yield
    finally:
        _left.reset(token)


def zeros_to_be_loaded(shape: Shape, dtype: DTypeLike) -> Array | None:
    """Return the array for a weight that will be loaded, or None where it is to be initialized."""
    left = _left.get()
    if left is None:
        return None
    size = math.prod(shape)
    if size > left:
        raise ValueError(f"its layers have more weights than it holds, one of them of the shape {tuple(shape)}")
    _left.set(left - size)
    return np.zeros(shape, dtype)
