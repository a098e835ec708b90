"""Caches of what a model has derived from its layers, such as its plans, and their invalidation.

A layer knows the `Memo`s of the models that contain it. Setting an attribute of the layer empties those memos, and
leaves other models' alone. Setting an attribute of a layer class, or replacing a kernel, empties every memo.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_UNKNOWN: Any = object()


class WeakSet(Generic[T]):
    """A set that holds its members weakly: each leaves the set when it dies.

    When a member dies, the standard library's WeakSet calls a Python function, in which an exception raised by a
    signal handler would be lost. Here the callback is a C method.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, thing: T) -> None:
        key = id(thing)
        self._references[key] = weakref.ref(thing, partial(self._references.pop, key))

    def things(self) -> list[T]:
        """Return the members that are alive."""
        found = [reference() for reference in list(self._references.values())]
        return [thing for thing in found if thing is not None]


_memos: WeakSet[Memo] = WeakSet()


class Memo:
    """A cache of what was derived from layers, by key; emptied as soon as one of them changes.

    Args:
        layers: returns the layers.
    """

    def __init__(self, layers: Callable[[], Iterable[Any]]) -> None:
        self._layers = layers
        self._found: OrderedDict[Any, Any] | None = None  # None until the layers know this memo
        _memos.add(self)

    def get(self, key: Any, compute: Callable[[], T], most: int | None = None) -> T:
        """Return the value for a key, calling `compute()` if it is not cached.

        Args:
            most: how many entries to keep whose keys are tuples with the same first item; the least recently used go.
        """
        found = self._found
        if found is None:
            # From here on, any change to a layer drops this dict, or one that has replaced it.
            found = self._found = OrderedDict()
            for layer in self._layers():
                layer.memos.add(self)
        # Several threads may be here at once; each of these calls is atomic.
        value = found.get(key, _UNKNOWN)
        if value is not _UNKNOWN:
            if most is not None:
                try:  # contextlib.suppress would take longer than all the rest
                    found.move_to_end(key)
                except KeyError:  # another thread has just evicted it
                    pass
            return value
        value = compute()
        if self._found is found:
            found[key] = value
            if most is not None:
                alike = [other for other in list(found) if isinstance(other, tuple) and other[0] == key[0]]
                for oldest in alike[:-most]:
                    found.pop(oldest, None)
        return value

    def values(self) -> list[Any]:
        """Return all cached values."""
        found = self._found
        return [] if found is None else list(found.values())

    def forget(self) -> None:
        """Forget everything."""
        self._found = None


def note_change(layer: Any) -> None:
    """Empty the memos of a layer; call it after the change, or another thread may cache the old state."""
    memos = vars(layer).get("_memos")
    for memo in () if memos is None else memos.things():
        memo.forget()


def note_change_of_all() -> None:
    """Empty all memos: a class or a kernel has changed, and so may have any layer."""
    for memo in _memos.things():
        memo.forget()
