"""Eager mode: layers run one by one on the few lines of NumPy in `reference.py`, for a debugger and for study.

    with cnnlite.reference_mode(): ...      whatever is computed within it, in this thread
    compile(..., run_eagerly=True)          what one model trains, evaluates and predicts
    CNNLITE_KERNELS=reference               a whole process; so does numba's own NUMBA_DISABLE_JIT=1

All three are the same mode. It computes what the compiled kernels compute, but for rounding, and draws the same masks
of dropout.
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
    """Return whether kernels are replaced by their definitions here."""
    return _is_eager.get()


@contextlib.contextmanager
def reference_mode() -> Iterator[None]:
    """Compute with `cnnlite/reference.py` while the context lasts, layer after layer.

    A breakpoint in a layer's `forward` or `backward`, or in a function of `reference.py`, stops there, also in `fit`.
    The mode is that of the thread (and of the asyncio task) that entered the context.

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
