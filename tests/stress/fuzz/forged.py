"""Files as a villain writes them: well-formed on the outside, with a checksum that fits, and anything inside."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np

from cnnlite.files import model_files
from cnnlite.files.safetensors_reader import DTYPES

SMALL = {
    "x_train": np.arange(60, dtype=np.uint8).reshape(5, 4, 3), "y_train": np.array([0, 1, 2, 1, 0], np.uint8),
    "x_test": np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "y_test": np.array([2, 0], np.uint8),
}


def model_file(tensors, checksum=None, **metadata):
    """Return the bytes of a model file with these tensors and metadata, and a checksum that fits them."""
    values = {"format": "cnnlite", "format_version": "1", "cnnlite_version": "0", **metadata}
    values["checksum"] = model_files._checksum(tensors, values) if checksum is None else checksum
    header, start = {"__metadata__": values}, 0
    codes = {np.dtype(code): name for name, code in DTYPES.items()}
    for name, array in tensors.items():
        stop = start + array.nbytes
        header[name] = {"dtype": codes[array.dtype], "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    return with_header(json.dumps(header).encode(), b"".join(array.tobytes() for array in tensors.values()))


def with_header(header, content=b""):
    return len(header).to_bytes(8, "little") + header + content


def npz(members, compression=zipfile.ZIP_DEFLATED):
    """Return an archive of (name, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def idx(array, packed=False):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    return gzip.compress(content, mtime=0) if packed else content
