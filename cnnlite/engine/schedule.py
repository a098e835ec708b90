"""The schedule: which stages run together, and where their buffers lie.

Stages are put into *groups*, with a barrier after each. A group has at most one *track* of stages that are split by
samples: a thread takes a few samples and runs all stages of the track on them, one after the other, while the data is
in its cache. Alongside it there may be tracks of one BATCH stage each, split into units of their own.

    group 0     pack the weights of conv2d  |  pack the weights of dense
    group 1     conv2d, relu, max_pool for samples 0 to 3  |  for samples 4 to 7  |  ...
    group 2     the product of dense, by blocks

One rule decides: a stage goes into the earliest group in which all of its inputs are available. A PIXEL, HALO or IMAGE
stage can use what its track has computed for the same samples; everything else must come from an earlier group. (When
a few samples are split into bands of rows for the threads, only PIXEL stages can.) A track is also closed once the
weights of its stages would evict one another from the cache: only stages with hardly any weights, and those that
usually have nothing to do (`rare`), may still join it. Stages that depend on weights alone run as late as possible.

A buffer that only the stages of one track use is *local*: every thread has memory of its own for its current samples.
So is a buffer that is expanded from much smaller ones, such as the gradient of a pooling's input: each track that needs
it recomputes it, which is faster than fetching it from memory. All others are in the workspace, where buffers that are
never needed at the same time share memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnlite.engine.buffers import CONSTANT, THREAD_LOCAL, WEIGHT, WORK, Buffer, chunk_count
from cnnlite.engine.graph import Graph, Step
from cnnlite.engine.stages import BATCH, IMAGE, PIXEL

LOCAL_BYTES = 1 << 18  # limit on local buffers, for a thread's current samples
RESIDENT_BYTES = 3 << 18  # limit on the weights and sums that all samples of a track share
LIGHT_BYTES = 1 << 14  # of a stage's weights and sums that evict nothing
ALIGNMENT = 64
TASKS = 16  # a batch is split into at least this many units, if it has as many samples


@dataclass(eq=False)
class Track:
    """Stages that run one after the other for each unit.

    Attributes:
        steps: the stages.
        resident: bytes of the weights and sums that all samples share.
        local: the buffers that are in the thread's own memory.
        thread_local: the THREAD_LOCAL buffers, also in the thread's own memory; they have no samples.
    """

    steps: list[Step]
    resident: int = 0
    local: list[Buffer] = field(default_factory=list)
    thread_local: list[Buffer] = field(default_factory=list)

    @property
    def by_samples(self) -> bool:
        return self.steps[0].stage.footprint != BATCH

    @property
    def adds(self) -> bool:
        """Whether it sums over samples, so that its units are the chunks of the batch."""
        return any(step.stage.adds for step in self.steps)

    def lives(self) -> dict[int, tuple[int, int]]:
        """Return the first and the last step that needs each local buffer, by buffer number."""
        lives: dict[int, tuple[int, int]] = {buffer.number: (len(self.steps), -1) for buffer in self.local}
        for i, step in enumerate(self.steps):
            for buffer in (*step.inputs, *step.outputs):
                if buffer.number in lives:
                    first, last = lives[buffer.number]
                    lives[buffer.number] = min(first, i), max(last, i)
        return lives

    def samples_together(self, samples: int, bands: int = 1) -> int:
        """Return how many of `samples` to compute at a time: one if they are split into bands."""
        if bands > 1:
            return 1
        wanted = max(step.together for step in self.steps)
        return max(1, min(wanted, LOCAL_BYTES // max(self.local_bytes, 1), samples // TASKS))

    @functools.cached_property
    def local_bytes(self) -> int:
        """The bytes that the local buffers take per sample."""
        return lay_out({buffer.number: buffer.sample_size * buffer.itemsize for buffer in self.local}, self.lives())[1]

    def units(self, samples: int, bands: int = 1) -> int:
        """Return how many units it is split into."""
        if not self.by_samples:
            units = self.steps[0].units
            return units(samples) if callable(units) else units
        if self.adds:
            return chunk_count(samples)
        return -(-samples // self.samples_together(samples, bands)) * bands


class Schedule:
    """The groups for some steps of a graph.

    Args:
        graph: the graph.
        steps: the steps of the graph that are to be run, in order.
        kept: the buffers that are read after the run.
        joined: False gives each stage a group of its own.
        banded: whether samples are to be split into bands of rows.
        in_sections: whether the sections of the graph are run one by one.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step], kept: Sequence[Buffer] = (), joined: bool = True,
                 banded: bool = False, in_sections: bool = True) -> None:
        self.graph, self.joined, self.banded = graph, joined, banded
        self._in_sections = in_sections
        self.kept = {buffer.number for buffer in kept}
        self.groups: list[list[Track]] = []
        self.sections: list[int] = []  # the first group of each
        self._place: dict[Step, tuple[int, Track]] = {}
        ours = set(steps)
        for step in steps:
            self._put(step, ours)
        while len(self.sections) <= graph.section:  # sections without steps
            self.sections.append(len(self.groups))
        if joined:
            self._delay_preparations(steps)
        if joined and not banded:
            self._find_local()

    def _put(self, step: Step, ours: set[Step]) -> None:
        by_samples = step.stage.footprint != BATCH
        while len(self.sections) <= step.section:
            self.sections.append(len(self.groups))
        first = self.sections[step.section]
        for buffer, others in self._before(step):
            for other in others:
                if other.number >= step.number or other not in ours:
                    continue
                group, track = self._place[other]
                together = (
                    self.joined and by_samples and track.by_samples and buffer.of_samples
                    and other.section == step.section
                    and not (self.banded and not _has_same_bands(step, other, buffer))
                )
                first = max(first, group if together else group + 1)
        if not self.joined:
            first = len(self.groups)
        thread_local = [buffer for buffer in step.outputs if self.graph.buffers[buffer.number].kind == THREAD_LOCAL]
        resident = 0 if step.rare else _bytes(step.inputs + step.outputs) - _bytes(thread_local)
        while len(self.groups) <= first or (by_samples and self._is_closed(first, step, resident)):
            if len(self.groups) <= first:
                self.groups.append([])
            else:
                first += 1
        mine = self._track_of_samples(first) if by_samples else None
        if mine is None:
            mine = Track([])
            self.groups[first].append(mine)
        mine.steps.append(step)
        mine.resident += resident
        mine.thread_local += thread_local
        self._place[step] = first, mine

    def _delay_preparations(self, steps: Sequence[Step]) -> None:
        """Move each step that depends on weights alone to the group before the one that needs it.

        So its results take up memory for as short a time as possible.
        """
        for step in reversed(steps):
            storages = [self.graph.buffers[buffer.number] for buffer in step.inputs]
            made = [self.graph.buffers[buffer.number] for buffer in step.outputs]
            is_preparation = step.stage.footprint == BATCH and all(
                storage.kind in (WEIGHT, CONSTANT) and all(writer.number > step.number for writer in storage.made_by)
                for storage in storages) and all(storage.kind == WORK for storage in made)
            if not is_preparation:
                continue
            after = [other for storage in made for other in (*storage.used_by, *storage.made_by)]
            after += [other for storage in storages for other in storage.made_by]  # an optimizer's step
            groups = [self._place[other][0] for other in after if other.number > step.number and other in self._place]
            now, track = self._place[step]
            later = min([*groups, *self.sections[step.section + 1:], len(self.groups)]) - 1
            if later > now and any(storage.used_by for storage in made):
                self.groups[now].remove(track)
                self.groups[later].append(track)
                self._place[step] = later, track

    def _before(self, step: Step) -> Any:
        """Yield (buffer, steps that must come first because of it)."""
        for buffer in step.inputs:
            yield buffer, self.graph.buffers[buffer.number].made_by
        for buffer in step.outputs:
            storage = self.graph.buffers[buffer.number]
            yield buffer, storage.made_by + storage.used_by

    def _track_of_samples(self, group: int) -> Track | None:
        return next((track for track in self.groups[group] if track.by_samples), None)

    def _is_closed(self, group: int, step: Step, resident: int) -> bool:
        track = self._track_of_samples(group) if group < len(self.groups) else None
        if track is None:
            return False
        if self.banded and step.stage.footprint == IMAGE and track.steps[0].stage.footprint != IMAGE:
            return True  # it would be computed again for each band
        # A stage that adds would cut the track into chunks, of which there are few for many threads.
        is_light = resident <= LIGHT_BYTES and (track.adds or not step.stage.adds)
        return not self.joined or (not is_light and track.resident + resident > RESIDENT_BYTES)

    def _find_local(self) -> None:
        """Find the buffers that only one track uses, or that each track that uses them can recompute."""
        tracks: dict[int, list[Track]] = {}  # by buffer number
        for group in self.groups:
            for track in group:
                for step in track.steps:
                    for buffer in (*step.inputs, *step.outputs):
                        using = tracks.setdefault(buffer.number, [])
                        if track not in using:
                            using.append(track)
        made = [(storage, [step for step in storage.made_by if step in self._place]) for storage in self.graph.buffers]
        # Buffers made from others come first: a track that recomputes one also uses the others.
        for storage, makers in sorted(made, key=lambda pair: -max((step.number for step in pair[1]), default=0)):
            buffer = storage.buffer
            using = tracks.get(buffer.number, [])
            if storage.kind != WORK or not buffer.of_samples or buffer.number in self.kept or not makers:
                continue
            if len(using) > 1 and not (len(makers) == 1 and _is_made_quickly(makers[0], buffer)
                                       and self._has_final_inputs(makers[0])
                                       and all(track.by_samples for track in using)):
                continue
            home = self._place[makers[0]][1]
            reads = [used.number for step in home.steps for used in step.inputs]
            if len(using) > 1 and buffer.number not in reads and len(home.steps) > 1:
                home.steps.remove(makers[0])  # only other tracks need it, and each makes it for itself
                using = [track for track in using if track is not home]
            for track in using:
                track.local.append(buffer)
                if track is not home:
                    _make_in(track, makers[0], buffer)
                    for needed in makers[0].inputs:
                        if track not in tracks[needed.number]:
                            tracks[needed.number].append(track)

    def _has_final_inputs(self, step: Step) -> bool:
        """Return whether no later step writes to the inputs of a step."""
        return all(writer.number < step.number for buffer in step.inputs
                   for writer in self.graph.buffers[buffer.number].made_by)

    def lives(self) -> dict[int, tuple[int, int]]:
        """Return the first and the last group that needs each buffer in the workspace, by buffer number.

        The results of other steps, those of the prologue, are in the prologue's own workspace.
        """
        lives: dict[int, tuple[int, int]] = {}
        made = {buffer.number for group in self.groups for track in group for step in track.steps
                for buffer in step.outputs if self.graph.buffers[buffer.number].kind == WORK}
        for number, group in enumerate(self.groups):
            for track in group:
                local = {buffer.number for buffer in track.local}
                for step in track.steps:
                    for buffer in (*step.inputs, *step.outputs):
                        if buffer.number in made and buffer.number not in local:
                            first, last = lives.get(buffer.number, (number, number))
                            lives[buffer.number] = min(first, number), max(last, number)
        # What one section passes to another must survive however often the other one is run.
        end = len(self.groups)
        later = self.sections[1:] if self._in_sections else []
        for number, (first, last) in lives.items():
            if number in self.kept or any(first < section <= last for section in later):
                lives[number] = first, end
        return lives


