"""What a model has worked out from its layers (its plans, say), and when it must be forgotten.

A layer knows the `Memo`s of the models that hold it. When one of its attributes is set, these forget what they hold,
and those of other models don't. When something is put on a class, or in the place of a kernel, all do.
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
    """A set of things that are in it for as long as they live.

    That of the standard library calls a function in Python when one dies, in which what a signal's handler raises would
    be lost. Here it is a method in C.
    """

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}

    def add(self, thing: T) -> None:
        key = id(thing)
        self._references[key] = weakref.ref(thing, partial(self._references.pop, key))

    def things(self) -> list[T]:
        """Return those that are alive."""
        found = [reference() for reference in list(self._references.values())]
        return [thing for thing in found if thing is not None]


_memos: WeakSet[Memo] = WeakSet()


class Memo:
    """What was worked out from layers, by a key; it is empty again as soon as one of them has changed.

    Args:
        layers: returns the layers.
    """

    def __init__(self, layers: Callable[[], Iterable[Any]]) -> None:
        self._layers = layers
        self._found: OrderedDict[Any, Any] | None = None  # None until it knows of each change
        _memos.add(self)

    def get(self, key: Any, work_out: Callable[[], T], most: int | None = None) -> T:
        """Return what `work_out()` returned for a key.

        Args:
            most: so many of the keys that are tuples and begin alike are kept, the last ones used.
        """
        found = self._found
        if found is None:
            # Whoever changes a layer from now on empties this very dict, or one that comes after it.
            found = self._found = OrderedDict()
            for layer in self._layers():
                layer.memos.add(self)
        # Several threads may be here at once; each of these calls is one step for the others.
        value = found.get(key, _UNKNOWN)
        if value is not _UNKNOWN:
            if most is not None:
                try:  # a context would take longer than all the rest
                    found.move_to_end(key)
                except KeyError:  # another thread has just made room
                    pass
            return value
        value = work_out()
        if self._found is found:
            found[key] = value
            if most is not None:
                alike = [other for other in list(found) if isinstance(other, tuple) and other[0] == key[0]]
                for oldest in alike[:-most]:
                    found.pop(oldest, None)
        return value

    def values(self) -> list[Any]:
        """Return all that it holds."""
        found = self._found
        return [] if found is None else list(found.values())

    def forget(self) -> None:
        """Forget everything."""
        self._found = None


def note_change(layer: Any) -> None:
    """Say that a layer has changed; to be called after it has, or another thread would keep what was before."""
    memos = vars(layer).get("_memos")
    for memo in () if memos is None else memos.things():
        memo.forget()


def note_change_of_all() -> None:
    """Say that any layer may have changed: a class has, or a kernel."""
    for memo in _memos.things():
        memo.forget()
