"""The graph of a pass: stages in the order in which they were added, and the buffers between them.

    graph = Graph(np.float32)
    x = graph.given((N, 28, 28, 1))
    y = kernels.relu(x)                     # adds a stage
    plan = Plan(graph, [y])                 # see plan.py

When a layer's `forward` is called with a graph's buffers, the kernels that it calls add their stages to the graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnlite.engine.buffers import CONSTANT, GIVEN, THREAD_LOCAL, VALUE, WEIGHT, WORK, Buffer, is_buffer
from cnnlite.engine.stages import BATCH, FIXED_WORDS, NONE, Stage
from cnnlite.support.interrupts import deferred_signals
from cnnlite.types import Array


@dataclass
class Storage:
    """What a graph knows about the memory of a buffer.

    Attributes:
        kind: GIVEN, WEIGHT, CONSTANT, WORK, THREAD_LOCAL or VALUE.
        buffer: the buffer in its original shape.
        owner, key: for a WEIGHT, the dict that holds its array and its key there. For a CONSTANT, the owner is the
            array; for a VALUE, the function that returns it.
        made_by: the steps that write it, in order.
        used_by: the steps that read it.
    """

    kind: str
    buffer: Buffer
    owner: Any = None
    key: Any = None
    made_by: list[Step] = field(default_factory=list)
    used_by: list[Step] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """A stage in a graph, with its arguments.

    Attributes:
        stage: the stage.
        arguments: by name: buffers, integers, floats, or None for an absent buffer.
        units: for a BATCH stage, how many units it is split into; an integer, or a function of the number of samples.
        together: how many samples it prefers to compute at a time.
        scratch: how many bytes of scratch memory it needs.
        work: additions and multiplications per sample, or in total for a BATCH stage; or a function that returns the
            total for a number of samples.
        grain: it can compute bands of this many rows of its result, or a multiple, independently of other rows.
        rare: whether it usually has nothing to do.
        layer: the name of the layer that it belongs to, for the table of a plan.
        number: its index among all steps of the graph.
        section: the section of the graph that it is in.
    """

    stage: Stage
    arguments: dict[str, Any]
    units: Any
    together: int
    scratch: int
    work: Any
    grain: int
    rare: bool
    layer: str
    number: int
    section: int

    def buffers(self, names: Sequence[str]) -> list[Buffer]:
        return [buffer for name in names if (buffer := self.arguments.get(name)) is not None]

    @property
    def inputs(self) -> list[Buffer]:
        return self.buffers(self.stage.reads)

    @property
    def outputs(self) -> list[Buffer]:
        return self.buffers([*self.stage.writes, *self.stage.adds])


class _Tracing(threading.local):
    graph: Graph | None = None


_tracing = _Tracing()


def current_graph() -> Graph | None:
    """Return the graph that this thread is building, or None."""
    return _tracing.graph


@contextlib.contextmanager
def stages_of(name: str) -> Iterator[None]:
    """Attribute the stages that are added in the block to the layer of that name; do nothing without a graph."""
    graph = current_graph()
    if graph is None:
        yield
        return
    before, graph.layer = graph.layer, name
    try:
        yield
    finally:
        graph.layer = before


class Graph:
    """Stages, and the buffers between them.

    Args:
        dtype: float32 or float64, the dtype of everything that is computed.
        weights: the dicts that hold the weights; a weight is identified by its dict and its key there.
        has_prologue: whether what depends on weights alone will be computed separately, only when they have changed.

    Attributes:
        buffers: a `Storage` for each buffer, by its number.
        steps: the stages in the order in which they were added.
    """

    def __init__(self, dtype: Any, weights: Sequence[dict[str, Array]] = (), has_prologue: bool = False) -> None:
        self.dtype, self._has_prologue = np.dtype(dtype), has_prologue
        self.buffers: list[Storage] = []
        self.steps: list[Step] = []
        self.layer = ""  # the layer whose stages are being added
        self.section = 0  # the section that they are added to: a run may stop after each section and go on later
        self.at_the_end: list[Callable[[], None]] = []  # functions that add the last steps
        self._arrays: dict[int, tuple[Array, Buffer]] = {}  # by id; keeps the arrays alive, so that ids stay valid
        for arrays in weights:
            for key, array in arrays.items():
                self._arrays[id(array)] = array, self._buffer(WEIGHT, array.shape, array.dtype, arrays, key)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Make this the `current_graph` within the block. Signals are deferred: a handler may run another model."""
        with deferred_signals():
            outer, _tracing.graph = _tracing.graph, self
            try:
                yield
            finally:
                _tracing.graph = outer

    # Buffers.

    def _buffer(self, kind: str, shape: Any, dtype: Any, owner: Any = None, key: Any = None) -> Buffer:
        buffer = Buffer(self, len(self.buffers), shape, dtype)
        self.buffers.append(Storage(kind, buffer, owner, key))
        return buffer

    def given(self, shape: Any, dtype: Any = None) -> Buffer:
        """Return a buffer whose array is passed to each run."""
        return self._buffer(GIVEN, shape, self.dtype if dtype is None else dtype)

    def value(self, function: Callable[[], Any], shape: Any, dtype: Any) -> Buffer:
        """Return a buffer for a few numbers, those that `function()` returns when it is called before each run."""
        return self._buffer(VALUE, shape, dtype, function)

    def work(self, shape: Any, dtype: Any = None) -> Buffer:
        """Return a buffer in the workspace."""
        return self._buffer(WORK, shape, self.dtype if dtype is None else dtype)

    def thread_local(self, shape: Any, dtype: Any = None) -> Buffer:
        """Return a per-thread buffer in which one stage keeps data between its calls for the same chunk.

        Its contents before the first call for a chunk are undefined.
        """
        return self._buffer(THREAD_LOCAL, shape, self.dtype if dtype is None else dtype)

    def of_array(self, array: Array) -> Buffer:
        """Return the buffer of an array: of a weight, in the array's shape, or of a constant."""
        known = self._arrays.get(id(array))
        if known is None:
            buffer = self._moved_weight(array) or self._view_of_weight(array) or self._constant(array)
            known = self._arrays[id(array)] = array, buffer
        return known[1]

    def _moved_weight(self, array: Array) -> Buffer | None:
        """Return the buffer of a weight that another thread has replaced by this array, or None."""
        for storage in self.buffers:
            if storage.kind == WEIGHT and storage.owner.get(storage.key) is array:
                return storage.buffer
        return None

    def _view_of_weight(self, array: Array) -> Buffer | None:
        """Return the buffer of the weight that an array is a reshaped view of, or None.

        A view of part of a weight raises a ValueError: treated as a constant, it would go stale when the weight's
        array is replaced.
        """
        for storage in self.buffers:
            weight = storage.owner.get(storage.key) if storage.kind == WEIGHT else None
            if weight is None or not array.size or not np.may_share_memory(array, weight):
                continue
            same = array.ctypes.data == weight.ctypes.data and array.size == weight.size
            if same and array.dtype == weight.dtype and array.flags.c_contiguous and weight.flags.c_contiguous:
                return storage.buffer.reshape(array.shape)
            raise ValueError(
                f"A kernel takes a whole weight, in any shape. Received: an array of shape {array.shape}, a partial "
                f"or transposed view of {storage.key}, of shape {weight.shape}. Copy it, or pass {storage.key}."
            )
        return None

    def _constant(self, array: Array) -> Buffer:
        return self._buffer(CONSTANT, array.shape, array.dtype, array)

    # Stages.

    def add(self, stage: Stage, *, units: Any = 1, together: int = 1, scratch: int = 0, work: Any = 0.0,
            grain: int = 1, rare: bool = False, **arguments: Any) -> None:
        """Add a stage.

        Args:
            stage: the stage.
            units, together, scratch, work, grain, rare: see `Step`.
            **arguments: everything in its record; None for an absent buffer.
        """
        missing = {*stage.buffers, *stage.sizes, *stage.floats} ^ set(arguments)
        if missing:
            raise TypeError(f"The stage {stage.name} got wrong arguments. Unexpected or missing: {sorted(missing)}.")
        arguments = {name: value if value is None or is_buffer(value) or name not in stage.buffers
                     else self.of_array(value) for name, value in arguments.items()}
        step = Step(stage, arguments, units, together, scratch, work, grain, rare, self.layer, len(self.steps),
                    self.section)
        self.steps.append(step)
        for buffer in step.inputs:
            self.buffers[buffer.number].used_by.append(step)
        for buffer in step.outputs:
            self.buffers[buffer.number].made_by.append(step)

    def is_fixed(self, buffer: Buffer) -> bool:
        """Return whether the contents of a buffer depend on weights alone."""
        storage = self.buffers[buffer.number]
        if storage.kind in (WEIGHT, CONSTANT):
            return not storage.made_by
        if storage.kind in (GIVEN, VALUE) or buffer.of_samples or buffer.of_chunks:
            return False
        return bool(storage.made_by) and all(self.is_fixed_step(step) for step in storage.made_by)

    def keeps(self, weights: Any) -> bool:
        """Return whether results that depend only on `weights`, a buffer or an array, are kept between runs."""
        return self._has_prologue and self.is_fixed(weights if is_buffer(weights) else self.of_array(weights))

    def is_fixed_step(self, step: Step) -> bool:
        """Return whether a step belongs to the prologue."""
        writes_work = all(self.buffers[buffer.number].kind == WORK for buffer in step.outputs)
        return step.stage.footprint == BATCH and writes_work and all(map(self.is_fixed, step.inputs))

    def records(self, steps: Sequence[Step]) -> list[np.ndarray]:
        """Return the records of steps."""
        result = []
        for step in steps:
            record = np.zeros((), step.stage.record)
            for name, value in step.arguments.items():
                if name in step.stage.buffers:
                    record[name] = NONE if value is None else FIXED_WORDS + value.number
                else:
                    record[name] = value
            result.append(record)
        return result
