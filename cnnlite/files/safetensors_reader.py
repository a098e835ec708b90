"""Read untrusted safetensors files: every size is checked before memory is allocated.

    8 bytes    n, the length of the header, little-endian
    n bytes    JSON: {"__metadata__": {name: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    the rest   the arrays, one after the other, without gaps

Every function raises a ValueError that says what is wrong with the file. The safetensors package, which writes our
files, also reads them, but it accepts headers of up to 100 MB, which take fifty times as much memory once parsed, and
its errors do not say which array is wrong.
"""

import json
import math
import os
from typing import BinaryIO, NamedTuple

import numpy as np

from cnnlite.types import Array

# Parsed JSON takes up to fifty times the memory of its text. Even a model of a thousand layers needs only a megabyte.
LARGEST_HEADER = 2**24
DTYPES = {
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "?",
    "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "<u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}


class Place(NamedTuple):
    """Where an array lies in a file."""

    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: str


def read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, object], int]:
    """Return the metadata, the header's entry for each array, and the offset of the first array."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise ValueError(f"its header claims {length} bytes, but the file has {size}")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header claims {length} bytes, but {LARGEST_HEADER} is the limit")
    header = parse_json(file.read(length).decode())
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not strings")
    return metadata, header, 8 + length


def read_tensors(file: BinaryIO, table: dict[str, object], start: int) -> dict[str, Array]:
    """Return new arrays as the header describes them, after checking that they fill the file exactly."""
    places = {name: _place(name, entry) for name, entry in table.items()}
    filled = 0
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        if place.start != filled:
            raise ValueError(f"{shown(name)} lies at byte {place.start} of the arrays, where {filled} is expected")
        filled = place.stop
    size = os.fstat(file.fileno()).st_size - start
    if filled != size:
        raise ValueError(f"its arrays claim {filled} bytes, but the file holds {size}")
    return {name: _read_array(file, start, name, place) for name, place in places.items()}


def _place(name, entry):
    if not name.isascii():
        name.encode()  # half a surrogate pair, which JSON can spell, is a ValueError
    try:
        (begin, end), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{shown(name)} has no dtype, shape and data_offsets") from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{shown(name)} has the dtype {shown(dtype)}, which cnnlite does not read")
    if not isinstance(shape, list) or not all(type(item) is int and 0 <= item < 2**63 for item in (*shape, begin, end)):
        raise ValueError(f"{shown(name)} has a shape or data_offsets that are not sizes")
    if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{shown(name)} has {end - begin} bytes, which is not what {dtype} {shown(shape)} takes")
    return Place(begin, end, tuple(shape), DTYPES[dtype])


def _read_array(file, start, name, place):
    try:
        array = np.empty(place.shape, place.dtype)
    except MemoryError:
        size = place.stop - place.start
        raise ValueError(f"{shown(name)} takes {size} bytes of memory, more than there is") from None
    file.seek(start + place.start)
    memory, filled = bytes_of(array), 0
    while filled < len(memory):
        count = file.readinto(memory[filled:])
        if not count:
            raise ValueError(f"it ends within {shown(name)}")
        filled += count
    return array


def bytes_of(array: Array) -> memoryview:
    """Return the bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def parse_json(text: str) -> object:
    """Return the value of a JSON text; a ValueError if it is not JSON, has a key twice or is nested too deeply."""

    def table(pairs):
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key appears twice in an object")
        return made

    try:
        return json.loads(text, object_pairs_hook=table)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shown(thing: object) -> str:
    """Return something from a file in a form fit for a message: short, and with unprintable characters escaped."""
    text = thing if isinstance(thing, str) else repr(thing)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 200 else f"{text[:200]}..."
