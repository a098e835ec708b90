"""A process that computes, and then makes others which do, in one of the ways that users have.

    python -m tests.stress.processes WAY ROUNDS

Each of them must get the bits that this one got. It prints, as JSON, how many of them there were.
"""

import concurrent.futures
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time

import numba
import numpy as np

from cnnlite.callbacks import LambdaCallback
from tests.helpers.programs import CANNOT_RUN, cannot_run, require_layer
from tests.stress import work

WORKERS = 2
PATIENCE = 100  # seconds, for one child


def task(seed):
    """What a child does: train a model of its own."""
    return work.train(work.make_model(seed), seed)


def forked(function):
    """Run the function in a child that `os.fork` makes, and check that it returns True there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(PATIENCE)  # or it would outlive a test that gives up
            code = 0 if function() else 2
        except SystemExit as error:
            code = error.code
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == CANNOT_RUN:
        sys.exit(code)  # the child has said why
    assert code == 0


def by_fork(rounds):
    """Fork, train in the child, and in a child of the child."""
    expected = task(1)

    def in_child():
        forked(lambda: task(1) == expected)
        return task(1) == expected

    for _ in range(rounds):
        forked(in_child)
        assert task(1) == expected  # the parent goes on
    return 2 * rounds


def fork_first(rounds):
    """Fork before anything is computed: the child has a pool of its own."""
    for _ in range(rounds):
        shares = work.Shares()
        forked(lambda shares=shares: first_task() and shares.shared > 0 and shares.alone == 0)
    return rounds


def first_task():
    """Compute, which loads the layer, so not before; return True."""
    try:
        return bool(task(1))
    except ValueError:
        require_layer()
        raise


def fork_from_a_thread(rounds):
    expected = task(1)
    for _ in range(rounds):
        errors = []

        def run(errors=errors):
            try:
                forked(lambda: task(1) == expected)
            except BaseException as error:
                errors.append(error)
                raise

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert not errors
    return rounds


def fork_in_a_callback(rounds):
    """Fork within a fit, which goes on in both processes."""
    expected = task(1)
    for _ in range(rounds):
        children = []

        def fork(batch, logs, children=children):
            if not children:
                children.append(os.fork())
                if not children[0]:
                    signal.alarm(PATIENCE)

        try:
            result = work.train(work.make_model(1), 1, callbacks=[LambdaCallback(on_train_batch_end=fork)])
            result_of_another = task(1)
        finally:
            if children and not children[0]:
                sys.stderr.flush()
                os._exit(0 if sys.exc_info()[0] is None and result == result_of_another == expected else 2)
        assert result == result_of_another == expected
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    return rounds


def fork_amid_work(rounds):
    """Fork while other threads train, ask, pack weights and compile."""
    expected, asked = task(1), work.make_model(2)
    answer = work.ask(asked, 3)
    stop, errors = threading.Event(), []

    def keep_on(function):
        try:
            while not stop.is_set():
                function()
        except BaseException as error:
            errors.append(error)
            raise

    def compile_one():
        # A kernel that is new each time, so that numba's and LLVM's locks are held at most times.
        @numba.njit
        def function(x):
            return x + 1

        function(time.perf_counter())

    trained = work.make_model(5)
    threads = [threading.Thread(target=keep_on, args=(function,)) for function in (
        lambda: work.train(trained, 5), lambda: work.ask(asked, 3), compile_one)]
    for thread in threads:
        thread.start()

    def in_child():
        compile_one()
        return task(1) == expected and work.ask(asked, 3) == answer

    try:
        for _ in range(rounds):
            forked(in_child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    return rounds


def in_a_pool(method):
    def way(rounds):
        expected = [task(seed) for seed in range(3)]
        context = multiprocessing.get_context(method)
        for _ in range(rounds):
            with context.Pool(WORKERS) as pool:
                assert pool.map_async(task, range(3)).get(PATIENCE) == expected
        return rounds * WORKERS

    return way


def in_an_executor(rounds):
    expected = [task(seed) for seed in range(3)]
    for _ in range(rounds):
        with concurrent.futures.ProcessPoolExecutor(WORKERS) as executor:
            assert list(executor.map(task, range(3), timeout=PATIENCE)) == expected
    return rounds * WORKERS


def in_loky(rounds):
    """joblib's processes, which get the model by pickle."""
    try:
        import joblib
    except ImportError:
        cannot_run("joblib is not installed")
    model = work.make_model(2)
    work.train(model, 2)
    expected = [work.ask(model, i) for i in range(3)]
    for _ in range(rounds):
        parallel = joblib.Parallel(WORKERS, backend="loky", timeout=PATIENCE)
        assert parallel(joblib.delayed(work.ask)(model, i) for i in range(3)) == expected
        assert parallel(joblib.delayed(task)(i) for i in range(2)) == [task(0), task(1)]
    return rounds * WORKERS


def server(rounds):
    """A server that has warmed up by a prediction, and then forks workers that wait at one socket, as gunicorn does."""
    model = work.make_model(2)
    x, _ = work.make_data()
    expected = model.predict(x, batch_size=len(x), verbose=0)

    def serve(listener):
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                size = int(stream.readline())
                batch = np.frombuffer(stream.read(size), np.float32).reshape(-1, *x.shape[1:])
                stream.write(model.predict(batch, batch_size=len(batch), verbose=0).tobytes())

    for _ in range(rounds):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            children = []
            for _ in range(WORKERS):
                child = os.fork()
                if child == 0:
                    try:
                        signal.alarm(PATIENCE)
                        serve(listener)
                    finally:
                        os._exit(1)
                children.append(child)
            try:
                for _ in range(4 * WORKERS):
                    with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as connection:
                        with connection.makefile("rwb") as stream:
                            stream.write(b"%d\n" % x.nbytes + x.tobytes())
                            stream.flush()
                            assert stream.read() == expected.tobytes()
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
    return rounds * WORKERS


NEED_FORK = {
    "fork": by_fork, "fork first": fork_first, "fork from a thread": fork_from_a_thread,
    "fork in a callback": fork_in_a_callback, "fork amid work": fork_amid_work, "pool of fork": in_a_pool("fork"),
    "pool of forkserver": in_a_pool("forkserver"), "server": server,
}
WAYS = {**NEED_FORK, "pool of spawn": in_a_pool("spawn"), "executor": in_an_executor, "loky": in_loky}


def main(ways, rounds):
    done = {}
    for way in ways.split(","):
        if way in NEED_FORK and not hasattr(os, "fork"):
            cannot_run("there is no fork")
        if way != "fork first":
            layer = require_layer()
        done[way] = WAYS[way](int(rounds))
    layer = require_layer()
    print(json.dumps({"layer": layer, "processes": done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
