"""The types that the signatures of the public API use.

All of them are plain Python types: nothing is checked or converted at run time because of them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy.typing as npt
from numpy.typing import ArrayLike, DTypeLike

__all__ = [
    "Array",
    "ArrayLike",
    "Batches",
    "Config",
    "DTypeLike",
    "Data",
    "Identifier",
    "IntPair",
    "Logs",
    "Scores",
    "Shape",
]

Array = npt.NDArray[Any]
"""A NumPy array of any dtype. Arguments typed `ArrayLike` also accept lists and numbers."""

Shape = tuple[int | Any, ...]
"""The sizes of the axes, the batch first; None for a size that is not known.

Which sizes are known shows only at run time, so the type is Any, not None: `Dense(shape[-1])` must type-check.
"""

IntPair = int | tuple[int, int] | list[int]
"""One integer for both axes of an image, or (height, width)."""

Config = dict[str, Any]
"""The arguments that recreate an object, as plain values that JSON can hold."""

Logs = dict[str, Any]
"""The loss and the metrics by name."""

Identifier = str | type | Mapping[str, Any] | Callable[..., Any]
"""What identifies an object: its name, its class, its saved config, or the object itself, which is callable."""

Scores = Any
"""The loss as a float if there are no metrics; else a list in the order of `metrics_names`; or a dict by name.

Which one it is shows only at run time, so the type is Any: `loss, accuracy = model.evaluate(x, y)`.
"""


class Batches(Protocol):
    """An object with `__len__` and `__getitem__`, whose items are batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Data = ArrayLike | Iterable[Any] | Batches
"""Samples or labels, or something that yields batches of them."""


class Symbolic:
    """A stand-in for an array while a plan is made: layers are called with it and record what to compute."""

    __slots__ = ()
