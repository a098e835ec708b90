"""Where the time of a training step or of inference goes: every stage of its plan, and the overhead around them.

    python -m benchmarks.stages LeNet-5 W2       # training steps
    python -m benchmarks.stages --infer W1       # inference on a batch of the same size
    python -m benchmarks.stages --image W1       # inference on one sample

Everything runs on one thread. A Python program walks the schedule the way the executor does, so the stages of a group
run one after the other for a few samples at a time, on the same memory; the overhead of each call is subtracted. Times
are medians of many repetitions in wall-clock time, so run this on an idle machine. Stages that run only when weights
have changed, as in inference, are not listed: they have already run.

The last column is a stage's rate relative to NumPy's product of two large matrices on one thread, in a process of its
own that takes turns with this one. A convolution's operations are counted by its definition, of which Winograd's method
does a quarter, so its share can exceed 100 %.
"""

import argparse
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from unittest.mock import patch

import numba
import numpy as np

from benchmarks.nets import EVERY_NET
from benchmarks.sides import NUMPY
from benchmarks.sides.data import batch
from benchmarks.sides.with_cnnlite import build
from benchmarks.tables import table
from benchmarks.workers import Worker
from cnnlite.engine import executor, thread_pool
from cnnlite.engine.executor import GROUP
from cnnlite.engine.program import Workspace, work_of
from cnnlite.engine.stages import SCRATCH, stage

REPETITIONS, SECONDS = 50, 3.0  # at most
SGEMM = {"kind": "sgemm", "n": 1024}
SGEMM_SECONDS = 0.02  # for each repetition


@numba.njit
def call(function, record, run, first, last):
    return executor._call_stage(function, record, run, first, last)


@stage(sizes="nothing")
def nothing(r, run, first, last):
    pass


class Clock:
    """A context in which plans run on one thread and are timed.

    Attributes:
        each: whether to time each stage, or the run as a whole.
        seconds: the time of all runs since `clear`.
        stages: {(program, index of the step in it, index of its group): [calls, seconds]}.
    """

    def __init__(self):
        self.each = False
        self.overhead = 0.0
        self.clear()

    def clear(self):
        self.seconds, self.samples = 0.0, 0
        self.stages = defaultdict(lambda: [0, 0.0])

    def __enter__(self):
        self.overhead = statistics.median(self._of_nothing() for _ in range(200))
        call, clock = Workspace.call, self

        def remembering(workspace, *arguments, **more):
            clock._workspace = workspace
            return call(workspace, *arguments, **more)

        def entry(threads):
            return self.start, 0

        self._entry = executor.entry
        self._patches = ExitStack()
        for thing, name, new in ((Workspace, "call", remembering), (executor, "entry", entry),
                                 (thread_pool, "take", lambda: 1)):
            self._patches.enter_context(patch.object(thing, name, new))
        return self

    def __exit__(self, *error):
        self._patches.close()

    def _of_nothing(self):
        run = np.zeros(16, np.int64).ctypes.data
        begin = time.perf_counter()
        call(nothing.address(np.dtype(np.float32)), run, run, 0, 1)
        return time.perf_counter() - begin

    def start(self, function, job_address, threads):
        """Stand in for the executor."""
        if self.each:
            return self._walk(self._workspace)
        start, function = self._entry(threads)
        begin = time.perf_counter()
        failed = start(function, job_address, threads)
        self.seconds += time.perf_counter() - begin
        return failed

    def _walk(self, workspace):
        """Do what `executor.execute` does, timing each stage."""
        job, layout, program = workspace.job[0], workspace.layout, workspace.program
        own = workspace.own.ctypes.data
        run = workspace.own[: program.words * 8].view(np.int64)
        run[:] = workspace.table
        run[SCRATCH] = own + program.words * 8
        self.samples = int(job["samples"])
        first = (int(job["groups"]) - layout.groups.ctypes.data) // GROUP.itemsize
        failed = 0
        for number, group in enumerate(layout.groups[first : first + job["group_count"]], first):
            for track in layout.tracks[group["first_track"] : group["last_track"]]:
                steps = [i for i in range(track["first_step"], track["last_step"])
                         if program.steps[i]["purposes"] & job["purposes"]]
                local = layout.locals[track["first_local"] : track["last_local"]].tolist()
                for unit in range(track["units"]):
                    begin, end = executor._part_of(job, track, unit, run)
                    for at in range(begin, max(end, begin + 1), max(1, track["together"])):
                        for place, offset, sample_bytes in local:
                            run[place] = own + offset - at * sample_bytes
                        for i in steps:
                            failed |= self._timed(program, i, number, own, at, min(end, at + track["together"]))
        return failed

    def _timed(self, program, i, group, run, first, last):
        function, record = int(program.steps[i]["function"]), int(program.steps[i]["record"])
        begin = time.perf_counter()
        failed = call(function, record, run, first, last)
        end = time.perf_counter()
        entry = self.stages[program, i, group]
        entry[0] += 1
        entry[1] += max(0.0, end - begin - self.overhead)
        return failed


