"""The table of targets says what is reached, and of what is missing that it is."""

from benchmarks.sides import TORCH_LAST
from benchmarks.targets import TARGETS, rows
from tests.benchmarks.reports import REPORT


def cells(report):
    return {(work, against.split(":")[0]): rest for work, against, *rest in rows(report)}


def test_every_target_has_a_line():
    assert len(rows(REPORT)) == len(TARGETS) == 16
    goals = {key: rest[-2] for key, rest in cells(REPORT).items()}
    assert goals["train LeNet-5", "PyTorch's best"] == "at least 4.00"
    assert goals["infer W2, batch 128", "ONNX Runtime"] == "at least 1.10"
    assert goals["train W3, arithmetic", "NumPy's SGEMM"] == "at least 70%"
    assert goals["train W3, peak memory", "PyTorch's process"] == "at most 60%"


def test_what_reaches_its_goal_and_what_does_not():
    table = cells(REPORT)
    assert table["train W1", "PyTorch's best"] == ["2.50", "2.25 to 3.00", "at least 2.50", "yes"]
    assert table["infer W1, batch 1", "ONNX Runtime"][-1] == "yes"
    assert table["infer W1, batch 1", "PyTorch's best"] == ["3.00", "3.00 to 3.00", "at least 4.00", "NO"]
    assert table["single convolutions, forward", "PyTorch's better layout"][0] == "2.00"
    assert table["train W3, arithmetic", "NumPy's SGEMM"] == ["100%", "50% to 100%", "at least 70%", "yes"]


def test_memory_must_stay_below_its_goal():
    assert cells(REPORT)["train W1, peak memory", "PyTorch's process"] == ["40%", "", "at most 60%", "yes"]
    results = [{**result, "bytes": {"cnnlite": [9], TORCH_LAST: [10]}} if result["topic"] == "memory" else result
               for result in REPORT["results"]]
    table = cells({**REPORT, "results": results})
    assert table["train W1, peak memory", "PyTorch's process"][-1] == "NO"


def test_the_best_of_pytorch_is_named_and_other_libraries_do_not_count():
    against = [row[1] for row in rows(REPORT) if row[0] == "train W1"]
    assert against == [f"PyTorch's best: {TORCH_LAST}"]


def test_without_an_opponent_a_target_is_not_measured():
    results = [{**result, "seconds": {"cnnlite": result["seconds"]["cnnlite"]}} for result in REPORT["results"]
               if result["topic"] in ("train", "infer", "conv")]
    table = rows({**REPORT, "results": results})
    assert len(table) == len(TARGETS)
    assert all(row[-1] == "not measured" for row in table)
    assert all(row[-1] == "not measured" for row in rows({**REPORT, "results": []}))
