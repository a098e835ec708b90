"""Eager mode: layers run one by one on the plain NumPy in `reference.py`, for debugging and for study.

    with cnnlite.reference_mode(): ...      everything computed inside it, in this thread
    compile(..., run_eagerly=True)          fit, evaluate and predict of one model
    CNNLITE_KERNELS=reference               a whole process; numba's own NUMBA_DISABLE_JIT=1 does the same

All three are the same mode. Results match those of the compiled kernels up to rounding, and dropout draws the
same masks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import numba

_is_eager = ContextVar(
    "eager", default=os.environ.get("CNNLITE_KERNELS") == "reference" or bool(numba.config.DISABLE_JIT)
)


def is_eager() -> bool:
    """Return whether kernels are replaced by their NumPy definitions in this context."""
    return _is_eager.get()


@contextlib.contextmanager
def reference_mode() -> Iterator[None]:
    """Run layer by layer on `cnnlite/reference.py` while the context lasts.

    Breakpoints in a layer's `forward` or `backward`, or in `reference.py`, are then hit, in `fit` too. The mode applies
    to the thread (and the asyncio task) that entered the context.

    >>> import numpy as np
    >>> import cnnlite
    >>> layer, x = cnnlite.layers.Dense(3), np.ones((2, 5))
    >>> y = layer(x)
    >>> with cnnlite.reference_mode():
    ...     bool(np.allclose(layer(x), y))
    True
    """
    token = _is_eager.set(True)
    try:
        yield
    finally:
        _is_eager.reset(token)
