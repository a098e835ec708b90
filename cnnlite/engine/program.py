"""A schedule in the form that the executor runs, and the memory of a run."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from cnnlite.engine import executor, helpers, thread_pool
from cnnlite.engine.buffers import VALUE, chunk_count
from cnnlite.engine.executor import GROUP, JOB, LOCAL, STEP, TRACK
from cnnlite.engine.graph import Step
from cnnlite.engine.schedule import ALIGNMENT, Schedule, lay_out, size_of
from cnnlite.engine.stages import BATCH, FIXED_WORDS, IMAGE, SAMPLES
from cnnlite.types import Array

KEPT_LAYOUTS = 8  # for different numbers of samples
SMALL_WORK = 6e6  # additions and multiplications that are done before other threads would have started
BANDS_A_THREAD, MOST_BANDS = 4, 64  # bands of rows that a sample is split into
ALL = 3  # purposes

# Called with (kernels done, kernels in all) while a program is compiled, to update a progress bar.
watcher: ContextVar[Callable[[int, int], None] | None] = ContextVar("watcher", default=None)


class Program:
    """The records of a schedule, valid for any number of samples, and its `Layout`s, each valid for one.

    Args:
        schedule: the schedule.
        purposes: what each step is needed for, as bits, by step number; a run may be for some purposes only.
    """

    def __init__(self, schedule: Schedule, purposes: dict[int, int] | None = None) -> None:
        self.schedule, self.graph = schedule, schedule.graph
        self.tracks = [track for group in schedule.groups for track in group]
        steps = [step for track in self.tracks for step in track.steps]
        self._records = self.graph.records(steps)
        self.steps = np.zeros(len(steps), STEP)
        tell, dtype = watcher.get(), self.graph.dtype
        new = dict.fromkeys(step.stage.task for step in steps if dtype not in step.stage.addresses)
        with helpers.beside([*new, executor.TASK] if new else [], dtype):
            for i, (row, step, record) in enumerate(zip(self.steps, steps, self._records)):
                if tell is not None:
                    tell(i, len(steps))
                row["function"], row["record"] = step.stage.address(dtype), record.ctypes.data
                row["purposes"] = ALL if purposes is None else purposes[step.number]
        words = FIXED_WORDS + len(self.graph.buffers)
        self.words = -(-words // 8) * 8
        self.scratch = -(-max((step.scratch for step in steps), default=0) // ALIGNMENT) * ALIGNMENT
        self.lives = schedule.lives()
        self.work = functools.lru_cache(KEPT_LAYOUTS)(self._work)
        self.layout = functools.lru_cache(KEPT_LAYOUTS)(self._layout)

    def _work(self, samples: int) -> float:
        """Return how many additions and multiplications the program takes for that many samples."""
        return sum(work_of(step, samples) for track in self.tracks for step in track.steps)

    def _layout(self, samples: int, bands: int) -> Layout:
        return Layout(self, samples, bands)


class Layout:
    """The groups and tracks of a program for one number of samples, and where its buffers are.

    Attributes:
        places: the offset of each buffer in the workspace, by buffer number.
        size: their total bytes, a multiple of a cache line's.
        own_bytes: the bytes that each thread needs: for its copy of the run's table, scratch memory and local buffers.
    """

    def __init__(self, program: Program, samples: int, bands: int) -> None:
        self.program, self.samples, self.bands = program, samples, bands
        groups = program.schedule.groups
        self.groups, self.tracks = np.zeros(len(groups), GROUP), np.zeros(len(program.tracks), TRACK)
        local_count = sum(len(track.local) + len(track.thread_local) for track in program.tracks)
        self.locals = np.zeros(local_count, LOCAL)
        base = program.words * 8 + program.scratch
        self.own_bytes = base
        step = place = number = 0
        for group, row in zip(groups, self.groups):
            row["first_track"] = number
            for track in group:
                self._set_track(number, track, step, place, base)
                step, number = step + len(track.steps), number + 1
                place += len(track.local) + len(track.thread_local)
            row["last_track"] = number
            row["units"] = sum(self.tracks[row["first_track"]:number]["units"])
        buffers = program.graph.buffers
        sizes = {number: size_of(buffers[number].buffer, samples) for number in program.lives}
        self.places, self.size = lay_out(sizes, program.lives)

    def _set_track(self, number: int, track: Any, first_step: int, first_local: int, base: int) -> None:
        schedule, samples = self.program.schedule, self.samples
        row = self.tracks[number]
        row["first_step"], row["last_step"] = first_step, first_step + len(track.steps)
        row["first_local"], row["last_local"] = first_local, first_local + len(track.local) + len(track.thread_local)
        row["by_samples"], row["adds"] = track.by_samples, track.adds
        row["bands"] = self.bands if schedule.banded and track.steps[0].stage.footprint != IMAGE else 1
        row["together"] = track.samples_together(samples, int(row["bands"]))
        row["grain"] = math.lcm(*(step.grain for step in track.steps))
        row["units"] = track.units(samples, int(row["bands"]))
        sizes = {buffer.number: buffer.sample_size * buffer.itemsize for buffer in track.local}
        places, size = lay_out({number: size * int(row["together"]) for number, size in sizes.items()}, track.lives())
        for i, (number, sample_bytes) in enumerate(sizes.items(), first_local):
            self.locals[i] = FIXED_WORDS + number, base + places[number], sample_bytes
        offset = base + size
        for i, buffer in enumerate(track.thread_local, first_local + len(track.local)):
            self.locals[i] = FIXED_WORDS + buffer.number, offset, 0
            offset += -(-buffer.sample_size * buffer.itemsize // ALIGNMENT) * ALIGNMENT
        self.own_bytes = max(self.own_bytes, offset)


def work_of(step: Step, samples: int) -> float:
    """Return how many additions and multiplications a step takes for that many samples."""
    if callable(step.work):
        return float(step.work(samples))
    return step.work if step.stage.footprint == BATCH else step.work * samples


class Memory:
    """Memory that several workspaces may use in turn: a run's data is lost when the next run begins.

    Attributes:
        bytes: the memory.
        version: incremented whenever `bytes` becomes another array.
    """

    def __init__(self) -> None:
        self.bytes, self.version = _memory(0), 0

    def reserve(self, size: int, samples: int) -> None:
        """Ensure that there are at least that many bytes; a MemoryError names the number of samples."""
        if size > self.bytes.size:
            self.free()  # first, so that the old and the new never coexist
            self.bytes = _memory(size, samples)

    def free(self) -> None:
        """Free all of it."""
        self.bytes = _memory(0)
        self.version += 1


class Workspace:
    """What a run of a program needs: memory for intermediate results and for threads, and a table of addresses.

    Args:
        program: the program.
        memory: the memory to use; by default its own.
    """

    def __init__(self, program: Program, memory: Memory | None = None) -> None:
        self.program = program
        self.memory = Memory() if memory is None else memory
        self.table = np.zeros(program.words, np.int64)
        self.job = np.zeros(1, JOB)
        self.job_address = self.job.ctypes.data
        self.job["words"], self.job["table"] = program.words, self.table.ctypes.data
        self.job["steps"], self.job["step_count"] = program.steps.ctypes.data, len(program.steps)
        self.job["yield_"] = executor.yield_address()
        self._counters: Array | None = None
        self._values = []
        for storage in program.graph.buffers:
            if storage.kind == VALUE:
                values = np.zeros(storage.buffer.shape, storage.buffer.dtype)
                self._values.append((values, storage.owner))
                self.table[FIXED_WORDS + storage.buffer.number] = values.ctypes.data
        self.layout: Layout | None = None
        self.threads = 0
        self.snapshot: Any = None  # of the weights whose addresses are in the table
        self._memory_version = -1  # of the memory whose addresses are in the table
        self._part: Any = None  # the part of the program that the job is set up to run

    def prepare(self, samples: int, threads: int) -> None:
        """Ensure that there is memory for that many samples and threads."""
        layout = self.layout
        if layout is None or layout.samples != samples or (
            self.program.schedule.banded and layout.bands != bands_for(threads)
        ):
            layout = self.program.layout(samples, bands_for(threads))
        if layout is not self.layout or threads > self.threads or self._memory_version != self.memory.version:
            self._lay_out(layout, max(threads, self.threads))

    def _lay_out(self, layout: Layout, threads: int) -> None:
        """Write the addresses of everything into the job and the table."""
        self.layout = None  # invalid until there is memory for all of it
        self.memory.reserve(layout.size + threads * layout.own_bytes, layout.samples)
        base, job = self.memory.bytes.ctypes.data, self.job
        job["tracks"], job["track_count"] = layout.tracks.ctypes.data, len(layout.tracks)
        job["locals"], job["local_count"] = layout.locals.ctypes.data, len(layout.locals)
        job["samples"], job["chunks"] = layout.samples, chunk_count(layout.samples)
        job["own"], job["own_bytes"] = base + layout.size, layout.own_bytes
        self._counters = executor.set_counters(job, len(layout.groups), len(layout.tracks), threads)
        self.table[SAMPLES] = layout.samples
        for number, place in layout.places.items():
            self.table[FIXED_WORDS + number] = base + place
        self.layout, self.threads, self._memory_version = layout, threads, self.memory.version

    @property
    def own(self) -> Array:
        """The threads' own memory."""
        layout: Any = self.layout
        return self.memory.bytes[layout.size:layout.size + self.threads * layout.own_bytes]

    def call(self, threads: int, section: int | None = None, purposes: int = ALL) -> tuple[Any, int, int, int]:
        """Return (function, *arguments), the call that runs the program or a section of it; see `executor.entry`.

        `prepare` must have been called for that many threads. The numbers that Python sets are read here, except for
        a later section.
        """
        layout: Any = self.layout
        if not section:
            for values, function in self._values:
                values[...] = function()
        part = layout, section, purposes
        if part != self._part:
            self._part = None  # invalid until all of it is written
            groups, first, last = layout.groups, 0, len(layout.groups)
            if section is not None:
                bounds = [*self.program.schedule.sections, last]
                first, last = bounds[section], bounds[section + 1]
            self.job["groups"], self.job["group_count"] = groups.ctypes.data + first * GROUP.itemsize, last - first
            self.job["purposes"], self._part = purposes, part
        return *executor.entry(threads), self.job_address, threads

    def addresses(self) -> dict[int, int]:
        """Return the addresses of all buffers in the workspace."""
        layout: Any = self.layout
        base = self.memory.bytes.ctypes.data
        return {number: base + place for number, place in layout.places.items()}

    def array(self, buffer: Any) -> Array:
        """Return the array of a buffer in the workspace, valid until the next run."""
        layout: Any = self.layout
        count = layout.samples if buffer.of_samples else chunk_count(layout.samples) if buffer.of_chunks else 1
        place, size = layout.places[buffer.number], count * buffer.sample_size
        numbers = self.memory.bytes[place:place + size * buffer.itemsize].view(buffer.dtype)
        return numbers.reshape(shape_of(buffer, layout.samples))


