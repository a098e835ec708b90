"""Processes that compile beside this one: threads would take turns at numba's lock.

What a plan needs is known before the first stage is compiled. This process compiles in one direction, helpers come from
the other end; all keep what they have compiled on disk, and each looks there first. So the work is done where they
meet. Nobody waits for a helper, and one that can't be started, or dies, leaves its share to this process.

A helper is a new Python that is told by a line of JSON what to compile, and runs nothing of the user's program. It ends
after the kernel that it is at when its standard input does: when it is no longer needed, or this process is gone.
"""

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import Any

import numba
import numpy as np

from cnnlite.engine import jit, thread_pool

WORTH_IT = 6  # kernels; it takes a helper as long to begin as to compile two
MOST = 3

# The first entry is the folder of the user, where anything may be called "json".
_PROGRAM = """import sys
del sys.path[0]
import json
job = json.loads(sys.stdin.readline())
sys.path[:] = job["path"]
from cnnlite.engine.helpers import help_with
help_with(job)
"""


@contextmanager
def beside(names, dtype, most=MOST):
    """Let helpers compile what of some tasks is not on disk, while this process does too, from the first one on.

    Args:
        names: of `jit.tasks`, in the order in which this process will come to them.
        dtype: of the numbers for which to compile.
        most: how many helpers there may be.
    """
    # Others can't import what a test or a user has made.
    missing = [name for name in names if name.startswith("cnnlite.") and not jit.is_kept(name, dtype)]
    helpers: list[Any] = []
    try:
        if len(missing) >= WORTH_IT and _may_help():
            count = min(most, cores() - 1, len(missing) // 3)
            for i in range(count):
                _start(missing[::-1][i::count], dtype, helpers)
        yield
    finally:
        for helper in helpers:
            with suppress(OSError):  # of one that is gone
                helper.stdin.close()
            with suppress(RuntimeError):  # at the end of Python, when no thread may begin
                threading.Thread(target=helper.wait, daemon=True).start()  # or the system would keep its exit status


def cores():
    """Return how many cores this process may use: those of its threads, in a container as many as that may have."""
    return thread_pool.lent(numba.config.NUMBA_NUM_THREADS)


def _may_help():
    # The executable of a frozen program, or of one that Python is embedded in, would start that program again. One of
    # many processes has neighbours that do the same.
    program = os.path.basename(sys.executable or "").lower()
    return (program.startswith("python") and not getattr(sys, "frozen", False)
            and multiprocessing.parent_process() is None and jit.place()[0] is not None)


def _start(names, dtype, helpers):
    """Add a helper to the list, unless this process may not start any."""
    job = {"path": [path for path in sys.path if isinstance(path, str)], "names": names,
           "dtype": np.dtype(dtype).name, "same": jit.versions()}
    environment = dict(os.environ)
    with suppress(OSError, RuntimeError):  # not permitted, a folder that is gone, or the end of Python
        if numba.config.CACHE_DIR:
            environment["NUMBA_CACHE_DIR"] = os.path.abspath(numba.config.CACHE_DIR)
        helper: Any = subprocess.Popen(
            [sys.executable, *_flags(), "-c", _PROGRAM], env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        helpers.append(helper)
        helper.stdin.write(json.dumps(job).encode() + b"\n")
        helper.stdin.flush()


def _flags():
    """Return the flags of this Python by which it runs nothing from the environment, or from the user's folders."""
    flags = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return [flag for flag, is_set in flags.items() if is_set]


def help_with(job):
    """Compile what a job says, in a process that does nothing else."""
    if jit.versions() != job["same"]:
        return  # what it would compile is of no use to who asked
    is_over = threading.Event()

    def wait():
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    for name in job["names"]:
        if is_over.is_set():
            break
        importlib.import_module(name.partition(":")[0])
        jit.tasks[name].compile(np.dtype(job["dtype"]))
