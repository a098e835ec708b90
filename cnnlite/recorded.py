"""Forward passes of a few images that are recorded: another optimisation that never shows in a result.

One image of a small net takes as long in Python as in its kernels. So after some passes over batches of one shape, the
layers are copied with their weights, the copy makes a pass over a batch of its own, and what kernels it calls is
recorded; see `cnnlite/kernels/recording.py`. From then on a batch is copied into that batch, and the kernels are called
again. That holds

- as long as no layer changes: `Sequential` then gets other steps, of which nothing is recorded (`layers/changes.py`);
- as long as the weights are, bit for bit, those of the copy, which is looked at in each pass;
- for the layers from the bottom on of which all work is done by such kernels. The others run as usual.

A recording is one thread's at a time. Another one that comes meanwhile goes the usual way.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

import numpy as np

from cnnlite import fusion
from cnnlite.kernels.recording import Recording, notes
from cnnlite.kernels.threads import Notes
from cnnlite.layers.activation import Linear
from cnnlite.layers.base import Layer
from cnnlite.layers.dense import Dense
from cnnlite.layers.dropout import Dropout
from cnnlite.layers.flatten import Flatten
from cnnlite.layers.overrides import is_untouched
from cnnlite.types import Array, Shape

FEW = 4  # images at most; with more, Python counts for little
MOST_WEIGHTS = 1 << 20  # numbers, which are kept a second time and compared in each pass
MOST_SHAPES = 8
PASSES_BEFORE = 2  # passes that go the usual way before one is recorded
# And so many if one was recorded before and had to be thrown away. To record takes 3 ms, and a pass is spared 30 us.
PASSES_BEFORE_AGAIN = 100


class Recordings:
    """The recorded passes of a model, by the shape of the batch."""

    def __init__(self) -> None:
        self._kept: tuple[Any, dict[Shape, _Recorded]] = (None, {})
        self._passes_before = PASSES_BEFORE

    def forward(self, steps: list[Any], x: Array) -> Array:
        """Return the result of inference for x, a prepared batch.

        steps: what the layers are run as now; another list after each change of a layer.
        """
        if len(x) > FEW or not fusion.is_on():
            return _run([step.forward for step in steps], x)
        kept, recorded = self._kept
        if kept is not steps:
            if any(entry.recording for entry in recorded.values()):
                self._passes_before = PASSES_BEFORE_AGAIN
            recorded = {}
            self._kept = steps, recorded
        entry = recorded.get(x.shape)
        if entry is None:
            if len(recorded) >= MOST_SHAPES:
                recorded.clear()
            entry = recorded[x.shape] = _Recorded(steps, self._passes_before)
        return entry.forward(x)

    def recording(self, shape: Shape) -> Recording | None:
        """Return what is recorded for batches of a shape, or None."""
        entry = self._kept[1].get(shape)
        return None if entry is None else entry.recording


class _Recorded:
    """The stages of a pass over batches of one shape: those that are recorded, and the rest."""

    def __init__(self, steps: list[Any], passes_before: int) -> None:
        self._stages = [stage for step in steps for stage in _stages_of(step)]
        self._lock = threading.Lock()
        self.recording: Recording | None = None
        self._passes_before: float = passes_before
        self._passes = 0

    def forward(self, x: Array) -> Array:
        # In the child of a process that forks while another thread has the lock, this is never so again.
        if self._lock.acquire(blocking=False):
            try:
                y = self._replay(x)
                if y is not None:
                    return _run(self._rest, y)
            finally:
                self._lock.release()
        return _run(self._stages, x)

    def _replay(self, x: Array) -> Array | None:
        """Return what the recorded stages make of x, or None if there are none."""
        if self.recording is None:
            self._passes += 1
            if self._passes > self._passes_before:
                self._record(x)
            if self.recording is None:
                return None
        np.copyto(self._x, x)
        self.recording.replay()
        if not self.recording.is_spoilt:
            return self._y.copy()
        # Weights that have changed will change again.
        self.recording, self._passes, self._passes_before = None, 0, PASSES_BEFORE_AGAIN
        return None

    def _record(self, x: Array) -> None:
        """Record the stages from the bottom on, as many as can be; if none can be, it is not tried again."""
        owners = [stage.__self__ for stage in takewhile(lambda stage: _is_recordable(stage, x.dtype), self._stages)]
        if sum(array.size for array in _weights(owners)) > MOST_WEIGHTS:
            self._passes_before = math.inf
            return
        copies = _copies(owners)
        first = y = x.copy()
        recorded = Notes()
        count = 0
        for stage, twin in zip(self._stages, copies):
            if isinstance(twin, fusion.ConvBlock) and not twin.runs_as_one(y.shape):
                break
            again = getattr(twin, stage.__name__)
            again(y)  # which compiles what is missing, and packs the weights
            with notes() as taken:
                result = again(y)
            if taken.others:
                break
            recorded.add(taken)
            y, count = result, count + 1
        if not recorded.calls:
            self._passes_before = math.inf
            return
        self._x, self._y, self._rest = first, y, self._stages[count:]
        self.recording = Recording(recorded, list(zip(_weights(owners[:count]), _weights(copies[:count]))))


def _copies(owners: list[Any]) -> list[Any]:
    """Return copies of layers and blocks with weights of their own.

    All else they share, as a user may have put on a layer what can't be copied, but not what training has left there.
    """
    layers = _layers(owners)
    own = {id(layer) for layer in layers}
    memo: dict[int, Any] = {}
    for layer in layers:
        for name, value in vars(layer).items():
            if name not in ("_params", "_state", "inner_layers") and id(value) not in own:
                memo[id(value)] = value
    for layer in layers:
        memo |= {id(layer._grads): {}, id(layer._buffers): {}}
        if layer._memory is not None:
            memo[id(layer._memory)] = None
    return copy.deepcopy(owners, memo)


def _run(stages: Iterable[Callable[..., Array]], x: Array) -> Array:
    for stage in stages:
        x = stage(x, training=False)
    return x


def _stages_of(step: Any) -> list[Any]:
    """Return the functions that a layer's `forward` calls one after the other, where each may be recorded or not."""
    if type(step) is Dense and is_untouched(step):
        return [step.preactivation, step.activation.forward]
    return [step.forward]


def _is_recordable(stage: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether a stage does nothing but call kernels, and hand on what it got in another shape."""
    layer: Any = getattr(stage, "__self__", None)
    if isinstance(layer, fusion.ConvBlock):
        return layer.conv.dtype == dtype
    known = type(layer) in (Dense, Dropout, Linear) or fusion.is_relu(layer)
    flattens = type(layer) is Flatten and layer.data_format == "channels_last"
    return (known or flattens) and layer.dtype == dtype and is_untouched(layer)


def _layers(owners: Iterable[Any]) -> list[Layer]:
    return [layer for owner in owners for layer in owner.walk()]


def _weights(owners: Iterable[Any]) -> list[Array]:
    return [array for layer in _layers(owners) for array in (*layer._params.values(), *layer._state.values())]
