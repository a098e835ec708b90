"""A plan: a graph that is built once, in a form that can be run again and again.

    plan = Plan(graph, [y])
    (array,) = plan.run(samples, {x.number: x_array})

The steps that depend on weights alone (packing a kernel into panels, the scale of a batch normalisation in inference)
are the *prologue*, which runs again only if weights have changed. Running a plan is thread-safe: records hold places
instead of addresses, and each run takes a workspace of its own from a small pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from ctypes import addressof, c_char

import numpy as np

from cnnlite.engine.buffers import CONSTANT, GIVEN, THREAD_LOCAL, WEIGHT, WORK, Buffer
from cnnlite.engine.graph import Graph, Step, Storage
from cnnlite.engine.program import Memory, Program, Workspace, bands_for, check, give_back, shape_of, threads_for
from cnnlite.engine.schedule import Schedule
from cnnlite.engine.snapshot import Snapshot
from cnnlite.engine.stages import FIXED_WORDS
from cnnlite.support.locks import new_lock
from cnnlite.types import Array

WORKSPACES_KEPT = 4  # per plan, for threads that run it concurrently

_preparing = new_lock()  # shared by all plans, as such a lock is kept until the process ends: see `new_lock`


class Plan:
    """A graph, scheduled.

    Args:
        graph: the finished graph: nothing may be added to it any more.
        results: the buffers that a run returns as arrays.
        joined: False runs each stage for all samples before the next one begins.
    """

    def __init__(self, graph: Graph, results: Sequence[Buffer], joined: bool = True) -> None:
        self.graph, self.results, self._joined = graph, list(results), joined
        numbers = [buffer.number for buffer in results]
        # Each with the index of an earlier result that is the same data in another shape, or None.
        self._results = [(buffer, buffer.number, buffer.dtype,
                          numbers.index(buffer.number) if numbers.index(buffer.number) < i else None)
                         for i, buffer in enumerate(results)]
        for buffer in results:
            if graph.buffers[buffer.number].kind == WORK:
                graph.buffers[buffer.number].kind = GIVEN
        steps = _needed(graph, results)
        fixed = [step for step in steps if graph.is_fixed_step(step)]
        ours = self.steps = [step for step in steps if step not in set(fixed)]
        self.prologue = Schedule(graph, fixed, _read_by(ours), joined)
        self.schedule = Schedule(graph, ours, (), joined)
        self._program = Program(self.schedule)
        self._banded: Program | None = None  # made when a run first has fewer samples than threads
        self._prologue_program = Program(self.prologue) if fixed else None
        self._pools: dict[Program, deque[Workspace]] = {self._program: deque()}
        self._weights = _storages(graph, WEIGHT)
        self._snapshot: Snapshot | None = None

    def run(self, samples: int, given: Mapping[int, Array]) -> list[Array]:
        """Run the plan.

        Args:
            samples: the number of samples.
            given: the array of each GIVEN buffer that isn't a result, by buffer number; shape and dtype must match.

        Returns:
            the arrays of the results, in order.
        """
        snapshot = self._current()
        threads = threads_for(self._program.work(samples))
        try:
            # Threads take samples or, if there are fewer samples than threads, bands of their rows.
            program = self._program if samples >= threads else self._for_bands()
            pool = self._pools[program]
            try:
                workspace = pool.pop()
            except IndexError:
                workspace = Workspace(program)
            workspace.prepare(samples, threads)
            if workspace.snapshot is not snapshot:
                snapshot.bind(workspace)
            results = self._set_addresses(workspace, samples, given)
            start, *arguments = workspace.call(threads)
            check(start(*arguments))
            if len(pool) < WORKSPACES_KEPT:
                pool.append(workspace)
        finally:
            give_back(threads)
        return results

    def _for_bands(self) -> Program:
        if self._banded is None:
            with _preparing:
                if self._banded is None:
                    banded = Program(Schedule(self.graph, self.steps, (), self._joined, banded=True))
                    self._pools[banded] = deque()
                    self._banded = banded
        return self._banded

    def _set_addresses(self, workspace: Workspace, samples: int, given: Mapping[int, Array]) -> list[Array]:
        """Write the addresses of the given arrays, and of new arrays for the results; return the results."""
        table = workspace.table
        for number, array in given.items():
            table[FIXED_WORDS + number] = address_of(array)
        results: list[Array] = []
        for buffer, number, dtype, same in self._results:
            shape = shape_of(buffer, samples)
            known = given.get(number) if same is None else results[same]
            if known is None:
                known = np.empty(shape, dtype)
                table[FIXED_WORDS + number] = address_of(known)
            elif known.shape != shape:
                known = known.reshape(shape)
            results.append(known)
        return results

    def programs(self, samples: int) -> list[tuple[str, Program, int]]:
        """Return the programs that run for that many samples: [(title, program, bands), ...]."""
        threads = threads_for(self._program.work(samples))
        give_back(threads)
        ours = ("for each batch", self._program, 1)
        if samples < threads:
            ours = ("for each batch, by bands of rows", self._for_bands(), bands_for(threads))
        if self._prologue_program is None:
            return [ours]
        return [("when weights have changed", self._prologue_program, 1), ours]

    def _current(self) -> Snapshot:
        """Return a snapshot of the current weights with the prologue's results, which are computed if need be."""
        snapshot = self._snapshot
        if snapshot is None or (self._weights and not snapshot.holds()):
            with _preparing:
                snapshot = self._snapshot
                if snapshot is None or not snapshot.holds():
                    snapshot = self._snapshot = self._prepare()
        return snapshot

    def _prepare(self) -> Snapshot:
        snapshot = Snapshot(self._weights, copies=True)
        snapshot.addresses.update(_constants(self.graph))
        if self._prologue_program is not None:
            workspace = snapshot.workspace = Workspace(self._prologue_program)
            workspace.prepare(1, 1)
            snapshot.bind(workspace)
            start, *arguments = workspace.call(1)
            check(start(*arguments))
            snapshot.addresses.update(workspace.addresses())
        return snapshot


