"""A plan: a graph that was made once, in the form in which it is run again and again.

    plan = Plan(graph, [y])
    (y_array,) = plan.run(samples, {x: array})

What depends on weights alone (a kernel packed into panels, the scale of a batch normalisation in inference) is the
*prologue*: it runs again only if weights have changed. Any number of threads may run a plan at once: records hold places
and no addresses, and each run takes a workspace of its own from a small pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnlite.engine.buffers import CONSTANT, GIVEN, WEIGHT, WORK, Buffer
from cnnlite.engine.graph import Graph, Step
from cnnlite.engine.program import Program, Workspace, shape_of
from cnnlite.engine.schedule import Schedule
from cnnlite.engine.stages import FIXED_WORDS
from cnnlite.engine.weights import Snapshot
from cnnlite.locks import new_lock
from cnnlite.types import Array

WORKSPACES_KEPT = 4  # of a plan, for threads that run it at once


class Plan:
    """A graph, scheduled.

    Args:
        graph: the graph, to which nothing is added any more.
        results: the buffers that a run returns as arrays of their own.
        kept: buffers that can be looked at after a run (`array`), until the next one.
        joined: False runs each stage for all samples before the next one begins.
        updates: whether the plan changes weights. Then all is computed anew in each run, and there is one workspace.
    """

    def __init__(self, graph: Graph, results: Sequence[Buffer], *, kept: Sequence[Buffer] = (), joined: bool = True,
                 updates: bool = False) -> None:
        self.graph, self.results, self.kept, self.updates = graph, list(results), list(kept), updates
        for buffer in results:
            storage = graph.buffers[buffer.number]
            if storage.kind == WORK:
                storage.kind = GIVEN
        steps = _needed(graph, [*results, *kept])
        fixed = [] if updates else [step for step in steps if graph.is_fixed_step(step)]
        ours = [step for step in steps if step not in set(fixed)]
        self.prologue = Schedule(graph, fixed, _read_by(ours), joined)
        self.schedule = Schedule(graph, ours, kept, joined)
        self._banded = Schedule(graph, ours, kept, joined, banded=True)
        self._prologue_program = Program(self.prologue) if fixed else None
        self._programs: dict[bool, Program] = {}
        self._pools: dict[bool, deque[Workspace]] = {False: deque(), True: deque()}
        self._weights = [storage for storage in graph.buffers if storage.kind == WEIGHT]
        self._constants = [storage for storage in graph.buffers if storage.kind == CONSTANT]
        self._snapshot: Snapshot | None = None
        self._lock = new_lock()

    def run(self, samples: int, given: Mapping[int, Array]) -> list[Array]:
        """Run the plan.

        Args:
            samples: how many there are.
            given: by the number of each GIVEN buffer that is no result, its array, which must be as the buffer is.

        Returns:
            the arrays of the results, in their order.
        """
        snapshot = self._current()
        banded = self._cuts_into_bands(samples)
        workspace = self._take(banded)
        try:
            workspace.prepare(samples, 0)
            if workspace.snapshot is not snapshot:
                self._bind(workspace, snapshot)
            table, arrays = workspace.table, dict(given)
            for number, array in given.items():
                table[FIXED_WORDS + number] = array.ctypes.data
            results = []
            for buffer in self.results:
                array = arrays.get(buffer.number)
                if array is None:
                    array = arrays[buffer.number] = np.empty(shape_of(buffer, samples), buffer.dtype)
                    table[FIXED_WORDS + buffer.number] = array.ctypes.data
                results.append(array.reshape(shape_of(buffer, samples)))
            workspace.run()
        finally:
            pool = self._pools[banded]
            if len(pool) < (1 if self.updates else WORKSPACES_KEPT):
                pool.append(workspace)
        return results

    def array(self, buffer: Buffer) -> Array:
        """Return the array of a kept buffer as the last run left it; of a plan that `updates`."""
        return self._pools[False][0].array(buffer)

    def _take(self, banded: bool) -> Workspace:
        try:
            return self._pools[banded].pop()
        except IndexError:
            if banded not in self._programs:
                with self._lock:
                    self._programs[banded] = Program(self._banded if banded else self.schedule)
            return Workspace(self._programs[banded])

    def _cuts_into_bands(self, samples: int) -> bool:
        return False

    def _current(self) -> Snapshot:
        """Return what the prologue has made of the weights as they are now."""
        snapshot = self._snapshot
        if snapshot is None or not snapshot.holds(compare=not self.updates):
            with self._lock:
                snapshot = self._snapshot
                if snapshot is None or not snapshot.holds(compare=not self.updates):
                    snapshot = self._snapshot = self._prepare()
        return snapshot

    def _prepare(self) -> Snapshot:
        snapshot = Snapshot(self._weights, copies=not self.updates)
        addresses = dict(snapshot.addresses)
        addresses.update({storage.buffer.number: storage.owner.ctypes.data for storage in self._constants})
        snapshot.addresses = addresses
        if self._prologue_program is not None:
            workspace = snapshot.workspace = Workspace(self._prologue_program)
            workspace.prepare(1, 1)
            self._bind(workspace, snapshot)
            workspace.run()
            base = workspace.memory.ctypes.data
            snapshot.addresses.update(
                {number: base + place for number, place in workspace.layout.places.items()})  # type: ignore[union-attr]
        return snapshot

    @staticmethod
    def _bind(workspace: Workspace, snapshot: Snapshot) -> None:
        for number, address in snapshot.addresses.items():
            workspace.table[FIXED_WORDS + number] = address
        workspace.snapshot = snapshot


def _needed(graph: Graph, results: Sequence[Buffer]) -> list[Step]:
    """Return the steps without which a result would lack, or a weight or a given array would not be written."""
    wanted = {buffer.number for buffer in results}
    steps: list[Step] = []
    for step in reversed(graph.steps):
        kinds = {graph.buffers[buffer.number].kind for buffer in step.outputs}
        if kinds - {WORK} or any(buffer.number in wanted for buffer in step.outputs):
            steps.append(step)
            wanted.update(buffer.number for buffer in step.inputs)
    return steps[::-1]


def _read_by(steps: Sequence[Step]) -> list[Buffer]:
    return [buffer for step in steps for buffer in step.inputs]
