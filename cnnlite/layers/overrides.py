"""Whether an object still computes what the library wrote for it, since the stages of a plan stand for that alone.

A subclass may compute something else, and so may a function that was put on an object, on a class or in the place of a
kernel, before a model ran or after. Then the layer runs by itself, in Python, and calls what the user wrote.
"""

from __future__ import annotations

import functools
import types
from abc import ABCMeta
from collections.abc import Iterable
from typing import Any

from cnnlite import kernels
from cnnlite.layers.changes import note_change_of_all

_written: dict[Any, dict[str, Any]] = {}  # what stands in each class of the library


def remember(classes: Iterable[type]) -> None:
    """Take what stands in classes, and in the classes that they are made of, for what the library wrote."""
    for cls in classes:
        for base in cls.__mro__[:-1]:
            _written.setdefault(base, _contents(base))


def is_untouched(thing: Any) -> bool:
    """Return whether an object is of a class of the library's, with all of its methods as they were written."""
    cls: Any = type(thing)
    return cls in _written and _untouched[0] and _is_as_written(cls) and _methods(cls).isdisjoint(vars(thing))


def keeps(thing: Any, *names: str) -> bool:
    """Return whether these methods of an object, which may be of a subclass, are ones that the library wrote."""
    own = vars(thing)
    return not any(name in own for name in names) and class_keeps(type(thing), *names)


def class_keeps(cls: type, *names: str) -> bool:
    """Return whether these methods of a class, and those that they may call with super(), are the library's."""
    for name in names:
        found = [base for base in cls.__mro__[:-1] if name in base.__dict__]
        if not found or any(_written.get(base, {}).get(name) is not base.__dict__[name] for base in found):
            return False
    return True


class LayerType(ABCMeta):
    """The class of `Layer` and its subclasses, which notices that something is put on one of them.

    It is an ABCMeta so that a layer of yours may be an abstract class too.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _class_has_changed()

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        _class_has_changed()


class _Kernels(types.ModuleType):
    """The module `cnnlite.kernels`, which notices that a kernel is replaced."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        _untouched[0] = all(getattr(kernels, name, None) is written for name, written in _kernels.items())
        note_change_of_all()


_kernels = {name: getattr(kernels, name) for name in kernels.__all__}
_untouched = [True]  # whether all kernels are those of the library
kernels.__class__ = _Kernels


def _contents(cls: type) -> dict[str, Any]:
    """Return what stands in a class, without what Python keeps there for itself."""
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
