"""Snapshots of weights: every run checks whether the weights that something was computed from are unchanged.

An array that never left the library can't have changed unnoticed: code that writes to it increments the `version` of
its dict. An array that was handed out to the user is compared with a copy, bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import FIXED_WORDS, array_at

_PAIR = np.dtype([("here", np.int64), ("copy", np.int64), ("size", np.int64)])


class Snapshot:
    """The weights of a plan.

    Args:
        storages: what the graph knows about them: each has an `owner`, a dict, and a key.
        copies: whether `holds` will be called. If so, the dicts must have a `version` and `handed_out`, and the arrays
            of dicts that were handed out are copied for comparison.

    Attributes:
        addresses: the addresses of the buffers' data, by buffer number.
        workspace: keeps alive the memory of everything that was computed from the weights.
    """

    def __init__(self, storages: Sequence[Any], copies: bool) -> None:
        owners = {id(storage.owner): storage.owner for storage in storages} if copies else {}
        self._owners = [(owner, owner.version) for owner in owners.values()]
        # All of them, as a run may still be reading from one that another thread has replaced.
        self._alive = [storage.owner[storage.key] for storage in storages]
        for storage, array in zip(storages, self._alive):
            if array.shape != storage.buffer.shape:
                raise ValueError(
                    f"{storage.key} must keep the shape that its layer was built with, {storage.buffer.shape}. "
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
        """Return whether all weights are still the same arrays, with the same contents."""
        for owner, version in self._owners:
            if owner.version != version:
                return False
        return self.has_same_arrays() and not (len(self._pairs) and _differ(self._pairs))

    def has_same_arrays(self) -> bool:
        """Return whether the weights are still the same arrays; with `copies`, only those handed out are checked."""
        for owner, key, array, shape in self._arrays:
            if owner[key] is not array or array.shape != shape:
                return False
        return True

    def bind(self, workspace: Any) -> None:
        """Write the addresses into the table of a workspace."""
        for number, address in self.addresses.items():
            workspace.table[FIXED_WORDS + number] = address
        workspace.snapshot = self


@jit
def _differ(pairs):
    """Return whether any array differs from its copy."""
    for i in range(len(pairs)):
        size = pairs[i].size
        here, copy = array_at(pairs[i].here, (size // 4,), np.int32), array_at(pairs[i].copy, (size // 4,), np.int32)
        different = 0
        for j in range(size // 4):
            different |= here[j] ^ copy[j]
        if different:
            return True
    return False