WEIGHTS, INPUT = 1, 2  # the purposes of a run of a `TrainingPlan`: whose gradients are needed


class TrainingPlan:
    """A plan that changes weights or runs in sections, in a workspace of its own; it is not thread-safe.

    Args:
        graph: the finished graph: nothing may be added to it any more.
        kept: buffers that can be read after a run, until the next one.
        for_input: buffers that a run for WEIGHTS alone need not compute.
        joined: False runs each stage for all samples before the next one begins.
        in_sections: whether the sections of the graph will be run one by one.
        memory: the memory that it runs in, by default its own; plans that take turns may share one.
    """

    def __init__(self, graph: Graph, kept: Sequence[Buffer], for_input: Sequence[Buffer] = (), joined: bool = True,
                 in_sections: bool = True, memory: Memory | None = None) -> None:
        self.graph = graph
        without = set(_needed(graph, kept))
        steps = _needed(graph, [*kept, *for_input])
        purposes = {step.number: WEIGHTS | INPUT if step in without else INPUT for step in steps}
        self.schedule = Schedule(graph, steps, [*kept, *for_input], joined, in_sections=in_sections)
        self._program = Program(self.schedule, purposes)
        self.workspace = Workspace(self._program, memory)
        self._weights = _storages(graph, WEIGHT)
        self._snapshot: Snapshot | None = None

    def run(self, samples: int, given: Mapping[int, Array], section: int | None = None,
            purposes: int = WEIGHTS | INPUT) -> None:
        """Run the plan or a section of it.

        Args:
            samples: the number of samples.
            given: the array of each GIVEN buffer, by buffer number. Arrays passed to an earlier section must be kept.
            section: the section to run, or None for all of them.
            purposes: WEIGHTS, or WEIGHTS | INPUT.
        """
        workspace = self.workspace
        snapshot = self._snapshot
        if snapshot is None or not snapshot.has_same_arrays():
            snapshot = self._snapshot = Snapshot(self._weights, copies=False)
            snapshot.addresses.update(_constants(self.graph))
        if workspace.snapshot is not snapshot:
            snapshot.bind(workspace)
        for number, array in given.items():
            workspace.table[FIXED_WORDS + number] = address_of(array)
        threads = threads_for(self._program.work(samples))
        try:
            # More threads than before would need new memory, and what an earlier section left in the old would be lost.
            used = min(threads, workspace.threads) if section else threads
            workspace.prepare(samples, used)
            start, *arguments = workspace.call(used, section, purposes)
            check(start(*arguments))
        finally:
            give_back(threads)

    def programs(self, samples: int) -> list[tuple[str, Program, int]]:
        """See `Plan.programs`."""
        return [("for each batch", self._program, 1)]

    def array(self, buffer: Buffer) -> Array:
        """Return the array of a kept buffer as the last run left it."""
        return self.workspace.array(buffer)

    def release(self) -> None:
        """Free the memory; the next run allocates it again."""
        self.workspace.memory.free()


def address_of(array: Array) -> int:
    """Return the address of a contiguous array's data: `array.ctypes.data`, in a third of the time."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]  # to mypy an array is not a buffer
    except (TypeError, ValueError):  # it is read-only or empty
        return array.ctypes.data


def _storages(graph: Graph, kind: str) -> list[Storage]:
    return [storage for storage in graph.buffers if storage.kind == kind]


def _constants(graph: Graph) -> dict[int, int]:
    """Return the addresses of the constant arrays, by buffer number."""
    return {storage.buffer.number: storage.owner.ctypes.data for storage in _storages(graph, CONSTANT)}


def _needed(graph: Graph, results: Sequence[Buffer]) -> list[Step]:
    """Return the steps that are needed to compute the results, and to write weights and given arrays."""
    wanted = {buffer.number for buffer in results}
    steps: list[Step] = []
    for step in reversed(graph.steps):
        kinds = {graph.buffers[buffer.number].kind for buffer in step.outputs}
        if kinds - {WORK, THREAD_LOCAL} or any(buffer.number in wanted for buffer in step.outputs):
            steps.append(step)
            wanted.update(buffer.number for buffer in step.inputs)
    return steps[::-1]


def _read_by(steps: Sequence[Step]) -> list[Buffer]:
    return [buffer for step in steps for buffer in step.inputs]
