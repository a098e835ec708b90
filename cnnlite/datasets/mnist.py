"""MNIST: 70,000 handwritten digits of 28 by 28 pixels (LeCun, Cortes and Burges, 1998).

The data come with the package, under a licence of their own: see MNIST-ATTRIBUTION.md in this folder.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np

from cnnlite.datasets.idx import most_bytes, read_idx
from cnnlite.support.interrupts import deferred_signals
from cnnlite.types import Array

KEYS = ("x_train", "y_train", "x_test", "y_test")
LONGEST_HEADER = 2**16  # of an array in an .npz; NumPy's have 128 bytes
IDX_NAMES = ("train-images{}idx3-ubyte", "train-labels{}idx1-ubyte", "t10k-images{}idx3-ubyte",
             "t10k-labels{}idx1-ubyte")


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return ((x_train, y_train), (x_test, y_test)), as Keras does, but without network access.

    Args:
        path: None for the MNIST that comes with the package. Or files of your own in the same format: an
            `.npz` with the arrays x_train, y_train, x_test and y_test; a folder with the four IDX files
            train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, plain or `.gz`; or one of those four.

    Returns:
        Arrays that are yours to change: images uint8 (n, height, width), labels integers (n,). The bundled
        ones are (60000, 28, 28), (60000,), (10000, 28, 28) and (10000,).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or doesn't hold images and labels in that format.

    Example:

    >>> (x_train, y_train), (x_test, y_test) = load_data()
    >>> x_train.shape, x_train.dtype, y_test[:5].tolist()
    ((60000, 28, 28), dtype('uint8'), [7, 2, 1, 0, 4])
    """
    if path is None:
        with resources.as_file(resources.files("cnnlite.datasets") / "mnist.npz") as bundled:
            return load_data(bundled)
    try:
        path = Path(os.fsdecode(path))
    except TypeError:
        raise TypeError(f"load_data: path must be a string or a path. Received: path={path!r}.") from None
    if not path.exists():
        raise FileNotFoundError(
            f"load_data: {path} doesn't exist. Leave path out for the MNIST that comes with the package."
        )
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"load_data: {path} is a pipe or a device. Give the name of a file or a folder.")
    arrays = _read_npz(path) if path.is_file() and path.suffix == ".npz" else _read_idx_files(path)
    _check(arrays, path)
    x_train, y_train, x_test, y_test = arrays
    return (x_train, y_train), (x_test, y_test)


def _read_npz(path):
    # Opened here, so that an unreadable file isn't called a damaged one.
    # What a signal handler raises must not be taken for damage.
    with deferred_signals(second_passes=True), open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            names = archive.namelist()
            missing = [key for key in KEYS if f"{key}.npy" not in names]
            if missing:
                raise ValueError(f"it must hold the arrays {', '.join(KEYS)}. Missing: {', '.join(missing)}.")
            twice = [key for key in KEYS if names.count(f"{key}.npy") > 1]
            if twice:
                raise ValueError(f"it holds {', '.join(twice)} more than once.")
            size = sum(archive.getinfo(f"{key}.npy").file_size for key in KEYS)
            if size > most_bytes(path):
                raise ValueError(f"its arrays claim {size} bytes, more than a file of this size should hold.")
            return [_read_member(archive, f"{key}.npy") for key in KEYS]
        except Exception as error:
            # zipfile, zlib and the parser of NumPy's headers raise a dozen kinds of exception on damaged bytes.
            raise ValueError(f"{path} is damaged or not an .npz file of the right kind: {error}") from error


def _read_member(archive, name):
    """Return one array of the archive, after checking that its header fits the size of its data.

    No memory is allocated before that.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy doesn't write.")
    with archive.open(info) as file:
        stream = io.BytesIO(file.read(LONGEST_HEADER))
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which are never loaded.")
        if size != info.file_size - stream.tell():
            raise ValueError(f"{name} claims the shape {shape} of {dtype}, but its data have another size.")
    with archive.open(info) as stream:
        return np.ascontiguousarray(np.lib.format.read_array(stream, allow_pickle=False))


def _read_idx_files(path):
    folder = path if path.is_dir() else path.parent
    files = [_find_idx_file(folder, name, path) for name in IDX_NAMES]
    if path.is_file() and path not in files:
        raise ValueError(
            f"load_data: {path} must be an .npz file or have the name of one of the four IDX files, such as "
            f"{files[0].name}."
        )
    return [read_idx(file, rank) for file, rank in zip(files, (3, 1, 3, 1))]


def _find_idx_file(folder, name, given):
    """Return the file of that name in one of its spellings; `given` itself if it is one of them."""
    spellings = [folder / (name.format(mark) + packed) for packed in ("", ".gz") for mark in ("-", ".")]
    if given in spellings:
        return given
    for file in spellings:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"load_data: {folder} must hold a file named {' or '.join(file.name for file in spellings)}."
    )


def _check(arrays, path):
    for part in (0, 2):
        images, labels = arrays[part : part + 2]
        x, y = KEYS[part : part + 2]
        if images.ndim != 3 or images.size == 0 or images.dtype != np.uint8:
            raise ValueError(
                f"load_data: {x} must hold images (n, height, width) of uint8, at least one. "
                f"Received: shape={images.shape}, dtype={images.dtype} from {path}."
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"load_data: {y} must hold integer labels (n,). "
                f"Received: shape={labels.shape}, dtype={labels.dtype} from {path}."
            )
        if len(images) != len(labels):
            raise ValueError(
                f"load_data: {x} and {y} must have the same length. "
                f"Received: {len(images)} and {len(labels)} from {path}."
            )
        if labels.min() < 0:
            raise ValueError(f"load_data: {y} must not be negative. Received: {labels.min()} from {path}.")
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise ValueError(
            f"load_data: x_train and x_test must hold images of one size. "
            f"Received: {arrays[0].shape[1:]} and {arrays[2].shape[1:]} from {path}."
        )
