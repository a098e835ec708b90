"""Where the time of a training step, or of one image, goes: each task of compiled code, and all that lies between them.

    python -m benchmarks.tasks LeNet-5 W2        # on all threads; with NUMBA_NUM_THREADS=1 on one
    python -m benchmarks.tasks --image W1

The median of many repetitions, in microseconds of a clock on the wall: for a machine that does nothing else. A task's
time begins in Python, so it contains the 1 to 3 us in which numba takes the arguments apart.
"""

import argparse
import statistics
import time
from collections import defaultdict

from benchmarks.nets import NETS
from benchmarks.sides.data import batch
from benchmarks.sides.with_cnnlite import build
from cnnlite.kernels import threads

REPETITIONS = 100


class Clock:
    """Takes the time of every task that `threads.run` hands out."""

    def __init__(self):
        self.calls = []
        self._run = threads._run

    def __enter__(self):
        threads._run = self._timed
        return self

    def __exit__(self, *error):
        threads._run = self._run

    def _timed(self, share, place, units, args):
        begin = time.perf_counter()
        result = self._run(share, place, units, args)
        self.calls.append((place, units, bool(share), time.perf_counter() - begin))
        return result


def tasks_of(work):
    """Return (rows, whole) of a piece of work: [(name, units, shared by threads, seconds)], and the seconds of all."""
    for _ in range(5):
        work()
    wholes, times, heads = [], defaultdict(list), []
    with Clock() as clock:
        for _ in range(REPETITIONS):
            clock.calls.clear()
            begin = time.perf_counter()
            work()
            wholes.append(time.perf_counter() - begin)
            heads = [call[:3] for call in clock.calls]
            for i, call in enumerate(clock.calls):
                times[i].append(call[3])
    names = {place: task.__name__.strip("_") for (task, _), place in threads._places.items()}
    rows = [(names[place], units, shared, statistics.median(times[i]))
            for i, (place, units, shared) in enumerate(heads)]
    return rows, statistics.median(wholes)


def work_of(net, image):
    """Return a function without arguments: a training step of a net, or `model(x)` of one image."""
    model = build(net)
    x, y = batch(net.input_shape, 1 if image else net.batch)
    return (lambda: model(x)) if image else (lambda: model.train_on_batch(x, y))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description="Where the time goes.")
    parser.add_argument("nets", nargs="+", choices=list(NETS))
    parser.add_argument("--image", action="store_true", help="model(x) of one image instead of a training step")
    arguments = parser.parse_args()
    for name in arguments.nets:
        rows, whole = tasks_of(work_of(NETS[name], arguments.image))
        print(f"{name}: {whole * 1e6:.0f} us, of which")
        for task, units, shared, seconds in rows:
            where = "on all threads" if shared else "on this thread"
            print(f"  {task:30}{units:6} units {where:15}{seconds * 1e6:10.1f}")
        print(f"  {'in Python, between them':52}{(whole - sum(row[3] for row in rows)) * 1e6:10.1f}")


if __name__ == "__main__":
    main()
