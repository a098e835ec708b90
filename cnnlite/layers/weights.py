"""How a layer holds its weights: arrays by name, which stay where they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cnnlite.engine.graph import current_graph
from cnnlite.support.arguments import real_array
from cnnlite.support.floating import conversion
from cnnlite.types import Array, ArrayLike, DTypeLike, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from cnnlite.layers.base import Layer


_reading: ContextVar[bool] = ContextVar("reading", default=False)


@contextlib.contextmanager
def only_reading() -> Iterator[None]:
    """Within the block, the library only reads arrays: accessing them does not mark them as handed out."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


class ArrayDict(dict[str, Array]):
    """Named arrays that stay where they are: `d[name] = values` copies into the array of that name.

    A model keeps all its parameters in one flat vector and its layers hold views into it. Copying on
    assignment is what lets a layer write `self.grads["kernel"] = ...` and still hold a view.

    `update` and `|=` copy in the same way, all arrays or none. Removing or replacing an array is a TypeError, and an
    unknown name a KeyError: a layer computes with the weights that it was built with. `d | other` and `d.copy()` are
    plain dicts.
    """

    version = 0  # incremented by the library each time it changes an array
    handed_out = False  # whether code outside the library holds one of the arrays, and may change it at any time

    def handed_over(self) -> Self:
        """Return these arrays, marked as handed out unless the library is building a graph or only reading."""
        if not self.handed_out and current_graph() is None and not _reading.get():
            self.handed_out = True
            self.version += 1
        return self

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        self[name][...] = self._converted(name, values)
        self.version += 1

    def update(self, *others: Any, **named: ArrayLike) -> None:
        """Copy values into several arrays: `d.update({"kernel": kernel, "bias": bias})`."""
        values = {}
        for name, value in dict(*others, **named).items():
            values[name] = self._converted(name, value).copy()  # as it may be a view of one of these arrays
        for name, value in values.items():
            self[name][...] = value
        self.version += 1

    def __ior__(self, others: Any) -> Self:  # type: ignore[misc,override]  # dict takes fewer kinds
        self.update(others)
        return self

    def setdefault(self, name: str, default: Any = None) -> Array:
        """Return the array of that name, which must be there."""
        if name not in self:
            raise self._unknown(name)
        return self[name]

    def pop(self, name: str, *default: Any) -> NoReturn:
        """Raise a TypeError."""
        raise self._refusal(f"pop({name!r})")

    def popitem(self) -> NoReturn:
        """Raise a TypeError."""
        raise self._refusal("popitem()")

    def clear(self) -> NoReturn:
        """Raise a TypeError."""
        raise self._refusal("clear()")

    def __delitem__(self, name: str) -> NoReturn:
        raise self._refusal(f"del of {name!r}")

    def bind(self, name: str, array: Array) -> None:
        """Store `array` itself, not a copy, under that name."""
        super().__setitem__(name, array)
        self.version += 1

    def unbind_all(self) -> None:
        """Remove all arrays, for a layer that could not be built."""
        super().clear()
        self.version += 1

    def require_same(self, arrays: Any) -> None:
        """Raise a TypeError unless these are the very arrays that are already here."""
        if not isinstance(arrays, ArrayDict) or any(arrays.get(name) is not array for name, array in self.items()):
            raise self._refusal(f"{type(arrays).__name__} in place of all of them")

    def __reduce__(self) -> tuple[Any, ...]:
        # Copying and pickling would otherwise assign to names that the new dict doesn't have yet. The new dict counts
        # as handed out if this one does: whoever copies an array along with its dict gets the array in the new dict.
        return ArrayDict, (dict(self),), {"handed_out": True} if self.handed_out else None

    def _converted(self, name: str, values: ArrayLike) -> Array:
        """Return values in the dtype of the array of that name, checked to have its shape."""
        if name not in self:
            raise self._unknown(name)
        mine = self[name]
        if type(values) is not np.ndarray or values.dtype != mine.dtype:
            array = real_array(values, name, "weights")
            with conversion():
                values = np.asarray(array, mine.dtype)
        if values.shape != mine.shape:
            raise ValueError(f"{name} has shape {mine.shape} and can't take values of shape {values.shape}.")
        return values

    def _unknown(self, name: str) -> KeyError:
        return KeyError(f"{name!r} is not the name of a weight. Known: {', '.join(self) or 'none'}.")

    @staticmethod
    def _refusal(received: str) -> TypeError:
        return TypeError(
            f"A layer keeps the arrays that it was built with. Received: {received}. Copy values into them with "
            "update, or take a plain dict of them with dict(...)."
        )


class Weight:
    """A shortcut to a weight: with `kernel = Weight()` in its class, `layer.kernel` is `layer.params["kernel"]`.

    It is None if the layer has no such weight. Assigning to it copies, as with `params`.
    """

    def __set_name__(self, owner: type[Layer], name: str) -> None:
        self.name = name

    def __get__(self, layer: Layer | None, owner: type[Layer] | None = None) -> Any:
        return self if layer is None else layer.params.get(self.name, layer.state.get(self.name))

    def __set__(self, layer: Layer, values: ArrayLike) -> None:
        arrays = layer.params if self.name in layer.params else layer.state
        arrays[self.name] = values


# While weights are to be loaded: how many more numbers they may hold. Otherwise None.
_left: ContextVar[int | None] = ContextVar("left", default=None)


@contextlib.contextmanager
def weights_to_be_loaded(most: int) -> Iterator[None]:
    """Within the block, create weights as zeros to be overwritten, with at most `most` numbers in all.

    So a file that describes layers larger than itself is refused before they take memory, and no time is wasted on
    initial values that are about to be overwritten.
    """
    token = _left.set(most)
    try:
        yield
    finally:
        _left.reset(token)


def zeros_to_be_loaded(shape: Shape, dtype: DTypeLike) -> Array | None:
    """Return the array for a weight that will be loaded, or None if it is to be initialised."""
    left = _left.get()
    if left is None:
        return None
    size = math.prod(shape)
    if size > left:
        raise ValueError(f"its layers have more weights than the file holds, one of them of shape {tuple(shape)}")
    _left.set(left - size)
    return np.zeros(shape, dtype)
