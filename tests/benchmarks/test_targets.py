"""The table of targets says what is reached, and of what is missing that it is."""

from benchmarks.sides import TORCH_LAST
from benchmarks.targets import TARGETS, rows
from tests.benchmarks.reports import REPORT


def cells(report):
    return {(work, against.split(":")[0]): rest for work, against, *rest in rows(report)}


def with_seconds(work, ours):
    """Return the report with other times of cnnlite."""
    results = [{**result, "seconds": {**result["seconds"], "cnnlite": ours}}
               if result["work"] == work and "seconds" in result else result for result in REPORT["results"]]
    return {**REPORT, "results": results}


def test_every_target_has_a_line_of_its_own():
    assert len(rows(REPORT)) == len(TARGETS) == len({(row[0], row[1]) for row in rows(REPORT)})
    goals = {key: rest[2:4] for key, rest in cells(REPORT).items()}
    assert goals["train LeNet-5", "PyTorch's best"] == ["2.50", "4.00"]
    assert goals["train MLP", "the best of Keras and JAX"] == ["1.00", "1.00"]
    assert goals["infer S1, batch 32", "the better of ONNX Runtime and OpenVINO"] == ["1.00", "1.30"]
    assert goals["train W3, arithmetic", "NumPy's SGEMM"] == ["70%", ""]
    assert goals["train V1, peak memory", "PyTorch's process"] == ["at most 60%", "at most 45%"]
    assert goals["first step", ""] == ["at most 1.10 s", "at most 0.80 s"]


def test_a_figure_reaches_the_aim_the_floor_or_neither():
    assert cells(REPORT)["train W1", "PyTorch's best"] == ["2.50", "2.25 to 3.00", "4.00", "5.00", "NO"]
    for ours, reached in ([0.0125] * 3, "floor"), ([0.0099] * 3, "aim"):
        table = cells(with_seconds("train W1", ours))
        assert table["train W1", "PyTorch's best"][-1] == reached
    infer = cells(REPORT)["infer W1, batch 1", "the better of ONNX Runtime and OpenVINO"]
    assert infer == ["1.20", "1.20 to 1.20", "1.20", "1.60", "floor"]


def test_where_there_is_no_aim_the_floor_is_what_is_reached():
    assert cells(REPORT)["train W3, arithmetic", "NumPy's SGEMM"] == ["100%", "50% to 100%", "70%", "", "floor"]
    assert cells(REPORT)["single convolutions, forward", "PyTorch's better layout"][0] == "2.00"


def test_without_avx512_there_are_targets_of_their_own():
    table = cells(REPORT)
    assert table["train W1, AVX2 alone", "PyTorch's best"] == ["3.00", "3.00 to 3.00", "3.00", "3.50", "floor"]
    floors = [goals[2] for (work, _), goals in table.items() if "AVX2" in work]
    assert floors == ["3.00", "2.50", "2.00", "1.10", "2.10"]


def test_memory_must_stay_below_its_goal():
    goals = ["at most 45%", "at most 40%"]
    assert cells(REPORT)["train W1, peak memory", "PyTorch's process"] == ["40%", "", *goals, "aim"]
    results = [{**result, "bytes": {"cnnlite": [9], TORCH_LAST: [10]}} if result["topic"] == "memory" else result
               for result in REPORT["results"]]
    table = cells({**REPORT, "results": results})
    assert table["train W1, peak memory", "PyTorch's process"][-1] == "NO"


def test_a_time_of_its_own_must_stay_below_its_goal_whatever_others_take():
    processor = cells(REPORT)["processor time of the first step, nothing compiled yet", ""]
    assert processor == ["11.00 s", "10.00 s to 14.00 s", "at most 12.00 s", "at most 6.00 s", "floor"]
    assert cells(REPORT)["import", ""][-1] == "NO"
    assert cells(with_seconds("import", [0.5]))["import", ""][-1] == "aim"


def test_large_operations_count_by_their_means_and_by_the_lowest():
    table = cells(REPORT)
    assert table["large operations, forward", "PyTorch's better layout"][0] == "1.00"
    assert table["large operations, both gradients", "PyTorch's better layout"][-1] == "not measured"
    assert table["large operations, the lowest", "PyTorch's better layout"][::4] == ["0.50", "NO"]
    assert ["PyTorch's better layout: PyTorch, in forward, number 0"] == [
        row[1] for row in rows(REPORT) if row[0] == "large operations, the lowest"]


def test_the_best_of_several_opponents_is_named_and_other_libraries_do_not_count():
    against = [row[1] for row in rows(REPORT) if row[0] == "train W1"]
    assert against == [f"PyTorch's best: {TORCH_LAST}", "the best of Keras and JAX: Keras on TensorFlow"]


def test_without_an_opponent_a_target_is_not_measured():
    results = [{**result, "seconds": {"cnnlite": result["seconds"]["cnnlite"]}} for result in REPORT["results"]
               if result["topic"] in ("train", "infer", "avx2", "conv", "large")]
    table = rows({**REPORT, "results": results})
    assert len(table) == len(TARGETS)
    assert all(row[-1] == "not measured" for row in table)
    assert all(row[-1] == "not measured" for row in rows({**REPORT, "results": []}))
