"""Weights as they were when something was made of them: whether they still are is asked in each run.

An array that nobody but the library has ever had can't have changed without the library's saying so: whoever writes to
one raises the `version` of the dict that it lies in. One that was handed out is compared with a copy, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import FIXED_WORDS, array_at

_PAIR = np.dtype([("here", np.int64), ("copy", np.int64), ("size", np.int64)])


class Snapshot:
    """The weights of a plan.

    Args:
        storages: what the graph knows of them: each has an `owner`, a dict, and a key.
        copies: whether `holds` will be asked. Then the dicts have a `version` and `handed_out`, and the arrays of those
            that were handed out are copied to be compared.

    Attributes:
        addresses: by the numbers of buffers, where their numbers lie.
        workspace: what holds the memory of all that was made of the weights.
    """

    def __init__(self, storages: Sequence[Any], copies: bool) -> None:
        owners = {id(storage.owner): storage.owner for storage in storages} if copies else {}
        self._owners = [(owner, owner.version) for owner in owners.values()]
        # All of them, as a run may still read from one when another thread has put a new array in its place.
        self._alive = [storage.owner[storage.key] for storage in storages]
        for storage, array in zip(storages, self._alive):
            if array.shape != storage.buffer.shape:
                raise ValueError(
                    f"{storage.key} must have the shape with which its layer was built, {storage.buffer.shape}. "
                    f"Received: shape={array.shape}. Reshape a copy of it."
                )
        self.addresses = {storage.buffer.number: array.ctypes.data for storage, array in zip(storages, self._alive)}
        self.workspace: Any = None
        self._arrays = [(storage.owner, storage.key, array, storage.buffer.shape)
                        for storage, array in zip(storages, self._alive) if not copies or storage.owner.handed_out]
        compared = [array for _, _, array, _ in self._arrays] if copies else []
        self._copies = [array.copy() for array in compared]
        self._pairs = np.array([(array.ctypes.data, copy.ctypes.data, array.nbytes)
                                for array, copy in zip(compared, self._copies)], _PAIR)

    def holds(self) -> bool:
        """Return whether all weights are the arrays that they were, with the numbers that they had."""
        for owner, version in self._owners:
            if owner.version != version:
                return False
        return self.has_same_arrays() and not (len(self._pairs) and _differ(self._pairs))

    def has_same_arrays(self) -> bool:
        """Return whether the weights are the arrays that they were: all, or those alone that somebody else has had."""
        for owner, key, array, shape in self._arrays:
            if owner[key] is not array or array.shape != shape:
                return False
        return True

    def bind(self, workspace: Any) -> None:
        """Write the addresses into the table of a workspace."""
        for number, address in self.addresses.items():
            workspace.table[FIXED_WORDS + number] = address
        workspace.snapshot = self


@kernel
def _differ(pairs):
    """Return whether any two stretches of memory differ."""
    for i in range(len(pairs)):
        size = pairs[i].size
        here, copy = array_at(pairs[i].here, (size // 4,), np.int32), array_at(pairs[i].copy, (size // 4,), np.int32)
        different = 0
        for j in range(size // 4):
            different |= here[j] ^ copy[j]
        if different:
            return True
    return False