def bands_for(threads: int) -> int:
    """Return how many bands of rows a sample is split into, if a plan is run in bands."""
    return min(MOST_BANDS, BANDS_A_THREAD * threads)


def threads_for(work: float) -> int:
    """Return how many threads to use for that much work: one if there is little, as others take time to start.

    `give_back` must be called afterwards.
    """
    return 1 if work < SMALL_WORK else thread_pool.take()


def give_back(threads: int) -> None:
    """Give back that many threads after the work."""
    if threads > 1:
        thread_pool.give_back()


def check(failed: int) -> None:
    """Raise a RuntimeError if units failed."""
    if failed:
        raise RuntimeError(f"{failed} units of the plan failed: a stage read out of bounds, or ran out of memory.")


def shape_of(buffer: Any, samples: int) -> tuple[int, ...]:
    """Return the shape of a buffer's array for that many samples."""
    if buffer.of_samples:
        return (buffer.shape[0].factor * samples, *buffer.shape[1:])
    return (chunk_count(samples), *buffer.shape[1:]) if buffer.of_chunks else buffer.shape


@functools.cache
def _machine_bytes() -> float:
    """Return this machine's memory in bytes, or infinity where it can't be queried."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # on Windows
        return math.inf


def _memory(size: int, samples: int = 0) -> Array:
    """Return that many bytes, aligned to a cache line; raise a MemoryError if the machine doesn't have them."""
    try:
        if size > _machine_bytes():  # NumPy would hand them out, and the process would die when writing to them
            raise MemoryError
        raw = np.empty(size + ALIGNMENT, np.uint8)
    except MemoryError:
        remedy = "a smaller batch_size" if samples > 1 else "smaller samples, or layers of fewer filters or units"
        raise MemoryError(
            f"a plan for {samples} sample{'' if samples == 1 else 's'} needs {size / 2**30:.1f} GiB of memory for its "
            f"intermediate results, and this machine has {_machine_bytes() / 2**30:.1f}. Use {remedy}."
        ) from None
    return raw[-raw.ctypes.data % ALIGNMENT:][:size]
