"""A process in which many threads of Python use the library at once.

    python -m tests.stress.threads WAY ROUNDS

It prints, as JSON, numba's threading layer, how many tasks ended, and how often a loop was shared.
"""

import concurrent.futures
import json
import sys
import threading

import numba
import numpy as np

from tests.helpers.programs import cannot_run, require_layer
from tests.stress import work

THREADS = 8


def in_threads(tasks):
    """Run each task in a thread of its own, all begun at once; return their results."""
    results = [None] * len(tasks)
    start = threading.Barrier(len(tasks))

    def run(i):
        start.wait()
        results[i] = tasks[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def in_futures(tasks):
    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        return [future.result() for future in [executor.submit(task) for task in tasks]]


def in_joblib(tasks):
    try:
        import joblib
    except ImportError:
        cannot_run("joblib is not installed")
    return joblib.Parallel(THREADS, backend="threading")(joblib.delayed(task)() for task in tasks)


def mixed(run, rounds):
    """Train models of their own, and ask a shared one in three ways, from eight threads at once."""
    shared = work.make_model(100)
    work.train(shared, 100)

    def tasks():
        # Made here, because the seeds that layers draw by themselves go by the order of threads.
        models = [work.make_model(i) for i in range(THREADS // 2)]
        return [
            *(lambda i=i, model=model: work.train(model, i) for i, model in enumerate(models)),
            *(lambda i=i: work.ask(shared, i) for i in range(THREADS // 2)),
        ]

    expected = [task() for task in tasks()]
    for _ in range(rounds):
        assert run(tasks()) == expected
    return rounds * THREADS


def first_call(run, rounds):
    """Ask a model that is not built yet."""
    for _ in range(rounds):
        model = work.make_model(build=False)
        answers = set(run([lambda model=model: work.ask(model)] * THREADS))
        assert answers == {work.ask(model)}
        assert len(model.get_weights()) == 12
    return rounds * THREADS


def answer(i):
    return work.ask(_asked, i) == _answers[i]


@numba.njit(parallel=True)
def ask_in_prange(right):
    for i in numba.prange(len(right)):
        with numba.objmode(is_right="boolean"):
            is_right = answer(i)
        right[i] = is_right


@numba.njit(parallel=True, nogil=True)
def own_prange(x):
    total = 0.0
    for i in numba.prange(len(x)):
        total += np.sqrt(x[i])
    return total


def within_a_prange(_, rounds):
    for _ in range(rounds):
        right = np.zeros(THREADS, bool)
        ask_in_prange(right)
        assert right.all()
    return rounds * THREADS


def beside_a_prange(run, rounds):
    """Let a thread run a parallel loop of the user's while others ask. numba itself forbids that with "workqueue"."""
    if numba.threading_layer() == "workqueue":
        cannot_run("numba's layer workqueue takes no two loops at once")
    x = np.ones(100_000)

    def own():
        return all(own_prange(x) == len(x) for _ in range(200))

    tasks = [own] * 2 + [lambda i=i: answer(i) for i in range(THREADS - 2)]
    for _ in range(rounds):
        assert all(run(tasks))
    return rounds * THREADS


WAYS = {
    "threads": (mixed, in_threads), "futures": (mixed, in_futures), "joblib": (mixed, in_joblib),
    "first call": (first_call, in_threads), "within a prange": (within_a_prange, None),
    "beside a prange": (beside_a_prange, in_threads),
}


def main(ways, rounds):
    global _asked, _answers
    layer = require_layer()
    shares = work.Shares()
    _asked = work.make_model(7)
    _answers = [work.ask(_asked, i) for i in range(THREADS)]
    done = {}
    for way in ways.split(","):
        function, run = WAYS[way]
        done[way] = function(run, int(rounds))
    print(json.dumps({"layer": layer, "tasks": done, "shared": shares.shared, "alone": shares.alone}))


if __name__ == "__main__":
    main(*sys.argv[1:])
