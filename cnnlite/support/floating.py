"""Floating-point errors: the library computes the same, whatever the user's `np.seterr`.

Numbers underflow to 0 on the way to a correct result, and a diverging model shows it by its loss, inf or NaN. If a user
has NumPy raise on these, or turns warnings into errors, training would stop in the middle of a step. Division by zero
is left to `seterr`: the library avoids its own, and a user's loss may want to know of it.
"""

import numpy as np

from cnnlite.types import Array, DTypeLike


def arithmetic() -> np.errstate:
    """Return a context for the library's own arithmetic, in which numbers overflow and underflow silently."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


def conversion() -> np.errstate:
    """Return a context for converting a user's numbers: one too large becomes infinite, at most with a warning.

    Of `seterr`, only the setting for overflow counts, with "raise" lowered to "warn".
    """
    over = np.geterr()["over"]
    return np.errstate(over="warn" if over == "raise" else over, under="ignore", invalid="ignore")


def converted_or_raise(array: Array, dtype: DTypeLike) -> Array:
    """Return the array in a dtype; a FloatingPointError if one of its numbers is too large for that."""
    with np.errstate(over="raise", under="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)
