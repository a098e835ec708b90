"""Checks of what users pass in. Every error states the rule, echoes the value and gives the remedy.

`owner` is what the user called ("Conv2D", "fit"), and opens the message.
"""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeGuard

import numpy as np

from cnnlite.support.floating import conversion
from cnnlite.types import Array, ArrayLike, DTypeLike, Shape, Symbolic


def integer(value: Any, name: str, owner: str, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`; TypeError or ValueError otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{owner}: {name} must be an integer. Received: {name}={value!r}.")
    if value < minimum:
        raise ValueError(f"{owner}: {name} must be at least {minimum}. Received: {name}={value}.")
    return int(value)


def pair(value: Any, name: str, owner: str, minimum: int = 1) -> tuple[int, int]:
    """Return an int, or a sequence of two, as a tuple of two ints of at least `minimum` and below 2**31."""
    items = (value, value) if isinstance(value, numbers.Integral) else value
    try:
        items = tuple(items)
    except TypeError:
        items = ()
    if len(items) != 2:
        raise ValueError(
            f"{owner}: {name} must be an integer or a pair of integers. Received: {name}={value!r}."
        )
    first, second = (integer(item, name, owner, minimum) for item in items)
    if max(first, second) >= 2**31:  # so that the product of two of them and a pixel count fits in 64 bits
        raise ValueError(f"{owner}: {name} must be less than 2**31. Received: {name}={value!r}.")
    return first, second


def number(
    value: Any,
    name: str,
    owner: str,
    minimum: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> float:
    """Return `value` as a float within [minimum, below) and above `above`, where these are given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{owner}: {name} must be a number. Received: {name}={value!r}.")
    try:
        converted = float(value)
    except OverflowError:  # an integer of more than 308 digits
        converted = math.inf
    rules = []
    if minimum is not None:
        rules.append((converted >= minimum, f"at least {minimum}"))
    if above is not None:
        rules.append((converted > above, f"greater than {above}"))
    if below is not None:
        rules.append((converted < below, f"less than {below}"))
    rules.append((math.isfinite(converted), "finite"))
    if not all(holds for holds, _ in rules):
        rule = " and ".join(text for _, text in rules)
        raise ValueError(f"{owner}: {name} must be {rule}. Received: {name}={value!r}.")
    return converted


def share(value: Any, name: str, owner: str) -> float:
    """Return `value` as a float from 0 to 1; TypeError or ValueError otherwise."""
    converted = number(value, name, owner, minimum=0)
    if converted > 1:
        raise ValueError(f"{owner}: {name} must be at most 1. Received: {name}={value}.")
    return converted


def boolean(value: Any, name: str, owner: str) -> bool:
    """Return `value` as a bool; TypeError for anything that is not one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: {name} must be True or False. Received: {name}={value!r}.")
    return bool(value)


def text(value: Any, name: str, owner: str) -> str:
    """Return `value` if it is a string of printable characters; TypeError or ValueError otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"{owner}: {name} must be a string. Received: {name}={value!r}.")
    if not value.isprintable():
        raise ValueError(f"{owner}: {name} must be a printable string. Received: {name}={value!r}.")
    return value


def one_of(value: Any, choices: Sequence[str], name: str, owner: str) -> str:
    """Return `value` if it is among `choices`; a ValueError that lists them otherwise."""
    if isinstance(value, str) and value in choices:
        return value
    known = ", ".join(repr(choice) for choice in choices)
    close = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{owner}: {name} must be one of {known}. Received: {name}={value!r}.{hint}")


def padding_mode(value: Any, name: str, owner: str) -> str:
    """Return "valid" or "same", accepted in upper or lower case."""
    return one_of(value.lower() if isinstance(value, str) else value, ("valid", "same"), name, owner)


def shape_tuple(value: Any, name: str, owner: str, minimum: int = 1) -> Shape:
    """Return a shape without its batch axis as a tuple of ints of at least `minimum`, or None."""
    items = (value,) if isinstance(value, numbers.Integral) else value
    try:
        items = tuple(items)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be a tuple of integers. Received: {name}={value!r}.") from None
    return tuple(None if item is None else integer(item, name, owner, minimum) for item in items)


def float_array(x: ArrayLike, dtype: DTypeLike | None, name: str, owner: str) -> Array:
    """Return `x` as a C-contiguous array of `dtype`, without a copy if it already is one.

    Integers and booleans are converted, as in Keras; text, objects and complex numbers raise a TypeError,
    ragged lists a ValueError. A symbolic array, as used while a plan is made, is returned as it is.
    """
    if is_prepared(x, dtype) or isinstance(x, Symbolic):
        return x
    x = real_array(x, name, owner)
    with conversion():
        x = np.ascontiguousarray(x, dtype=dtype) if x.ndim else x.astype(dtype)
    # A copy costs less than letting numba compile every kernel again for read-only or misaligned arrays.
    return x if x.flags.writeable and x.flags.aligned else x.copy()


def real_array(x: ArrayLike, name: str, owner: str) -> Array:
    """Return `x` as an array of real numbers, without a copy if it is one; the errors are those of `float_array`."""
    if type(x) is not np.ndarray:
        _check_container(x, name, owner)
    rule = f"{owner}: {name} must be an array of"
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{rule} numbers. Received a {type(x).__name__} that NumPy can't make into one: {error} Pad or crop the "
            "samples to one shape, then np.stack them."
        ) from None
    except (TypeError, RuntimeError) as error:  # from other libraries' tensors that are not plain arrays
        raise TypeError(f"{rule} numbers. Received: a {type(x).__name__} that NumPy can't read: {error}") from None
    kind = array.dtype.kind
    if kind not in "fiub":
        received, remedy = f"dtype={array.dtype}", _REMEDIES.get(kind, "")
        if kind == "O":
            received, remedy = _about_objects(array, x, name)
        raise TypeError(f"{rule} real numbers. Received: {received}. {remedy}".rstrip())
    return array


def is_sparse(x: Any) -> bool:
    """Return whether x is a sparse matrix, SciPy's or similar, which NumPy takes for a single object."""
    return not isinstance(x, np.ndarray) and hasattr(x, "nnz") and (hasattr(x, "toarray") or hasattr(x, "todense"))


_REMEDIES = {
    "U": 'Convert strings to numbers first: astype("float32") if they are digits, np.unique(labels, '
         "return_inverse=True)[1] if they are class names.",
    "c": "Pass the real and the imaginary part as two channels: np.stack([x.real, x.imag], axis=-1).",
    "M": 'Convert times to numbers first: x.astype("int64").',
    "V": "Take the fields out of the records first: np.lib.recfunctions.structured_to_unstructured(x).",
}
_REMEDIES |= {"S": _REMEDIES["U"], "m": _REMEDIES["M"]}


def _check_container(x: Any, name: str, owner: str) -> None:
    """Raise a TypeError if x, or an item of a list in it, is something that NumPy would misread as an array."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{owner}: {name} must be an array without a mask, as masked entries would count. "
            f"Received: a {type(x).__name__}. Replace the masked entries by numbers: {_call('filled(0)', name)}."
        )
    if is_sparse(x):
        method = "toarray" if hasattr(x, "toarray") else "todense"
        raise TypeError(
            f"{owner}: {name} must be a dense array. Received: a {type(x).__name__}, which is sparse. "
            f"Pass {_call(method + '()', name)}{', or a generator that does so batch by batch' if name == 'x' else ''}."
        )
    if isinstance(x, Mapping):
        raise TypeError(
            f"{owner}: {name} must be an array. Received: a {type(x).__name__}, which has {_keys(x)}. "
            "Pass one of its arrays."
        )
    if isinstance(x, (list, tuple)):
        kinds = set(map(type, x))  # for a million numbers, this takes a tenth of the time of np.asarray
        for kind in kinds:
            if issubclass(kind, (list, tuple, np.ma.MaskedArray)):
                for item in x:
                    if isinstance(item, (list, tuple, np.ma.MaskedArray)):
                        _check_container(item, name, owner)
                break


def _call(method: str, name: str) -> str:
    """Return the text of a method call on an argument, which some messages know only as "a weight"."""
    return f"{name}.{method}" if name.isidentifier() else method


def _keys(x: Mapping[Any, Any]) -> str:
    """Return some of the keys of x, for a message."""
    keys = [repr(key) for key in itertools.islice(x, 5)]
    return f"the keys {', '.join(keys)}{', ...' if len(x) > 5 else ''}" if keys else "no keys"


def _about_objects(array: Array, x: Any, name: str) -> tuple[str, str]:
    """Return what is wrong with an object array made from x, and the remedy."""
    if array.ndim == 0:
        return f"a {type(x).__name__}", f"Make a list of it first: list({name})." if hasattr(x, "__iter__") else ""
    for index, item in np.ndenumerate(array):
        if isinstance(item, (numbers.Real, Decimal, np.bool_)):
            continue
        received = f"dtype=object, with a {type(item).__name__} at {name}[{', '.join(map(str, index))}]"
        if isinstance(item, np.ma.MaskedArray):  # not to be stacked, which would drop the mask
            return received, "Replace the masked entries by numbers: filled(0)."
        if is_sparse(item):
            return received, "Pass dense arrays: toarray()."
        if isinstance(item, (str, bytes)):
            return received, _REMEDIES["U"]
        if hasattr(item, "__len__"):
            return received, f"Bring the arrays in it to one shape, then pass np.stack({name})."
        return received, f'Replace what is not a number, then pass {name}.astype("float32").'
    return "dtype=object", f'Pass {name}.astype("float32").'


def is_prepared(x: Any, dtype: DTypeLike | None) -> TypeGuard[Array]:
    """Return whether x is an array as `float_array` returns it."""
    if type(x) is not np.ndarray or not x.flags.carray or x.ndim == 0:
        return False
    return x.dtype == dtype if dtype is not None else x.dtype.kind in "fiub" and x.dtype.isnative
