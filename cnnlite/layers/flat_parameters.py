"""All trainable weights of a model in one flat vector, and all gradients in another.

    vector    [ conv2d/kernel | conv2d/bias | batch_norm/gamma | ... | dense/bias ]
    gradient  [ ...............the same places, d loss / d each...................]

The layers' `params` and `grads` are shaped views into the two. So an optimizer step, gradient clipping,
averaging weights or exchanging them between processes is one pass over one array, whatever the layers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer
    from cnnlite.layers.weights import ArrayDict
    from cnnlite.types import Array


class FlatParameters:
    """Move the weights of some layers into one vector, and make the layers' arrays views into it.

    Args:
        named_layers: pairs of a path ("conv2d", "block/conv2d") and a layer without inner layers.

    Attributes:
        vector, gradient: one-dimensional arrays of the same length.
        names: "conv2d/kernel", ... in the order of the vector.
        slices: where each of them lies in the vector.
        owners_and_keys: [(the id of a layer, the name of a weight), ...], in the same order.
    """

    def __init__(self, named_layers: Sequence[tuple[str, Layer]]) -> None:
        self._places: list[tuple[Layer, str]] = []
        self._views: list[tuple[ArrayDict, str, Array]] = []  # each view, and where it belongs
        self.names, self.slices = [], []
        stop = 0
        for path, layer in named_layers:
            for key, array in layer._params.items():
                self._places.append((layer, key))
                self.names.append(f"{path}/{key}")
                self.slices.append(slice(stop, stop + array.size))
                stop += array.size
        dtypes = {layer._params[key].dtype for layer, key in self._places}
        if len(dtypes) > 1:
            raise TypeError(
                "To train a model, all of its layers must have the same dtype. "
                f"Received: {', '.join(sorted(dtype.name for dtype in dtypes))}. Give each layer the same dtype=."
            )
        dtype = dtypes.pop() if dtypes else np.float32
        self.vector = np.empty(stop, dtype)
        self.gradient = np.zeros(stop, dtype)
        self.arrays = {"vector": self.vector, "gradient": self.gradient}  # as a plan takes them
        for (layer, key), place in zip(self._places, self.slices):
            shape = layer._params[key].shape
            for arrays, flat in ((layer._params, self.vector), (layer._grads, self.gradient)):
                view = flat[place].reshape(shape)
                view[...] = arrays[key]
                arrays.bind(key, view)
                self._views.append((arrays, key, view))
        self.owners_and_keys = [(id(layer), key) for layer, key in self._places]
        self._dicts = list({id(layer): layer._params for layer, _ in self._places}.values())

    @property
    def owners(self) -> list[Layer]:
        """The layer that each of `names` belongs to."""
        return [layer for layer, _ in self._places]

    def holds(self) -> bool:
        """Return whether the weights of the layers still live in this vector.

        A shared layer moves into the vector of whichever model was trained last.
        """
        for arrays, key, view in self._views:  # not a generator expression: this runs in every step
            if arrays.get(key) is not view:
                return False
        return True

    def note_step(self) -> None:
        """Record that the library has changed the weights."""
        for arrays in self._dicts:
            arrays.version += 1

    def trainable_segments(self) -> list[tuple[int, int]]:
        """Return [(start, stop), ...], the fewest contiguous runs of the vector that cover what is trainable now."""
        segments: list[tuple[int, int]] = []
        for (layer, _), place in zip(self._places, self.slices):
            if not layer.trainable or place.start == place.stop:
                continue
            if segments and segments[-1][1] == place.start:
                segments[-1] = (segments[-1][0], place.stop)
            else:
                segments.append((place.start, place.stop))
        return segments
