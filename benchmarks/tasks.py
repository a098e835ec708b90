"""Where the time of a training step, or of one image, goes: each task of compiled code, and all that lies between them.

    python -m benchmarks.tasks LeNet-5 W2        # on all threads; with NUMBA_NUM_THREADS=1 on one
    python -m benchmarks.tasks --image W1

The median of many repetitions, in microseconds of a clock on the wall: for a machine that does nothing else. A task's
time begins in Python, so in a training step it contains the 1 to 3 us in which numba takes the arguments apart. Of an
image the tasks are recorded (`cnnlite/recorded.py`), and each contains 0.3 us in which one of them alone is called.
"""

import argparse
import statistics
import time
from collections import defaultdict

from benchmarks.nets import NETS
from benchmarks.sides.data import batch
from benchmarks.sides.with_cnnlite import build
from cnnlite.kernels import threads
from cnnlite.kernels.recording import _replay
from cnnlite.recorded import PASSES_BEFORE

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


def training_tasks(net):
    """Return what `tasks_of` does for a training step of a net."""
    model, (x, y) = build(net), batch(net.input_shape, net.batch)
    return tasks_of(lambda: model.train_on_batch(x, y))


def image_tasks(net):
    """Return the same for `model(x)` of one image, of which the tasks are recorded."""
    model, (x, _) = build(net), batch(net.input_shape, 1)
    for _ in range(PASSES_BEFORE + 5):
        model(x)
    recording = model._recordings.recording(x.shape)
    rows = []
    for i, (task, units, _) in enumerate(recording._calls):
        row = recording._rows[i : i + 1]
        seconds = median_of(lambda row=row: _replay(row, recording._spoilt))
        rows.append((task.__name__.strip("_"), units, False, seconds))
    return rows, median_of(lambda: model(x))


def median_of(work):
    """Return the median of the seconds that a piece of work takes, one of many at a time."""
    seconds = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        for _ in range(20):
            work()
        seconds.append((time.perf_counter() - begin) / 20)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description="Where the time goes.")
    parser.add_argument("nets", nargs="+", choices=list(NETS))
    parser.add_argument("--image", action="store_true", help="model(x) of one image instead of a training step")
    arguments = parser.parse_args()
    for name in arguments.nets:
        rows, whole = (image_tasks if arguments.image else training_tasks)(NETS[name])
        print(f"{name}: {whole * 1e6:.0f} us, of which")
        for task, units, shared, seconds in rows:
            where = "on all threads" if shared else "on this thread"
            print(f"  {task:30}{units:6} units {where:15}{seconds * 1e6:10.1f}")
        print(f"  {'in Python, between them':52}{(whole - sum(row[3] for row in rows)) * 1e6:10.1f}")


if __name__ == "__main__":
    main()
