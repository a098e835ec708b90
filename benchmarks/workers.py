"""A process for each side, which works only when it is told to.

Two libraries in one process, or at work at the same time, would spoil each other's figures: each keeps threads that
spin for a while after their work, on the same cores. So each side has a process of its own, all but one of
them wait at a pipe, and a block of work begins with a repetition that does not count.

Run as a program this file is the worker: a line of JSON comes in, a line of JSON goes out.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.sides import SIDES

ROOT = Path(__file__).parent.parent
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(threads):
    """Return the variables for a process that may use so many threads and finds this source."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **dict.fromkeys(THREAD_VARIABLES, str(threads))}


class Worker:
    """One side in a process of its own."""

    def __init__(self, name, threads):
        self.name, self.threads = name, threads
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", name], env=environment(threads),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )

    def prepare(self, job):
        """Let the worker make ready for a job, and do it once; return its check number."""
        return self._ask({"prepare": job, "threads": self.threads})

    def run(self, seconds):
        """Let the worker repeat its job for about that long; return how long each repetition took."""
        return self._ask({"run": seconds})

    def _ask(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process of {self.name} has ended early; what it said stands above.")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def main(name):
    # Answers have a channel of their own: whatever a library prints goes to the screen.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side = SIDES[name]
    module = importlib.import_module(side.module)
    for line in sys.stdin:
        message = json.loads(line)
        if "prepare" in message:
            run, answer = module.prepare(message["prepare"], side.layout, message["threads"])
            run()
        else:
            answer = repeat(run, message["run"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def repeat(run, seconds, least=3):
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main(sys.argv[1])
