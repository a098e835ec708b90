"""Whether an object still computes what the library wrote for it, so that compiled stages may replace it.

A subclass may compute something else, and so may a function assigned to an object or a class, before or after a model
has run. The check runs before every step, so it must be cheap; layers, which are more numerous, have their own in
`cnnlite/layers/overrides.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any


class AsWritten:
    """Tells whether these methods of an object are still those recorded for its class.

    >>> from cnnlite.losses import Huber
    >>> is_as_written = AsWritten("forward", "gradient")
    >>> is_as_written.remember([Huber])
    >>> is_as_written(Huber()), is_as_written(type("Mine", (Huber,), {})())
    (True, False)
    """

    def __init__(self, *names: str) -> None:
        self._methods_of, self._names = operator.attrgetter(*names), frozenset(names)
        self._written: dict[type, Any] = {}

    def remember(self, classes: Iterable[type]) -> None:
        """Record the current methods of these classes as what the library wrote."""
        self._written.update((cls, self._methods_of(cls)) for cls in classes)

    def __call__(self, thing: Any) -> bool:
        cls = type(thing)
        written = self._written.get(cls)
        return (
            written is not None and bool(written == self._methods_of(cls)) and self._names.isdisjoint(vars(thing))
        )
