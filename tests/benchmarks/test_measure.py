"""The sides take turns, must do the same work, and a library that fails does not end the run."""

import pytest

from benchmarks import measure, sides
from benchmarks.measure import Bench, require_agreement
from benchmarks.sides import CNNLITE, JAX, NUMPY, SIDES, TORCH, TORCH_COMPILE, what_is_missing
from benchmarks.sides.ways import fastest
from benchmarks.workers import SideFailed, Worker


class Double:
    """A worker that does nothing, in no process."""

    log: list

    def __init__(self, name, threads):
        self.name = name

    def prepare(self, job, threads):
        self.job = job
        if job == "fails":
            raise SideFailed("ImportError: no such thing")
        return None if job == "fails later" else job, f"{threads} threads"

    def close(self):
        self.log.append(f"close {self.name}")

    def run(self, seconds):
        self.log.append(self.name)
        if self.job == "fails later" and self.log.count(self.name) == 2:
            raise SideFailed("RuntimeError: index out of bounds")
        return [[3.0, 1.0, 2.0]]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(Double, "log", [], raising=False)
    monkeypatch.setattr(measure, "PAUSE", 0)
    return Bench([CNNLITE, TORCH, JAX], rounds=3, seconds=0, threads=2, make=Double)


def test_the_sides_take_turns_and_none_is_always_first(bench):
    result = bench.compare({CNNLITE: 1, TORCH: 1, JAX: 1}, threads=2)
    assert Double.log == [CNNLITE, TORCH, JAX, TORCH, JAX, CNNLITE, JAX, CNNLITE, TORCH]
    assert result["seconds"] == {CNNLITE: [2.0] * 3, TORCH: [2.0] * 3, JAX: [2.0] * 3}
    assert result["notes"][TORCH] == "2 threads"


def test_a_comparison_anew_takes_new_processes(bench):
    bench.compare({CNNLITE: 1, TORCH: 1}, rounds=1)
    Double.log.clear()
    result = bench.compare_anew({CNNLITE: 1, TORCH: 1})
    assert set(Double.log[:2]) == {f"close {CNNLITE}", f"close {TORCH}"}
    assert len(Double.log) == 2 + 2 * 3
    assert result["seconds"] == {CNNLITE: [2.0] * 3, TORCH: [2.0] * 3}


def test_a_side_that_is_not_there_is_left_out(bench):
    assert set(bench.compare({CNNLITE: 1, TORCH_COMPILE: 1})["seconds"]) == {CNNLITE}


def test_a_side_that_fails_is_left_out_and_the_report_says_why(bench, capsys):
    result = bench.compare({CNNLITE: 1, TORCH: "fails", JAX: 1}, rounds=1)
    assert set(result["seconds"]) == {CNNLITE, JAX}
    assert result["notes"][TORCH] == "left out: ImportError: no such thing"
    assert "PyTorch is left out" in capsys.readouterr().err
    assert Double.log == [f"close {TORCH}", CNNLITE, JAX]
    assert set(bench.compare({CNNLITE: 1, TORCH: 1})["seconds"]) == {CNNLITE, TORCH}


def test_a_side_that_fails_while_it_is_timed_is_left_out_too(bench):
    result = bench.compare({CNNLITE: 1, TORCH: "fails later", JAX: 1})
    assert result["seconds"] == {CNNLITE: [2.0] * 3, JAX: [2.0] * 3}
    assert result["notes"][TORCH] == "left out: RuntimeError: index out of bounds"
    assert Double.log == [CNNLITE, TORCH, JAX, TORCH, f"close {TORCH}", JAX, CNNLITE, CNNLITE, JAX]


def test_cnnlite_must_not_fail(bench):
    with pytest.raises(SideFailed, match="no such thing"):
        bench.compare({CNNLITE: "fails", TORCH: 1})


def test_sides_that_do_different_work_are_found_out(bench):
    require_agreement({CNNLITE: 1.0, TORCH: 1.00001, NUMPY: None})
    with pytest.raises(RuntimeError, match="PyTorch"):
        require_agreement({CNNLITE: 1.0, TORCH: 1.1})
    with pytest.raises(RuntimeError, match="do not do the same work"):
        bench.compare({CNNLITE: 34826, TORCH: 34836})


def test_an_error_in_a_worker_comes_back_and_the_worker_lives_on():
    worker = Worker(NUMPY, threads=1)
    try:
        with pytest.raises(SideFailed, match="KeyError"):
            worker.prepare({"kind": "no such job"})
        assert worker.prepare({"kind": "sgemm", "n": 8}) == [None, "1 thread"]
        assert worker.run(0)[0][0] > 0
    finally:
        worker.close()


def test_a_worker_that_dies_has_failed():
    worker = Worker(NUMPY, threads=1)
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(SideFailed, match="ended early"):
        worker.prepare({"kind": "sgemm", "n": 8})
    worker.close()


def test_the_fastest_way_is_made_again_after_the_others_were_tried():
    made = []

    def way(name, turns):
        def make():
            made.append(name)
            return lambda: sum(range(turns))
        return make

    run, note = fastest({"slow": way("slow", 300_000), "quick": way("quick", 10)}, seconds=0)
    assert (note, made, run()) == ("quick", ["slow", "quick", "quick"], 45)


def test_what_is_missing_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr(sides, "find_spec", lambda package: None)
    assert what_is_missing(JAX) == "`pip install jax` brings it in"
    monkeypatch.setattr(sides, "find_spec", lambda package: "there")
    assert what_is_missing(JAX) is None
    monkeypatch.setattr(sides.shutil, "which", lambda name: None)
    assert "C++ compiler" in what_is_missing(TORCH_COMPILE)
    assert [name for name in SIDES if what_is_missing(name)] == [TORCH_COMPILE]
