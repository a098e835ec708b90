"""Checks of what users pass in. Each error states the rule, echoes the value and gives the remedy.

`owner` is the name that the user knows the receiver by ("Conv2D", "fit"), and opens the message.
"""

import difflib
import math
import numbers

import numpy as np


def integer(value, name, owner, minimum=1):
    """Return `value` as an int of at least `minimum`; TypeError or ValueError otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{owner}: {name} must be an integer. Received: {name}={value!r}.")
    if value < minimum:
        raise ValueError(f"{owner}: {name} must be at least {minimum}. Received: {name}={value}.")
    return int(value)


def pair(value, name, owner, minimum=1):
    """Return an int, or a sequence of two, as a tuple of two ints of at least `minimum`."""
    items = (value, value) if isinstance(value, numbers.Integral) else value
    try:
        items = tuple(items)
    except TypeError:
        items = ()
    if len(items) != 2:
        raise ValueError(
            f"{owner}: {name} must be an integer or a pair of integers. Received: {name}={value!r}."
        )
    return tuple(integer(item, name, owner, minimum) for item in items)


def number(value, name, owner, minimum=None, below=None, above=None):
    """Return `value` as a float within [minimum, below) and above `above`, where these are given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{owner}: {name} must be a number. Received: {name}={value!r}.")
    rules = []
    if minimum is not None:
        rules.append((value >= minimum, f"at least {minimum}"))
    if above is not None:
        rules.append((value > above, f"greater than {above}"))
    if below is not None:
        rules.append((value < below, f"less than {below}"))
    try:
        converted = float(value)
    except OverflowError:  # an integer of more than 308 digits
        converted = math.inf
    rules.append((math.isfinite(converted), "finite"))
    if not all(holds for holds, _ in rules):
        rule = " and ".join(text for _, text in rules)
        raise ValueError(f"{owner}: {name} must be {rule}. Received: {name}={value!r}.")
    return converted


def boolean(value, name, owner):
    """Return `value` as a bool; TypeError for anything that is not one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: {name} must be True or False. Received: {name}={value!r}.")
    return bool(value)


def one_of(value, choices, name, owner):
    """Return `value` if it is among `choices`; a ValueError that lists them otherwise."""
    if isinstance(value, str) and value in choices:
        return value
    known = ", ".join(repr(choice) for choice in choices)
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{owner}: {name} must be one of {known}. Received: {name}={value!r}.{hint}")


def padding_mode(value, owner):
    """Return "valid" or "same", whatever the case of its letters."""
    return one_of(value.lower() if isinstance(value, str) else value, ("valid", "same"), "padding", owner)


def shape_tuple(value, name, owner):
    """Return a shape without its batch axis as a tuple of positive ints and None."""
    items = (value,) if isinstance(value, numbers.Integral) else value
    try:
        items = tuple(items)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be a tuple of integers. Received: {name}={value!r}.") from None
    return tuple(None if item is None else integer(item, name, owner) for item in items)


def float_array(x, dtype, name, owner):
    """Return `x` as a C-contiguous array of `dtype`, itself where it already is one.

    Integers and booleans are converted, as Keras does; text, objects and complex numbers are a TypeError,
    ragged lists a ValueError.
    """
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{owner}: {name} must be an array of numbers. Received a list that NumPy can't make into one: {error}"
        ) from None
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: {name} must be an array of real numbers. Received: dtype={x.dtype}.")
    x = np.ascontiguousarray(x, dtype=dtype) if x.ndim else x.astype(dtype)
    # A copy costs less than what numba would do: compile every kernel again for arrays that can't be written to.
    return x if x.flags.writeable else x.copy()
