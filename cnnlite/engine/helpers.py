"""Helper processes that compile alongside this one: threads would only take turns holding numba's lock.

What a plan needs is known before its first stage is compiled. This process works through the list from the start, the
helpers from the end; all of them cache what they compile on disk, and look there first. So the work is done when they
meet. Nothing waits for a helper, and if one can't be started, or dies, this process does its share.

A helper is a new Python process that reads from one line of JSON what to compile, and runs none of the user's program.
It exits after the current kernel when its standard input closes: when it is no longer needed, or this process is gone.
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

WORTH_IT = 6  # kernels; a helper takes as long to start as to compile two
MOST = 3

# The first entry of sys.path is the user's folder, where anything may be called "json".
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
    """Let helpers compile those tasks that are not on disk, while this process compiles them from the first one on.

    Args:
        names: names in `jit.tasks`, in the order in which this process will reach them.
        dtype: the dtype to compile for.
        most: the maximum number of helpers.
    """
    # Other processes can't import what a test or a user has defined.
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
            with suppress(OSError):  # it may be gone
                helper.stdin.close()
            with suppress(RuntimeError):  # at interpreter shutdown, when no thread can start
                threading.Thread(target=helper.wait, daemon=True).start()  # or it would stay a zombie


def cores():
    """Return how many cores this process may use, within its affinity mask and its container's limit."""
    return thread_pool.lent(numba.config.NUMBA_NUM_THREADS)


def _may_help():
    # In a frozen program, or one that embeds Python, the executable would start that program again. A child of
    # multiprocessing has siblings that would start helpers too.
    program = os.path.basename(sys.executable or "").lower()
    return (program.startswith("python") and not getattr(sys, "frozen", False)
            and multiprocessing.parent_process() is None and jit.place()[0] is not None)


def _start(names, dtype, helpers):
    """Start a helper and add it to the list, if this process is allowed to."""
    job = {"path": [path for path in sys.path if isinstance(path, str)], "names": names,
           "dtype": np.dtype(dtype).name, "same": jit.versions()}
    environment = dict(os.environ)
    with suppress(OSError, RuntimeError):  # not permitted, the folder is gone, or Python is shutting down
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
    """Return those flags of this Python that keep it from using the environment or the user's folders."""
    flags = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return [flag for flag, is_set in flags.items() if is_set]


def help_with(job):
    """Compile the tasks of a job, in a process that does nothing else."""
    if jit.versions() != job["same"]:
        return  # the process that asked could not use what this one compiles
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
