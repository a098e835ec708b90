"""Interleaved timing: a short block of one library, a short block of the next, round after round."""

import math
import statistics
import sys
import time

from benchmarks.sides import CNNLITE, NUMPY
from benchmarks.workers import SideFailed, Worker

PAUSE = 0.05  # seconds, for the threads of the previous side to go to sleep


class Bench:
    """The workers and their time budget.

    Args:
        names: the available sides.
        rounds: how many blocks each side gets.
        seconds: how long a block is.
        threads: how many threads each side may use.
        make: creates the worker of a side.
    """

    def __init__(self, names, rounds, seconds, threads, make=Worker):
        self.names, self.rounds, self.seconds, self.threads, self._make = names, rounds, seconds, threads, make
        self._workers = {}

    def compare_anew(self, jobs, threads=None):
        """Run `compare` with a fresh process for each side, like a script that trains a single network.

        This matters for PyTorch: in a fresh process, freed memory goes back to the system and is requested again in
        every step. Once the process has done other work, the heap stays in place.
        """
        self.close()
        return self.compare(jobs, threads=threads)

    def compare(self, jobs, seconds=None, rounds=None, threads=None):
        """Run {side: job} on the available sides, taking turns.

        Returns "seconds", {side: [median time of a repetition, for each round]}, and "notes", {side: how it did
        the job}. For a job with several parts, "seconds" has one such list per part. A side whose library fails is
        left out, and its note says why. `threads` fixes the number of threads of each side.
        """
        workers, checks, notes = [], {}, {}
        for name in jobs:
            if name not in self.names:
                continue
            worker = self._worker(name)
            try:
                checks[name], notes[name] = worker.prepare(jobs[name], threads)
            except SideFailed as error:
                notes[name] = self._leave_out(name, error)
            else:
                workers.append(worker)
        require_agreement(checks)
        medians = {worker.name: [] for worker in workers}
        for turn in range(rounds or self.rounds):
            # Rotate, so that no side always goes first.
            first = turn % len(workers)
            for worker in workers[first:] + workers[:first]:
                time.sleep(PAUSE)
                try:
                    parts = worker.run(seconds or self.seconds)
                except SideFailed as error:
                    notes[worker.name] = self._leave_out(worker.name, error)
                    workers.remove(worker)
                    del medians[worker.name]
                else:
                    medians[worker.name].append([statistics.median(times) for times in parts])
        parts = {name: [list(part) for part in zip(*rounds)] for name, rounds in medians.items()}
        return {"seconds": {name: each if len(each) > 1 else each[0] for name, each in parts.items()}, "notes": notes}

    def _leave_out(self, name, error):
        """Stop the worker of a side that has failed and return a note; the next job gets a new worker."""
        if name in (CNNLITE, NUMPY):
            raise error
        self._workers.pop(name).close()
        print(f"{name} is left out of this: {error}", file=sys.stderr)
        return f"left out: {error}"

    def _worker(self, name):
        if name not in self._workers:
            self._workers[name] = self._make(name, self.threads)
        return self._workers[name]

    def close(self):
        """Stop the worker processes; the next job gets new ones."""
        while self._workers:
            self._workers.popitem()[1].close()


def require_agreement(checks):
    """Raise a RuntimeError unless all sides do the same work: the same number of weights, or equal mean results."""
    numbers = [number for number in checks.values() if number is not None]
    tolerance = 0 if all(isinstance(number, int) for number in numbers) else 1e-3
    if not all(math.isclose(number, numbers[0], rel_tol=tolerance) for number in numbers):
        raise RuntimeError(f"The sides do not do the same work: {checks}.")
