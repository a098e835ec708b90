"""Whether the stages of neighbouring layers are fused: an optimisation that never changes a result.

A plan runs the stages of several layers back to back on a few samples at a time, while they are in the processor's
cache; see `cnnlite/engine/schedule.py`. Inside `with fusion.disabled():` the plan is the same but nothing is fused:
every stage runs over all samples before the next one starts, for inspection or comparison.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from cnnlite.eager import is_eager

_is_on = ContextVar("fusion", default=True)


def is_on() -> bool:
    """Return whether stages are fused in this context; in eager mode they never are."""
    return _is_on.get() and not is_eager()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run every stage on its own while the context lasts."""
    token = _is_on.set(False)
    try:
        yield
    finally:
        _is_on.reset(token)