class MatrixProduct:
    """NumPy's product of large matrices, on one thread of another process."""

    def __init__(self):
        self._worker = Worker(NUMPY, 1)
        self._worker.prepare(SGEMM)

    def rate(self):
        """Return its current rate in operations per second."""
        (seconds,) = self._worker.run(SGEMM_SECONDS)
        return 2 * SGEMM["n"] ** 3 / statistics.median(seconds)

    def close(self):
        self._worker.close()


def measure(work, between=lambda: None):
    """Time a piece of work; `between()` is called between repetitions.

    Returns:
        rows: for each stage, its layer, name, group index, calls, seconds and operations.
        together: the seconds that the executor takes to run the plans.
        whole: the seconds of the work as a whole.
    """
    wholes, runs, times, steps = [], [], defaultdict(list), {}
    with Clock() as clock:
        end = time.perf_counter() + SECONDS
        while len(wholes) < 2 or (len(wholes) < REPETITIONS and time.perf_counter() < end):
            between()
            for _ in range(3):
                work()
            clock.clear()
            begin = time.perf_counter()
            work()
            wholes.append(time.perf_counter() - begin)
            runs.append(clock.seconds)
            clock.each = True
            work()
            clock.each = False
            for key, (calls, seconds) in clock.stages.items():
                times[key].append(seconds)
                steps[key] = calls
        samples = clock.samples
    rows = []
    for (program, i, group), calls in steps.items():
        step = [step for track in program.tracks for step in track.steps][i]
        rows.append((step.layer, step.stage.name, group, calls, statistics.median(times[program, i, group]),
                     work_of(step, samples)))
    return rows, statistics.median(runs), statistics.median(wholes)


def training_step(net):
    model, (x, y) = build(net), batch(net.input_shape, net.batch)
    return lambda: model.train_on_batch(x, y)


def inference(net, samples):
    model, (x, _) = build(net), batch(net.input_shape, samples)
    return lambda: model(x)


def report(title, rows, together, whole, sgemm):
    """Return the times as text; `sgemm` is the rate of the product of large matrices in operations per second."""
    stages = sum(row[4] for row in rows)
    lines = [[layer, name, str(group), str(calls), f"{seconds * 1e6:.1f}", f"{seconds / whole:.1%}",
              *((f"{work / seconds / 1e9:.1f}", f"{work / seconds / sgemm:.0%}") if work and seconds else ("", ""))]
             for layer, name, group, calls, seconds, work in rows]
    headings = ["Layer", "stage", "group", "calls", "us", "share", "GFLOP/s", "of SGEMM"]
    return (f"{title}: {whole * 1e6:.0f} us. The executor takes {together * 1e6:.0f}, the stages alone "
            f"{stages * 1e6:.0f}, and Python {(whole - together) * 1e6:.0f}.\n\n{table(headings, lines)}\n")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description="Where the time goes.")
    parser.add_argument("nets", nargs="+", choices=list(EVERY_NET), metavar="net",
                        help=f"some of {', '.join(EVERY_NET)}")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--infer", action="store_true", help="time model(x) on a batch instead of a training step")
    what.add_argument("--image", action="store_true", help="time model(x) on one sample")
    arguments = parser.parse_args()
    product = MatrixProduct()
    for name in arguments.nets:
        net = EVERY_NET[name]
        if arguments.infer or arguments.image:
            samples = 1 if arguments.image else net.batch
            title, work = f"{name}, inference of {samples}", inference(net, samples)
        else:
            title, work = f"{name}, a training step of {net.batch}", training_step(net)
        rates: list[float] = []
        measured = measure(work, lambda rates=rates: rates.append(product.rate()))
        print(report(title, *measured, statistics.median(rates)))
    product.close()


if __name__ == "__main__":
    main()
