"""How many threads a loop may use: those of numba's pool, or one if more are not available or would crash the process.

    threads = take()    if it is more than 1, the caller runs its loop in the pool and then calls
    give_back()

It is one, the calling thread,

- in a child process forked after the pool had started, because the pool's threads stay behind in the parent. numba's
  threading layer "omp" kills a child that asks for them, and "workqueue" reads invalid memory. The same holds if
  something else has used OpenMP.
- with the layer "workqueue", which aborts the process on concurrent calls, while another Python thread is in the pool,
  and inside a `prange` of the user's.
- if the process has one core.

Results are bit-identical for any number of threads (`kernels/sums.py` says why), so no call has to wait or be refused.
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

ASK_AGAIN = 0.1  # seconds; querying the available cores takes two microseconds


class _Pool:
    """What is known about numba's pool."""

    layer = None  # "omp", "tbb" or "workqueue"; None until it is loaded
    was_forked = False  # whether this process was forked, and may have lost its pool
    is_lost = False  # whether it has lost it
    has_warned = False
    lock = threading.Lock()  # held by the one call that is in the "workqueue" pool


class _Thread(threading.local):
    """What is known about the calling thread."""

    threads = 1  # how many it was lent
    ask_at = 0.0  # when to query that again
    masked = 0  # numba's own number of threads, if `take` has lowered it


_thread = _Thread()


def take():
    """Return how many threads a loop of the calling thread may use; if more than 1, `give_back` must follow."""
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
    """Determine the threading layer, if not yet known; return whether it can take a call now."""
    if _Pool.layer is None:
        numba.get_num_threads()  # which loads it
        _Pool.layer = numba.threading_layer()
    if _Pool.layer != "workqueue":
        return True
    # A thread that Python has not started is one of numba's, in the middle of a loop.
    if isinstance(threading.current_thread(), threading._DummyThread):
        return False
    return _Pool.lock.acquire(blocking=False)


def lent(most):
    """Return how many threads the calling thread may use: as many as are configured, or as it has cores."""
    if "NUMBA_NUM_THREADS" in os.environ or most != numba.config.NUMBA_DEFAULT_NUM_THREADS:
        return most
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else most
    return min(most, cores, cpu_quota())


# Containers.


@functools.cache
def cpu_quota(root="/sys/fs/cgroup", groups="/proc/self/cgroup"):
    """Return how many CPUs' worth of time Linux allots to this process, rounded up; infinity if there is no limit.

    `docker run --cpus 2` and Kubernetes limits set this quota. All cores remain visible, but threads on all of them
    would use up the quota in a fraction of each period, and stall for the rest of it.
    """
    quota = math.inf
    for line in _read(Path(groups)).splitlines():
        _, controllers, path = line.split(":", 2)
        # A line without controllers is cgroup version 2, where all controllers share one tree.
        if controllers and "cpu" not in controllers.split(","):
            continue
        tree = Path(root, "cpu") if controllers else Path(root)
        # A group is also subject to the limits of those above it. Inside a container the path may be the host's: then
        # only the tree's root exists.
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
    """Return whether this forked process has lost its pool; warn once if it has."""
    if not _Pool.is_lost:
        # Whatever loaded OpenMP has probably used it.
        _Pool.is_lost = "libgomp" in _read(Path("/proc/self/maps"))
        _Pool.was_forked = _Pool.is_lost
    if _Pool.is_lost and not _Pool.has_warned:
        _Pool.has_warned = True
        warnings.warn(
            "cnnlite: this process was forked from one that had started threads, which a fork does not copy. It "
            "computes in one thread: the same results, more slowly. To compute in several threads, start processes "
            "with multiprocessing.get_context('spawn'), or fork before anything is computed.",
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
# The child compiles too, so it must not inherit these locks while they are held.
hold_while_forking(ffi.lib._lock.__enter__, functools.partial(ffi.lib._lock.__exit__, None, None, None))
hold_while_forking(global_compiler_lock.acquire, global_compiler_lock.release)
