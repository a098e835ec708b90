"""How a layer holds its weights: arrays by name, which stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.layers.changes import note_change
from cnnlite.types import Array, ArrayLike

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
