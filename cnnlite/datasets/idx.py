"""Read IDX files, the format in which MNIST was published.

    00 00 | 08 | rank | size of each axis, 4 bytes each, big-endian | the elements, last axis fastest

The third byte is the type of the elements: 08 for unsigned bytes, the only one that image sets use.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

# A compressed file may expand to this many bytes, or to this many times its size if that is more. Real images expand
# tenfold, a file made to exhaust memory a thousandfold.
MOST_BYTES = 2**28
MOST_GROWTH = 100


def most_bytes(path):
    """Return how many bytes a compressed file may expand to."""
    return max(MOST_BYTES, MOST_GROWTH * Path(path).stat().st_size)


def read_idx(path, rank):
    """Return the array in an IDX file, plain or gzip, as a new uint8 array with `rank` axes.

    Raises:
        ValueError: the file doesn't match its header, or has no valid one; the message says how.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as stream:
            return _read_stream(stream, rank, most_bytes(path) if packed else path.stat().st_size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: it can't be unpacked ({error}). Get a new copy of it.") from error
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or not an IDX file of the right kind: {error}") from error


def _read_stream(stream, rank, most):
    magic = _read_exactly(stream, 4, "the header")
    if magic[:2] != b"\0\0" or magic[2] != 8 or magic[3] != rank:
        raise ValueError(f"it must begin with the bytes 00 00 08 {rank:02x}. Received: {magic.hex(' ')}.")
    shape = struct.unpack(f">{rank}I", _read_exactly(stream, 4 * rank, "the header"))
    size = math.prod(shape)
    if size > most:
        raise ValueError(f"its header claims the shape {shape}, more than a file of this size can hold.")
    array = np.empty(size, np.uint8)
    memory, filled = array.data, 0
    while filled < size:
        count = stream.readinto(memory[filled:])
        if not count:
            raise ValueError(f"it ends after {filled} of the {size} elements of its shape {shape}.")
        filled += count
    if stream.read(1):
        raise ValueError(f"it holds more than the {size} elements of its shape {shape}.")
    return array.reshape(shape)


def _read_exactly(stream, size, what):
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"it ends within {what}.")
    return data
