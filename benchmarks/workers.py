"""A process for each side, which works only on request.

Two libraries in one process, or running at the same time, would spoil each other's figures: each keeps threads that
go on spinning for a while after their work, on the same cores. So each side has a process of its own, all but one
block on a pipe, and a block of work begins with a warm-up repetition.

Run as a program, this file is the worker: it reads a line of JSON and answers with a line of JSON.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from benchmarks.sides import SIDES
from benchmarks.sides.ways import fastest

ROOT = Path(__file__).parent.parent
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LONG = 0.7  # seconds, more than a block


def environment(threads):
    """Return the environment of a process that may use that many threads and imports this source."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **dict.fromkeys(THREAD_VARIABLES, str(threads))}


class SideFailed(Exception):
    """A side couldn't do a job, or its process died; the message says why."""


class Worker:
    """One side in a process of its own.

    Args:
        name: the side.
        threads: how many threads it may use.
        program: arguments of Python, if not to run this file.
        variables: additional environment variables.
    """

    def __init__(self, name, threads, program=("-m", "benchmarks.workers"), variables=None):
        self.name, self.threads = name, threads
        self.process = subprocess.Popen(
            [sys.executable, *program, name], env={**environment(threads), **(variables or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )

    def prepare(self, job, threads=None):
        """Have the worker prepare a job and do it once.

        Returns the check number, and a note that says which way of doing the job was the fastest. With `threads` the
        side uses exactly that many; without, it uses all or whatever suits it best.
        """
        counts = [threads or self.threads]
        if threads is None and self.name in SIDES and SIDES[self.name].tries_threads and self.threads > 1:
            counts.insert(0, 1)
        return self._ask({"prepare": job, "threads": counts})

    def run(self, seconds):
        """Have the worker repeat its job for about that long; return the times of all repetitions, for each part."""
        return self._ask({"run": seconds})

    def _ask(self, message):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SideFailed("its process ended early; see its output above")
        answer = json.loads(answer)
        if "failed" in answer:
            raise SideFailed(answer["failed"])
        return answer["answer"]

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def main(name):
    # Answers have a channel of their own; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parts = ()
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "prepare" in message:
                parts = ()  # free the memory of the last job before this one is prepared
                parts, *answer = prepare(name, message["prepare"], message["threads"])
            else:
                answer = [repeat(part, message["run"]) for part in parts]
            answer = {"answer": answer}
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def prepare(name, job, thread_counts):
    """Return functions for the parts of the job, its check number, and a note.

    Almost all jobs have one part. Of the given numbers of threads, the fastest is used.
    """
    side = SIDES[name]
    module = importlib.import_module(f"benchmarks.sides.{side.module}")
    found = {}

    def with_threads(threads):
        def make():
            run, found["check"], *found["way"] = module.prepare(job, side.layout, threads)
            return run
        return make

    ways = {threads: with_threads(threads) for threads in thread_counts}
    run, threads = fastest(ways) if len(ways) > 1 else (ways[thread_counts[0]](), thread_counts[0])
    parts = run if isinstance(run, tuple) else (run,)
    for part in parts:
        part()
    return parts, found["check"], *(found["way"] or [f"{threads} thread{'s' if threads > 1 else ''}"])


def repeat(run, seconds):
    """Return how long each repetition took.

    The first, which wakes the threads and fills the caches, doesn't count unless it is so long that this is
    negligible.
    """
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if first > LONG:
        return [first]
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main(sys.argv[1])
