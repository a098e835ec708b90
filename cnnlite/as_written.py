"""Whether an object still computes what the library wrote for it, so that compiled stages may stand for it.

A subclass may compute something else, and so may a function that was put on an object or a class, before a model ran or
after. It is asked before each step, and so must be cheap: layers, of which there are more, have
`cnnlite/layers/overrides.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any


class AsWritten:
    """Whether these methods of an object are those with which its class was remembered.

    >>> is_as_written = AsWritten("title")
    >>> is_as_written.remember([str])
    >>> is_as_written(type("Text", (str,), {})("a"))
    False
    """

    def __init__(self, *names: str) -> None:
        self._methods_of = operator.attrgetter(*names)
        self._written: dict[type, Any] = {}

    def remember(self, classes: Iterable[type]) -> None:
        """Take what stands in these classes for what the library wrote."""
        self._written.update((cls, self._methods_of(cls)) for cls in classes)

    def __call__(self, thing: Any) -> bool:
        cls = type(thing)
        written = self._written.get(cls)
        return (
            written is not None and bool(written == self._methods_of(cls))
            and not any(map(callable, vars(thing).values()))
        )
