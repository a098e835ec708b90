"""A process that looks how many threads the library makes use of, by the time that each of them has run.

    python -m tests.stress.cores CASE

    as it is            with what NUMBA_NUM_THREADS says
    before the import   one core is left to the process before the library is imported
    before the work     after the import, but before anything is computed
    amid the work       after something was computed; and then all are given back
    masked              numba.set_num_threads(1), which another thread of Python does not see
    two of three        as if two cores of three were lent

It prints, as JSON, how many threads worked in each phase, and whether they got the same bits.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tests.helpers.programs import cannot_run, run_program

SHARE = 0.1  # of the time of the busiest thread, from which one counts as at work


def run_times():
    """Return the nanoseconds that each thread of this process has run, by its id."""
    times = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            times[path.parent.name] = int(path.read_text().split()[0])
        except OSError:  # it has ended
            pass
    return times


def workers(bits):
    """Convolve a while; return how many threads worked at it."""
    from cnnlite import kernels

    generator = np.random.default_rng(0)
    x, kernel = (generator.normal(size=shape).astype("f4") for shape in ((192, 32, 32, 16), (3, 3, 16, 32)))
    y = kernels.conv2d(x, kernel)  # which loads or compiles it
    time.sleep(0.3)  # until the pool sleeps, and the cores are counted again
    before = run_times()
    for _ in range(20):
        kernels.conv2d(x, kernel, out=y)
    bits.append(y.tobytes())
    spent = [after - before.get(thread, 0) for thread, after in run_times().items()]
    return sum(one > SHARE * max(spent) for one in spent)


# What the cases must give: the numbers of threads, where "all" is one for each core.
EXPECTED = {
    ("as it is", None): ["all"], ("as it is", 1): [1], ("as it is", 3): [3], ("before the import", None): [1],
    ("before the work", None): [1], ("amid the work", None): ["all", 1, "all"], ("masked", None): ["all", 1, "all"],
    ("two of three", 3): [2],
}


def check(case, threads):
    """Run the program with that NUMBA_NUM_THREADS, and check what it measures."""
    result, _ = run_program("tests.stress.cores", case, threads=threads)
    expected = [result["cores"] if number == "all" else number for number in EXPECTED[case, threads]]
    assert result["phases"] == expected, result
    assert result["same bits"]


def main(case):
    if not hasattr(os, "sched_setaffinity") or not run_times():
        cannot_run("nobody tells which cores and threads are at work")
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        cannot_run("there is one core")
    one, bits, phases = {min(cores)}, [], []
    if case == "before the import":
        os.sched_setaffinity(0, one)
    import numba

    from cnnlite.engine import thread_pool

    if case == "two of three":
        thread_pool.lent = lambda most: 2
    if case == "before the work":
        os.sched_setaffinity(0, one)
    phases.append(workers(bits))
    if case == "amid the work":
        for some in (one, cores):
            os.sched_setaffinity(0, some)
            phases.append(workers(bits))
    if case == "masked":
        numba.set_num_threads(1)
        phases.append(workers(bits))
        thread = threading.Thread(target=lambda: phases.append(workers(bits)))
        thread.start()
        thread.join()
    else:
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS  # which is the user's
    print(json.dumps({"phases": phases, "same bits": len(set(bits)) == 1, "cores": len(cores)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