def _has_same_bands(step: Step, other: Step, buffer: Buffer) -> bool:
    """Return whether a band of a step needs no more of a buffer than the same band of an earlier step uses."""
    if step.stage.footprint != PIXEL:
        return False
    if other.stage.footprint != PIXEL and any(read.number == buffer.number for read in other.inputs):
        return False  # in other bands, the earlier step may not yet have read what the step overwrites
    views = [view for each in (step, other) for view in (*each.inputs, *each.outputs) if view.number == buffer.number]
    return len({(view.shape[0], view.shape[1] if view.ndim > 2 else 1) for view in views}) == 1


def _is_made_quickly(step: Step, buffer: Buffer) -> bool:
    """Return whether recomputing a buffer is faster than fetching it: it is expanded from much smaller ones."""
    read = sum(other.sample_size * other.itemsize for other in step.inputs if other.of_samples)
    return step.stage.spreads and 2 * read <= buffer.sample_size * buffer.itemsize


def _make_in(track: Track, step: Step, buffer: Buffer) -> None:
    """Let a track recompute a buffer before its first use."""
    first = next(i for i, other in enumerate(track.steps) if any(used.number == buffer.number for used in other.inputs))
    track.steps.insert(first, step)


def _bytes(buffers: Sequence[Buffer]) -> int:
    """Return the bytes of those buffers that have no axis of samples."""
    return sum(buffer.sample_size * buffer.itemsize for buffer in buffers if not buffer.of_samples)


def size_of(buffer: Buffer, samples: int) -> int:
    """Return the bytes of a buffer for that many samples."""
    count = samples if buffer.of_samples else chunk_count(samples) if buffer.of_chunks else 1
    return count * buffer.sample_size * buffer.itemsize


def lay_out(sizes: dict[int, int], lives: dict[int, tuple[int, int]]) -> tuple[dict[int, int], int]:
    """Return each buffer's offset, and the bytes of all: no two that are needed in the same group overlap.

    The largest are placed first, each in the lowest gap that it fits into.
    """
    places: dict[int, int] = {}
    end = 0
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        first, last = lives[number]
        taken = sorted((places[other], places[other] + sizes[other]) for other in places
                       if lives[other][0] <= last and first <= lives[other][1])
        place = 0
        size = -(-sizes[number] // ALIGNMENT) * ALIGNMENT
        for begin, stop in taken:
            if begin - place >= size:
                break
            place = max(place, -(-stop // ALIGNMENT) * ALIGNMENT)
        places[number] = place
        end = max(end, place + size)
    return places, end
