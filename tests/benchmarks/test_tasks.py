"""Where the time goes: every task is there, and no time is counted twice."""

from benchmarks import tasks
from benchmarks.nets import NETS
from cnnlite.kernels import threads
from tests.kernels.drawn import compiled_kernels_needed


@compiled_kernels_needed
def test_all_tasks_of_a_step_are_named_and_fit_into_the_whole(monkeypatch):
    monkeypatch.setattr(tasks, "REPETITIONS", 5)
    before = threads._run
    rows, whole = tasks.training_tasks(NETS["LeNet-5"]._replace(batch=2))
    names = [row[0] for row in rows]
    assert names.count("forward_task") == names.count("backward_task") == 2
    assert names[-1] == "adam_task"
    assert all(units > 0 and seconds > 0 for _, units, _, seconds in rows)
    assert sum(row[3] for row in rows) < whole
    assert threads._run is before


@compiled_kernels_needed
def test_all_tasks_of_one_image_are_named_and_fit_into_the_whole(monkeypatch):
    monkeypatch.setattr(tasks, "REPETITIONS", 5)
    rows, whole = tasks.image_tasks(NETS["W1"])
    assert [row[0] for row in rows] == 6 * ["compare_task"] + ["forward_task", "forward_task", "matmul_task"]
    assert all(units == 1 and not shared and seconds > 0 for _, units, shared, seconds in rows)
    assert 0 < sum(row[3] for row in rows) < 1.5 * whole
