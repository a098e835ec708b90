"""The executor: runs the groups of a schedule, on one thread or several.

All threads run the same function, `execute`. In each group a thread takes the units of its own share one by one, then
steals those left in other shares, and waits until all units are done. So a thread that has to share its core with
another process does fewer units, and one that never gets a core holds nobody up, since it has taken none. The shares
are alike from group to group: a thread finds what it has computed for some samples, or rows, in its own cache.

Python makes one call per run. Its arguments are in memory: a `JOB` of addresses, and the records that make up a
schedule. Nothing here knows what a stage computes.
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

from cnnlite.engine.jit import callback_address, jit
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

# The in-memory form of a schedule. All fields are integers, addresses included.


def _record(names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.int64) for name in names.split()])


JOB = _record("groups group_count tracks track_count steps step_count locals local_count table words own own_bytes "
              "counters counter_count done taken taken_bytes threads samples chunks yield_ purposes")
GROUP = _record("first_track last_track units")  # units: the total of its tracks
TRACK = _record("first_step last_step first_local last_local units by_samples adds together bands grain")
STEP = _record("function record purposes")
LOCAL = _record("place offset sample_bytes")

LINE = 8  # integers per cache line
SPINS = 1 << 12  # reads of a counter before a thread yields its core

_int64 = ir.IntType(64)


@intrinsic
def _call_stage(typingctx, function, record, run, first, last):
    """Call the stage at an address; return 1 if it failed, else 0."""

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
    """Add atomically to an integer that threads share; return its old value."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _int64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _look_at(typingctx, address):
    """Atomically read an integer that other threads change."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.inttoptr(args[0], _int64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _call(typingctx, function):
    """Call the C function at an address, without arguments."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _call_execute(typingctx, function, job, thread):
    """Call `execute` at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_int64, _int64]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def execute(job_address, thread):
    """Run all groups, together with the other threads; `thread` is this thread's number."""
    job = array_at(job_address, (1,), JOB)[0]
    groups, tracks = array_at(job.groups, (job.group_count,), GROUP), array_at(job.tracks, (job.track_count,), TRACK)
    steps, local = array_at(job.steps, (job.step_count,), STEP), array_at(job.locals, (job.local_count,), LOCAL)
    own = job.own + thread * job.own_bytes
    run, shared = array_at(own, (job.words,), np.int64), array_at(job.table, (job.words,), np.int64)
    for i in range(job.words):
        run[i] = shared[i]
    run[SCRATCH] = own + job.words * 8
    for g in range(job.group_count):
        group, done = groups[g], job.done + 8 * g
        for turn in range(job.threads):
            whose = (thread + turn) % job.threads
            for t in range(group.first_track, group.last_track):
                begin, stop = _share_of(tracks[t].units, whose, job.threads)
                taken = job.taken + whose * job.taken_bytes + 8 * t
                while begin + _look_at(taken) < stop:
                    unit = begin + _add_to(taken, 1)
                    if unit < stop:
                        _run_unit(job, tracks[t], unit, own, run, steps, local)
                        _add_to(done, 1)
        spins = 0
        while _look_at(done) < group.units:
            spins += 1
            if spins > SPINS and job.yield_:
                _call(job.yield_)


@jit
def _run_unit(job, track, unit, own, run, steps, local):
    """Run all stages of a track for one of its units; `own` is this thread's memory."""
    begin, end = _part_of(job, track, unit, run)
    failed = 0
    while True:  # also once for a chunk without samples, as its sums must be set to zero
        last = min(end, begin + track.together)
        # Local buffers are addressed so that the sample `begin` is at their start.
        for i in range(track.first_local, track.last_local):
            run[local[i].place] = own + local[i].offset - begin * local[i].sample_bytes
        for i in range(track.first_step, track.last_step):
            if steps[i].purposes & job.purposes:
                failed |= _call_stage(steps[i].function, steps[i].record, own, begin, last)
        begin = last
        if begin >= end:
            break
    if failed:
        _add_to(job.counters, 1)


@jit
def _part_of(job, track, unit, run):
    """Return (begin, end) of a unit's samples, or (unit, unit + 1) for BATCH; write the unit to the run's table."""
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


@jit
def _share_of(units, thread, threads):
    """Return (first, stop) of the units in a thread's own share."""
    return (thread * units + threads - 1) // threads, ((thread + 1) * units + threads - 1) // threads


@jit
def _start(function, job_address, threads):
    """Run the job at an address on this thread; return how many units failed."""
    _clear(job_address, 1)
    _call_execute(function, job_address, 0)
    return _failures(job_address)


@jit(parallel=True)
def _share(function, job_address, threads):
    """Run the job at an address on that many threads; return how many units failed."""
    _clear(job_address, threads)
    for number in numba.prange(threads):
        _call_execute(function, job_address, number)
    return _failures(job_address)


@jit
def _clear(job_address, threads):
    """Reset all counters to 0, for that many threads."""
    job = array_at(job_address, (1,), JOB)[0]
    job.threads = threads
    array_at(job.counters, (job.counter_count,), np.int64)[:] = 0


@jit
def _failures(job_address):
    return _look_at(array_at(job_address, (1,), JOB)[0].counters)


def set_counters(job, groups, tracks, threads):
    """Allocate the counters of a job and write their addresses into it; return their array.

    First in the array is the number of units that failed, then for each group the number that are done; then for each
    thread, starting at a cache line of its own, how many units of its share of each track have been taken.
    """
    done_words, taken_words = (-(-count // LINE) * LINE for count in (groups, tracks))
    counters = np.zeros(LINE + done_words + threads * taken_words, np.int64)
    job["counters"], job["counter_count"] = counters.ctypes.data, counters.size
    job["done"] = job["counters"] + 8 * LINE
    job["taken"], job["taken_bytes"] = job["done"] + 8 * done_words, 8 * taken_words
    return counters


_execute_address = callback_address(execute, lambda dtype: types.void(types.int64, types.int64))
TASK = f"{__name__}:{execute.__qualname__}"  # in `jit.tasks`


@functools.cache
def yield_address() -> int:
    """Return the address of the C function that yields the core, or 0 where it doesn't exist."""
    try:
        function = ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError, TypeError):  # on Windows
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def compile_entry() -> None:
    """Compile the code between Python and the stages, the same for all plans, unless it is on disk."""
    _execute_address(None)
    for start in (_start, _share):
        start.compile((types.int64,) * 3)


def entry(threads: int) -> tuple[Any, int]:
    """Return (start, function): start(function, job, threads) runs the job at an address on that many threads.

    `start` returns how many units failed.
    """
    return (_start if threads == 1 else _share), _execute_address(None)
