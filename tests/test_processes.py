"""Processes that make processes, and how many cores they use; the long form is tests/stress/test_processes.py."""

import math
import os
import threading

import numba
import pytest

from cnnlite.engine import thread_pool
from cnnlite.support.locks import new_lock
from tests.helpers.programs import LAYERS, run_program
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress import cores

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@needs_fork
@compiled_kernels_needed
@pytest.mark.parametrize("layer", LAYERS)
def test_forked_children_compute_get_the_same_bits_and_say_once_that_they_are_slower(layer, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "always")
    ways = ["fork first", "fork", "fork from a thread", "fork in a callback", "fork amid work", "server"]
    result, said = run_program("tests.stress.processes", ",".join(ways), 1, layer=layer)
    assert result == {"layer": layer, "processes": dict(zip(ways, (1, 2, 1, 1, 1, 2)))}
    # The server's second worker may have had nothing to do.
    assert said.count("RuntimeWarning: cnnlite: this process was forked") in (6, 7)
    assert "multiprocessing.get_context('spawn')" in said


@compiled_kernels_needed
def test_processes_that_are_spawned_get_the_same_bits_and_have_threads():
    result, said = run_program("tests.stress.processes", "pool of spawn", 1)
    assert result["processes"] == {"pool of spawn": 2}
    assert "was forked" not in said


@compiled_kernels_needed
def test_a_process_with_one_thread_has_nothing_to_say_when_it_is_forked():
    _, said = run_program("tests.stress.processes", "pool of fork", 1, threads=1)
    assert "RuntimeWarning" not in said


@needs_fork
def test_a_lock_that_another_thread_holds_is_free_in_a_forked_child():
    lock, held, go_on = new_lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            go_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    go_on.set()
    thread.join(60)
    assert os.waitpid(child, 0)[1] == 0


# Cores.


@compiled_kernels_needed
@pytest.mark.parametrize(("case", "threads"), [("amid the work", None), ("two of three", 3)])
def test_as_many_threads_work_as_there_are_cores_or_as_somebody_said(case, threads):
    cores.check(case, threads)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(("files", "groups", "expected"), [
    ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),  # a container that sees itself as the root
    ({"cpu.max": "max 100000\n"}, "0::/\n", math.inf),
    ({"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 4),
    ({"cpu.max": "50000 100000\n"}, "0::/the/path/on/the/host\n", 1),
    ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/docker/0a\n0::/\n", 3),
    ({"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, "4:memory:/b\n3:cpu:/a\n", math.inf),
    ({"cpu.max": "nonsense\n"}, "0::/\n", math.inf),
    ({}, "0::/a\n", math.inf),
    ({}, "", math.inf),
])
def test_the_quotas_of_containers_are_read(tmp_path, files, groups, expected):
    for name, text in files.items():
        write(tmp_path / "root" / name, text)
    write(tmp_path / "groups", groups)
    assert thread_pool.cpu_quota(tmp_path / "root", tmp_path / "groups") == expected


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path):
    assert thread_pool.cpu_quota(tmp_path / "root", tmp_path / "nowhere") == math.inf


@pytest.mark.parametrize(
    ("quota", "variable", "expected"), [(1, None, 1), (2, None, 2), (math.inf, None, 5), (1, "5", 5)]
)
def test_a_quota_counts_unless_somebody_has_said_how_many_threads(monkeypatch, quota, variable, expected):
    monkeypatch.setattr(thread_pool, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5), raising=False)
    monkeypatch.setattr(numba.config, "NUMBA_DEFAULT_NUM_THREADS", 5)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("NUMBA_NUM_THREADS", variable)
    assert thread_pool.lent(5) == expected
