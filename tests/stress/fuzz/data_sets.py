"""Attacks on `datasets.mnist.load_data`: archives, their members, and IDX files."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np

from cnnlite.datasets import mnist
from tests.stress.fuzz import forged
from tests.stress.fuzz.refusals import CUT, refuses


def attack_npz(data, folder):
    path = folder / "own.npz"
    path.write_bytes(data)
    return _load_data(path, path.name)


def _load_data(path, name):
    loaded = []
    if refuses(lambda: loaded.append(mnist.load_data(path)), name):
        return False
    (x_train, y_train), (x_test, y_test) = loaded[0]
    assert x_train.dtype == x_test.dtype == np.uint8
    assert x_train.ndim == 3
    assert x_train.shape[1:] == x_test.shape[1:]
    assert len(x_train) == len(y_train) > 0
    assert len(x_test) == len(y_test) > 0
    assert all(y.dtype.kind in "iu" and y.min() >= 0 for y in (y_train, y_test))
    return True


def attack_members(data, folder):
    """Parts: a byte that chooses the compression, and the four members, or more of any name."""
    how, *contents = data.split(CUT)
    names = [*mnist.KEYS, *mnist.KEYS[:1], "../../etc/passwd", "/x_train"]
    members = [(f"{name}.npy", content) for name, content in zip(names, contents)]
    path = folder / "own.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        path.write_bytes(forged.npz(members, zipfile.ZIP_STORED if how == b"0" else zipfile.ZIP_DEFLATED))
    return _load_data(path, path.name)


def attack_idx(data, folder):
    """Parts: the four files, plain or packed."""
    for name, content in zip(mnist.IDX_NAMES, (*data.split(CUT), b"", b"", b"")):
        (folder / name.format("-")).write_bytes(content)
    return _load_data(folder, str(folder))


def seeds_of_npz():
    members = [(f"{key}.npy", forged.npy(array)) for key, array in forged.SMALL.items()]
    return [forged.npz(members), forged.npz(members, zipfile.ZIP_STORED)]


def seeds_of_members():
    arrays = [forged.npy(array) for array in forged.SMALL.values()]
    return [CUT.join([how, *arrays]) for how in (b"0", b"8")] + [CUT.join([b"8", *arrays, arrays[0], b"x"])]


def seeds_of_idx():
    return [CUT.join(forged.idx(array, packed) for array in forged.SMALL.values()) for packed in (False, True)]
