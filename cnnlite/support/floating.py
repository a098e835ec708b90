"""Floating-point errors: the library computes the same whatever a user has told NumPy's `seterr`.

On the way to a right result numbers underflow to 0, and a model that diverges says so by its loss, inf or NaN. Where
a user has NumPy raise an error of that, or makes errors of warnings, training would stop in the middle of a step.
Division by zero is left to `seterr`: the library takes care of its own, and a user's loss may want to know of it.
"""

import numpy as np

from cnnlite.types import Array, DTypeLike


def arithmetic() -> np.errstate:
    """Return a context for the library's own arithmetic, in which numbers overflow and underflow without a word."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def conversion() -> np.errstate:
    """Return a context for the conversion of a user's numbers: one too large becomes infinite, at most with a warning.

    It is the same for every `seterr`, except that who ignores overflow gets no warning.
    """
    over = np.geterr()["over"]
    return np.errstate(over="warn" if over == "raise" else over, under="ignore", invalid="ignore")


def converted_or_raise(array: Array, dtype: DTypeLike) -> Array:
    """Return the array in a dtype; a FloatingPointError if that can't hold a number of it."""
    with np.errstate(over="raise", under="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)
