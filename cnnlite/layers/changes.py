"""What a model has worked out from its layers (its plans, say), and when it must be forgotten.

A layer knows the `Memo`s of the models that hold it. When one of its attributes is set, these forget what they hold,
and those of other models don't. When something is put on a class, or in the place of a kernel, all do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from cnnlite.locks import new_lock

T = TypeVar("T")

_memos: weakref.WeakSet[Memo] = weakref.WeakSet()
_lock = new_lock()  # held while a set of memos grows or is listed


class Memo:
    """What was worked out from layers, by a key; it is empty again as soon as one of them has changed.

    Args:
        layers: returns the layers.
    """

    def __init__(self, layers: Callable[[], Iterable[Any]]) -> None:
        self._layers = layers
        self._found: dict[Any, Any] | None = None  # None until it knows of each change
        with _lock:
            _memos.add(self)

    def get(self, key: Any, work_out: Callable[[], T], most: int | None = None) -> T:
        """Return what `work_out()` returned for a key.

        Args:
            most: so many of the keys that are tuples and begin alike are kept, the last ones used.
        """
        found = self._found
        if found is None:
            # Whoever changes a layer from now on empties this very dict, or one that comes after it.
            found = self._found = {}
            for layer in self._layers():
                with _lock:
                    layer.memos.add(self)
        if key in found:
            value = found[key]
            if most is not None:
                found[key] = found.pop(key, value)
            return value
        value = work_out()
        if self._found is found:
            found[key] = value
            if most is not None:
                alike = [other for other in list(found) if isinstance(other, tuple) and other[0] == key[0]]
                for oldest in alike[:-most]:
                    found.pop(oldest, None)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._found = None


def note_change(layer: Any) -> None:
    """Say that a layer has changed; to be called after it has, or another thread would keep what was before."""
    memos = vars(layer).get("_memos")
    if not memos:
        return
    with _lock:
        memos = list(memos)
    for memo in memos:
        memo.forget()


def note_change_of_all() -> None:
    """Say that any layer may have changed: a class has, or a kernel."""
    with _lock:
        memos = list(_memos)
    for memo in memos:
        memo.forget()
