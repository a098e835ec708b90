"""Model files: safetensors with a checksum, written whole or not at all.

A safetensors file is a header in JSON and then the bytes of the arrays. The format has no checksum of its own, and
a flipped bit in a weight would go unnoticed; so the metadata hold one over everything else in the file.
"""

import contextlib
import hashlib
import json
import os

import numpy as np
import safetensors.numpy  # for writing only; safetensors_reader.py says why

from cnnlite._version import __version__
from cnnlite.files.atomic_write import replace_file
from cnnlite.files.safetensors_reader import LARGEST_HEADER, bytes_of, read_header, read_tensors, shown

FORMAT = "cnnlite"
FORMAT_VERSION = 1
FOREIGN_ENDINGS = (".keras", ".h5", ".hdf5", ".pkl", ".pickle", ".npz", ".npy", ".pt", ".pth", ".onnx", ".json")


def check_path_to_write(path, owner, overwrite):
    """Return the path as a string, if a model file may be written there."""
    path = file_path(path, "path", owner)
    check_ending(path, owner)
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{owner}: {path} exists already. Pass overwrite=True to replace it.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{owner}: the folder {folder} of {path} does not exist. Make it first.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{owner}: {path} is a folder. Give the name of a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{owner}: {path} is a device or a pipe, which would be replaced. Give the name of a file.")
    if os.path.exists(path) and os.access(folder, os.W_OK) and not os.access(path, os.W_OK):
        raise PermissionError(f"{owner}: {path} is read-only. Give another name.")
    return path


def file_path(path, name, owner, kind="file"):
    """Return a user's file or folder name as a string; TypeError or ValueError if it isn't one."""
    try:
        path = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be a string or a path. Received: {name}={path!r}.") from None
    if not path or "\0" in path:
        raise ValueError(f"{owner}: {name} must be the name of a {kind}. Received: {name}={path!r}.")
    return path


def check_ending(path, owner):
    """Raise a ValueError if the file name has the extension of another format."""
    if path.lower().endswith(FOREIGN_ENDINGS):
        raise ValueError(
            f"{owner}: cnnlite writes and reads its own safetensors files only. Received: path={path!r}. "
            'Use a name such as "model.safetensors".'
        )


def write(path, tensors, metadata, owner):
    """Write a safetensors file, whole or not at all."""
    metadata = {
        "format": FORMAT, "format_version": str(FORMAT_VERSION), "cnnlite_version": __version__, **metadata
    }
    metadata["checksum"] = _checksum(tensors, metadata)
    replace_file(path, _in_order(safetensors.numpy.save(tensors, metadata), owner), owner)


def _in_order(content, owner):
    """Return the file with sorted metadata, as safetensors shuffles them: the same model must give the same bytes."""
    header, start = _header(content)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"{owner}: the description of the model takes {len(text)} bytes, but {LARGEST_HEADER} is the limit. "
            "Keep large arrays in weights rather than in configs."
        )
    return len(text).to_bytes(8, "little") + text + content[start:]


def _header(content):
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), start


def _checksum(tensors, metadata):
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(bytes_of(np.ascontiguousarray(array)))
    return digest.hexdigest()


def read(path, owner):
    """Return the tensors and the metadata of a file that is whole, unchanged and not newer than this version.

    Nothing in the file is trusted before it is checked: memory is allocated only for what the file really holds.
    """
    path = file_path(path, "path", owner)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{owner}: there is no file {path}.")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{owner}: {path} is a folder. Give the name of a file.")
    if not os.path.isfile(path):
        raise ValueError(f"{owner}: {path} is a pipe or a device. Give the name of a file.")
    check_ending(path, owner)
    with open(path, "rb") as file:
        with _blaming_the_bytes(path, owner):
            metadata, table, start = read_header(file)
        _check_format(metadata, path, owner)
        with _blaming_the_bytes(path, owner):
            tensors = read_tensors(file, table, start)
    checksum = metadata.pop("checksum", None)
    if checksum != _checksum(tensors, metadata):
        raise ValueError(
            f"{owner}: {path} is damaged, or was changed by another program: its content doesn't match its checksum."
        )
    return tensors, metadata


@contextlib.contextmanager
def _blaming_the_bytes(path, owner):
    try:
        yield
    except (ValueError, MemoryError) as error:
        reason = shown(str(error) or type(error).__name__)
        raise ValueError(f"{owner}: {path} is not a safetensors file, or is damaged: {reason}.") from None


def _check_format(metadata, path, owner):
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{owner}: {path} was not written by cnnlite: format={shown(repr(metadata.get('format')))}.")
    version = metadata.get("format_version", "")
    if not (version.isdecimal() and len(version) < 10):
        raise ValueError(f"{owner}: {path} is damaged: format_version={shown(repr(version))}.")
    if int(version) > FORMAT_VERSION:
        raise ValueError(
            f"{owner}: {path} has format version {int(version)}, written by cnnlite "
            f"{shown(metadata.get('cnnlite_version'))}; "
            f"cnnlite {__version__} reads up to {FORMAT_VERSION}. Install a newer cnnlite."
        )
