"""The executor: runs the groups of a schedule, by one thread or by several.

Every thread does the same (`execute`): of each group it takes units, until there are none left, and waits until those
that others have taken are done. Units are taken from a counter, so that a thread which a neighbour keeps from its core
does fewer. A thread that never gets a core is not waited for, since it has taken none.

From Python to here is one call. What it takes lies in memory: a `JOB` of addresses, and the records that a schedule is
made of. Nothing here knows what a stage computes.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import callback_address, kernel
from cnnlite.engine.stages import (
    BAND,
    BANDS,
    BEGIN,
    CHUNKS,
    END,
    GRAIN,
    SCRATCH,
    UNIT,
    array_at,
)

# What a schedule is made of, in memory. All are integers; an address is one too.


def _record(names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.int64) for name in names.split()])


JOB = _record("groups group_count tracks track_count steps step_count locals local_count table words own own_bytes "
              "control samples chunks yield_ purposes")
GROUP = _record("first_track last_track units")
TRACK = _record("first_step last_step first_local last_local units by_samples adds together bands grain")
STEP = _record("function record purposes")
LOCAL = _record("place offset sample_bytes")

SPINS = 1 << 12  # looks at a counter before the core is offered to others

_int64 = ir.IntType(64)


@intrinsic
def _call_stage(typingctx, function, record, run, first, last):
    """Call the stage at an address; return 0, or a number if it failed."""

    def codegen(context, builder, signature, args):
        function, record, run, first, last = args
        kinds = (types.voidptr, types.voidptr, types.int64, types.int64)
        pointer = ir.IntType(8).as_pointer()
        kind = context.call_conv.get_function_type(types.none, kinds).as_pointer()
        status, _ = context.call_conv.call_function(
            builder, builder.inttoptr(function, kind), types.none, kinds,
            [builder.inttoptr(record, pointer), builder.inttoptr(run, pointer), first, last])
        return builder.zext(status.is_error, _int64)

    return types.int64(*[types.int64] * 5), codegen


@intrinsic
def _add_to(typingctx, address, amount):
    """Add to an integer that other threads see; return what it was."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _int64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _look_at(typingctx, address):
    """Return an integer that other threads change."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], _int64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _call(typingctx, function):
    """Call a function of C without arguments at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _call_lane(typingctx, function, job, lane):
    """Call `execute` at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_int64, _int64]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def execute(job_address, lane):
    """Run all groups, together with the other threads; `lane` is the number of this one."""
    job = array_at(job_address, (1,), JOB)[0]
    groups, tracks = array_at(job.groups, (job.group_count,), GROUP), array_at(job.tracks, (job.track_count,), TRACK)
    steps, local = array_at(job.steps, (job.step_count,), STEP), array_at(job.locals, (job.local_count,), LOCAL)
    own = job.own + lane * job.own_bytes
    run, shared = array_at(own, (job.words,), np.int64), array_at(job.table, (job.words,), np.int64)
    for i in range(job.words):
        run[i] = shared[i]
    run[SCRATCH] = own + job.words * 8
    for g in range(job.group_count):
        group, taken, done = groups[g], job.control + 16 * g + 8, job.control + 16 * g + 16
        while True:
            unit = _add_to(taken, 1)
            if unit >= group.units:
                break
            t = group.first_track  # the units of a group are those of its tracks, one after the other
            number = unit
            while number >= tracks[t].units:
                number -= tracks[t].units
                t += 1
            track, failed = tracks[t], 0
            begin, end = _part_of(job, track, number, run)
            while True:  # once also where a chunk has no samples, as its sums must be zeros
                last = min(end, begin + track.together)
                # The addresses of local buffers are such that the sample `begin` lies at their beginning.
                for i in range(track.first_local, track.last_local):
                    run[local[i].place] = own + local[i].offset - begin * local[i].sample_bytes
                for i in range(track.first_step, track.last_step):
                    if steps[i].purposes & job.purposes:
                        failed |= _call_stage(steps[i].function, steps[i].record, own, begin, last)
                begin = last
                if begin >= end:
                    break
            if failed:
                _add_to(job.control, 1)
            _add_to(done, 1)
        spins = 0
        while _look_at(done) < group.units:
            spins += 1
            if spins > SPINS and job.yield_:
                _call(job.yield_)


@kernel
def _part_of(job, track, unit, run):
    """Return (begin, end) of the samples of a unit of a track, or of its own units; write to the table which it is."""
    run[UNIT], run[BAND], run[BANDS], run[GRAIN], run[CHUNKS] = unit, 0, 1, 1, job.chunks
    if not track.by_samples:
        return unit, unit + 1
    if track.adds:
        begin, end = unit * job.samples // track.units, (unit + 1) * job.samples // track.units
    else:
        run[BAND], run[BANDS], run[GRAIN] = unit % track.bands, track.bands, track.grain
        begin = unit // track.bands * track.together
        end = min(job.samples, begin + track.together)
    run[BEGIN], run[END] = begin, end
    return begin, end


@kernel
def _start(lane, job_address, lanes):
    """Run the job at an address by this thread; return how many units failed."""
    _clear(job_address)
    _call_lane(lane, job_address, 0)
    return _failures(job_address)


@kernel(parallel=True)
def _share(lane, job_address, lanes):
    """Run the job at an address by that many threads; return how many units failed."""
    _clear(job_address)
    for number in numba.prange(lanes):
        _call_lane(lane, job_address, number)
    return _failures(job_address)


@kernel
def _clear(job_address):
    """Take all counters back to 0."""
    job = array_at(job_address, (1,), JOB)[0]
    array_at(job.control, (1 + 2 * job.group_count,), np.int64)[:] = 0


@kernel
def _failures(job_address):
    return _look_at(array_at(job_address, (1,), JOB)[0].control)


_lane_address = callback_address(execute, lambda dtype: types.void(types.int64, types.int64))
TASK = f"{__name__}:{execute.__qualname__}"  # in `jit.tasks`


@functools.cache
def yield_address() -> int:
    """Return the address of the function that offers the core to others, or 0 where there is none."""
    try:
        function = ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError, TypeError):  # of Windows
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def compile_entry() -> None:
    """Compile what leads from Python to the stages of any plan, unless it is on disk."""
    _lane_address(None)
    for start in (_start, _share):
        start.compile((types.int64,) * 3)


def entry(lanes: int) -> tuple[Any, int]:
    """Return (start, lane): start(lane, job, lanes) runs the job at an address by that many threads.

    It returns how many units failed.
    """
    return (_start if lanes == 1 else _share), _lane_address(None)
