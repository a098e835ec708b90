"""Where the time goes: every task is there, and no time is counted twice."""

from benchmarks import tasks
from benchmarks.nets import NETS
from cnnlite.kernels import threads
from tests.kernels.drawn import compiled_kernels_needed


@compiled_kernels_needed
def test_all_tasks_of_one_image_are_named_and_fit_into_the_whole(monkeypatch):
    monkeypatch.setattr(tasks, "REPETITIONS", 5)
    before = threads._run
    rows, whole = tasks.tasks_of(tasks.work_of(NETS["W1"], image=True))
    assert [row[0] for row in rows] == ["forward_task", "forward_task", "matmul_task"]
    assert all(units == 1 and not shared and seconds > 0 for _, units, shared, seconds in rows)
    assert sum(row[3] for row in rows) < whole
    assert threads._run is before
