"""The names that signatures use for what goes into cnnlite and what comes out.

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
"""A NumPy array, whatever its dtype. What takes an `ArrayLike` also takes lists and numbers."""

Shape = tuple[int | Any, ...]
"""The sizes of the axes, the batch first; None for a size that is not known.

Whether a size is known is seen only when the program runs, hence Any and not None: `Dense(shape[-1])` is right.
"""

IntPair = int | tuple[int, int] | list[int]
"""One integer for both axes of an image, or (height, width)."""

Config = dict[str, Any]
"""The arguments that make an object again, as plain values that JSON can hold."""

Logs = dict[str, Any]
"""The loss and the metrics by name."""

Identifier = str | type | Mapping[str, Any] | Callable[..., Any]
"""What stands for an object: its name, its class, its saved config, or the object itself, which can be called."""

Scores = Any
"""The loss as a float if there are no metrics; else a list in the order of `metrics_names`; or a dict by name.

Which one is known only when the program runs, hence Any: `loss, accuracy = model.evaluate(x, y)`.
"""


class Batches(Protocol):
    """An object with `__len__` and `__getitem__`, whose items are batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Data = ArrayLike | Iterable[Any] | Batches
"""Samples or labels, or something that yields batches of them."""


class Symbolic:
    """What stands for an array while a plan is made: layers are called with it, and say what is to be computed."""

    __slots__ = ()
