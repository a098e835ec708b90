"""How many threads a loop may have: those of numba's pool, or one where more would end the process or are not lent.

    threads = take()    if it is more than 1, the caller runs its loop in the pool and then calls
    give_back()

It is one, the calling thread,

- in a child that was forked off when the pool had started, because its threads stay behind in the parent. numba's
  layer "omp" kills a child that asks for them, and "workqueue" reads memory that is gone. The same holds where
  something else has used OpenMP.
- with the layer "workqueue", which aborts the process at a second call at once, while another thread of Python is in
  the pool, and within a `prange` of the user's.
- where the process has one core.

The bits of a result do not depend on the number of threads, so nobody has to wait, and nothing to be refused.
"""

import functools
import math
import os
import threading
import time
import warnings
from pathlib import Path

import numba
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from cnnlite.support.locks import hold_while_forking, in_forked_children

ASK_AGAIN = 0.1  # seconds; to ask which cores there are takes two microseconds


class _Pool:
    """What is known of numba's pool."""

    layer = None  # "omp", "tbb" or "workqueue"; None until it is loaded
    was_forked = False  # whether this process was, and may be without a pool
    is_lost = False  # whether it is
    has_warned = False
    lock = threading.Lock()  # held by the one call that is in the pool of "workqueue"


class _Thread(threading.local):
    """What is known of the calling thread."""

    threads = 1  # how many it was lent
    ask_at = 0.0  # when to ask for that again
    masked = 0  # how many numba would take, if `take` has told it to take less


_thread = _Thread()


def take():
    """Return how many threads a loop of the calling thread may have; after more than 1 `give_back` must follow."""
    most = numba.config.NUMBA_NUM_THREADS
    if most == 1 or (_Pool.was_forked and _lost_to_a_fork()):
        return 1
    now = time.monotonic()
    if now >= _thread.ask_at:
        _thread.threads, _thread.ask_at = lent(most), now + ASK_AGAIN
    threads = _thread.threads
    if threads == 1 or not (_Pool.layer in ("omp", "tbb") or _can_enter()):
        return 1
    if threads < most:
        present = numba.get_num_threads()
        if threads < present:
            numba.set_num_threads(threads)
            _thread.masked = present
    return threads


def give_back():
    """Say that the loop has ended."""
    if _thread.masked:
        numba.set_num_threads(_thread.masked)
        _thread.masked = 0
    if _Pool.layer == "workqueue":
        _Pool.lock.release()


def _can_enter():
    """Look which layer it is; return whether it takes a call now."""
    if _Pool.layer is None:
        numba.get_num_threads()  # which loads it
        _Pool.layer = numba.threading_layer()
    if _Pool.layer != "workqueue":
        return True
    # A thread that Python has not started is one of numba's, in the midst of a loop.
    if isinstance(threading.current_thread(), threading._DummyThread):
        return False
    return _Pool.lock.acquire(blocking=False)


def lent(most):
    """Return how many threads the calling thread may have: as many as somebody said, or as it has cores."""
    if "NUMBA_NUM_THREADS" in os.environ or most != numba.config.NUMBA_DEFAULT_NUM_THREADS:
        return most
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else most
    return min(most, cores, cpu_quota())


# Containers.


@functools.cache
def cpu_quota(root="/sys/fs/cgroup", groups="/proc/self/cgroup"):
    """Return how many CPUs' time Linux lends this process, rounded up; infinity if there is no limit.

    That is what `docker run --cpus 2` and the limits of Kubernetes set. All the cores can be seen then, and threads on
    all of them would use up the time in a fraction of each period, and stand still for the rest of it.
    """
    quota = math.inf
    for line in _read(Path(groups)).splitlines():
        _, controllers, path = line.split(":", 2)
        # A line without controllers is of version 2, where the files of all lie in one tree.
        if controllers and "cpu" not in controllers.split(","):
            continue
        tree = Path(root, "cpu") if controllers else Path(root)
        # Each group has the limits of those above it. Inside a container the path may be the host's: then only the
        # tree's root is there.
        folder = tree / path.lstrip("/")
        for group in (folder, *folder.parents):
            quota = min(quota, _quota_of(group))
            if group == tree:
                break
    return quota


def _quota_of(group):
    times = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    try:
        time, period = map(int, times.split())
    except ValueError:  # "max 100000", or no such files
        return math.inf
    return math.ceil(time / period) if time > 0 and period > 0 else math.inf


def _read(path):
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


# Forks.


def _lost_to_a_fork():
    """Return whether this forked process is without a pool; warn once if it is."""
    if not _Pool.is_lost:
        # Whoever loaded it has probably used it.
        _Pool.is_lost = "libgomp" in _read(Path("/proc/self/maps"))
        _Pool.was_forked = _Pool.is_lost
    if _Pool.is_lost and not _Pool.has_warned:
        _Pool.has_warned = True
        warnings.warn(
            "cnnlite: this process was forked from one that had started threads, which do not come along. It computes "
            "in one thread: the same results, more slowly. Processes with threads of their own come from "
            "multiprocessing.get_context('spawn'), or from a fork before anything is computed.",
            RuntimeWarning,
            stacklevel=2,
        )
    return _Pool.is_lost


def _is_loaded():
    try:
        return bool(numba.threading_layer())
    except ValueError:
        return False


def _begin_anew():
    _Pool.lock = threading.Lock()
    _Pool.was_forked, _Pool.has_warned = True, False
    _Pool.is_lost = _Pool.is_lost or _is_loaded()


in_forked_children(_begin_anew)
# The child compiles as well.
hold_while_forking(ffi.lib._lock.__enter__, functools.partial(ffi.lib._lock.__exit__, None, None, None))
hold_while_forking(global_compiler_lock.acquire, global_compiler_lock.release)
