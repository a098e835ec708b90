"""Whether an object still runs the library's own code, since that is all that the stages of a plan reproduce.

A subclass may compute something else, and so may a function that was assigned to an object or a class or that replaces
a kernel, before or after a model has run. Such a layer runs outside the plan, in Python, and calls the user's code.
"""

from __future__ import annotations

import functools
import types
from abc import ABCMeta
from collections.abc import Iterable
from typing import Any

from cnnlite import kernels
from cnnlite.layers.memo import note_change_of_all

_written: dict[Any, dict[str, Any]] = {}  # the attributes of each of the library's classes


def remember(classes: Iterable[type]) -> None:
    """Record what these classes and their bases contain as the library's own code."""
    for cls in classes:
        for base in cls.__mro__[:-1]:
            _written.setdefault(base, _contents(base))


def is_untouched(thing: Any) -> bool:
    """Return whether an object's class is the library's, with all methods and all kernels as the library wrote them."""
    cls: Any = type(thing)
    return cls in _written and _untouched[0] and _is_as_written(cls) and _methods(cls).isdisjoint(vars(thing))


def keeps(thing: Any, *names: str) -> bool:
    """Return whether these methods of an object, whose class may be a user's, are the library's."""
    own = vars(thing)
    return not any(name in own for name in names) and class_keeps(type(thing), *names)


def class_keeps(cls: type, *names: str) -> bool:
    """Return whether these methods of a class, and any that they may call through super(), are the library's."""
    for name in names:
        found = [base for base in cls.__mro__[:-1] if name in base.__dict__]
        if not found or any(_written.get(base, {}).get(name) is not base.__dict__[name] for base in found):
            return False
    return True


class LayerType(ABCMeta):
    """The metaclass of `Layer`, which notices when an attribute of a layer class is set or deleted.

    It is an ABCMeta so that a layer class of your own may be abstract too.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _class_has_changed()

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        _class_has_changed()


class _Kernels(types.ModuleType):
    """The module `cnnlite.kernels`, which notices when a kernel is replaced."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _untouched[0] = all(getattr(kernels, name, None) is written for name, written in _kernels.items())
        note_change_of_all()


_kernels = {name: getattr(kernels, name) for name in kernels.__all__}
_untouched = [True]  # whether all kernels are the library's
kernels.__class__ = _Kernels


def _contents(cls: type) -> dict[str, Any]:
    """Return the attributes of a class, except those that Python keeps there for itself."""
    acting = ("__call__", "__getattribute__", "__getattr__")
    return {name: value for name, value in vars(cls).items() if not name.startswith("__") or name in acting}


@functools.cache
def _is_as_written(cls: Any) -> bool:
    return all(_contents(base) == _written[base] for base in cls.__mro__[:-1])


@functools.cache
def _methods(cls: Any) -> frozenset[str]:
    return frozenset(name for base in cls.__mro__ for name, value in vars(base).items()
                     if callable(value) or isinstance(value, classmethod))


def _class_has_changed() -> None:
    _is_as_written.cache_clear()
    _methods.cache_clear()
    note_change_of_all()
