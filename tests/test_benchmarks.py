"""The benchmarks run and count correctly. Nothing here depends on how long anything takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.assembly import loops, sums
from benchmarks.measure import require_agreement
from benchmarks.nets import NETS, shapes, training_flops
from benchmarks.sides import TORCH, TORCH_LAST
from cnnlite.kernels.microkernel import ROWS, VECTOR_BYTES, assembly

ROOT = Path(__file__).parent.parent

RESULT = {
    "topic": "train", "work": "train W1",
    "seconds": {"cnnlite": [0.01, 0.02, 0.04], TORCH: [0.02, 0.06, 0.2], TORCH_LAST: [0.03, 0.05, 0.09]},
}
ROOF = {
    "topic": "roof", "work": "train W2",
    "seconds": {"cnnlite": [0.5, 0.25, 0.5], "SGEMM": [1.0, 1.0, 2.0]}, "flops": {"cnnlite": 1e9, "SGEMM": 4e9},
}
ALONE = {"topic": "start", "work": "import", "seconds": {"cnnlite": [1.0]}}
REPORT = {
    "machine": {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3.12", "versions": {"numpy": "2.0"}},
    "run": {"rounds": 3, "threads": 2, "quick": False, "load_before": 0.1, "load_after": 1.9},
    "results": [RESULT, ROOF, ALONE],
}


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True,
                          text=True, encoding="utf-8", timeout=300, check=False)


def test_the_ratio_is_the_median_over_rounds_against_the_opponent_with_the_shortest_median():
    figures = report.compare(RESULT)
    assert figures["best"] == TORCH_LAST
    assert figures["ratio"] == pytest.approx(2.5)
    assert (figures["lowest"], figures["highest"]) == pytest.approx((2.25, 3))
    assert (figures["cnnlite"], figures["opponent"]) == (0.02, 0.05)


def test_without_an_opponent_there_is_no_ratio():
    assert report.compare(ALONE) is None


def test_the_share_of_the_roof_is_a_ratio_of_rates():
    figures = report.share_of_roof(ROOF)
    # 2, 4 and 2 GFLOP/s of 4, 4 and 2.
    assert (figures["lowest"], figures["share"], figures["highest"]) == (0.5, 1, 1)


def test_the_table_has_the_figures_and_says_when_the_machine_was_busy():
    text = report.markdown(REPORT)
    assert "| train W1 | 20 | 50 | PyTorch, channels last | **2.50** | 2.25 to 3.00 |" in text
    assert "train W2 reaches 100% (50% to 100%)" in text
    assert "busy" not in text
    busy = {**REPORT, "run": {**REPORT["run"], "load_before": 2.0}}
    assert "busy" in report.markdown(busy)


def test_a_report_is_three_files(tmp_path):
    pytest.importorskip("matplotlib")
    report.write(REPORT, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == REPORT
    assert (tmp_path / "new" / "results.md").read_text(encoding="utf-8") == report.markdown(REPORT)
    assert (tmp_path / "new" / "results.png").read_bytes().startswith(b"\x89PNG")


def test_sides_that_do_different_work_are_found_out():
    require_agreement({"cnnlite": 1.0, TORCH: 1.00001, "SGEMM": None})
    with pytest.raises(RuntimeError, match="PyTorch"):
        require_agreement({"cnnlite": 1.0, TORCH: 1.1})


def test_the_work_of_a_training_step():
    assert [after for _, _, after in shapes(NETS["W1"])][-3:] == [(1600,), (1600,), (10,)]
    first, second, dense = 26 * 26 * 32 * 9, 11 * 11 * 64 * 9 * 32, 1600 * 10
    # The lowest layer needs no gradient of its input.
    assert training_flops(NETS["W1"]) == 2 * 128 * (2 * first + 3 * second + 3 * dense)


@pytest.mark.skipif(VECTOR_BYTES < 32, reason="the listing is read as that of a processor with AVX")
def test_the_tile_keeps_all_its_sums_in_registers():
    largest = max((sums(loop) for loop in loops(assembly())), key=len)
    assert len(largest) == 2 * ROWS


def test_an_unknown_topic_is_refused_with_the_known_ones():
    done = run("-m", "benchmarks", "--only", "train,speed")
    assert done.returncode == 2
    assert "train, infer, conv, start, roof. Received: 'speed'" in done.stderr


@pytest.mark.parity
def test_a_run_compares_and_leaves_its_report(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    done = run("-m", "benchmarks", "--quick", "--only", "conv", "--rounds", 1, "--threads", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["work"].split(",")[0] for result in results] == ["forward", "kernel gradient", "input gradient"]
    assert all(set(result["seconds"]) == {"cnnlite", TORCH, TORCH_LAST} for result in results)
    assert len(re.findall(r"\*\*\d+\.\d+\*\*", done.stdout)) == 3
