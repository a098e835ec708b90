"""Values as JSON, with their arrays beside it: all come back with the same bits and types.

Numbers, strings, lists and dicts stand for themselves. What JSON cannot express is a dict with the key "$":

    an array                  {"$": "array", "name": "history/val_precision/0"}, a key of `tensors`
    a NumPy scalar            {"$": "scalar", "name": ...}, likewise
    a tuple                   {"$": "tuple", "items": [...]}
    a dict with other keys    {"$": "dict", "items": [[key, value], ...]}
"""

import numpy as np

_DTYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "float16", "float32", "float64"}


def pack(value, tensors, name):
    """Return `value` in JSON form, and put its arrays into the dict `tensors`, under names that begin with `name`.

    Raises:
        TypeError: `value` holds anything else.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in _DTYPES:
        tensors[name] = np.array(value, value.dtype.newbyteorder("="), order="C")
        return {"$": "scalar" if isinstance(value, np.generic) else "array", "name": name}
    if type(value) in (list, tuple):
        items = [pack(item, tensors, f"{name}/{i}") for i, item in enumerate(value)]
        return items if type(value) is list else {"$": "tuple", "items": items}
    if type(value) is dict:
        if "$" not in value and all(type(key) is str for key in value):
            return {key: pack(item, tensors, f"{name}/{key}") for key, item in value.items()}
        return {"$": "dict", "items": pack([list(item) for item in value.items()], tensors, name)}
    raise TypeError(f"{name} is of type {type(value).__name__}")


def unpack(value, tensors):
    """Return what `pack` was given, and pop its arrays from `tensors`; none of them is used twice."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {key: unpack(item, tensors) for key, item in value.items()}
    if kind in ("array", "scalar"):
        array = tensors.pop(value["name"])
        return array[()] if kind == "scalar" else array
    items = unpack(value["items"], tensors)
    return dict(items) if kind == "dict" else tuple(items)
