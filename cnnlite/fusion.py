"""Whether the stages of neighbouring layers run together: an optimisation that never shows in a result.

A plan runs the stages of several layers one after the other for a few samples at a time, while these are in the
processor's cache; see `cnnlite/engine/schedule.py`. Within `with fusion.disabled():` it is the same plan with nothing
joined: each stage runs for all samples before the next one begins, to look at or to compare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from cnnlite.eager import is_eager

_is_on = ContextVar("fusion", default=True)


def is_on() -> bool:
    """Return whether stages run together here; in eager mode none do."""
    return _is_on.get() and not is_eager()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run every stage on its own while the context lasts."""
    token = _is_on.set(False)
    try:
        yield
    finally:
        _is_on.reset(token)
