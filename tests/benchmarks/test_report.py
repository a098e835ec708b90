"""What a run leaves: the table, the pictures, the seconds of all rounds."""

import json
import time

import pytest

from benchmarks import machine, report, tables
from tests.benchmarks.reports import ALONE, REPORT


def test_the_tables_have_the_figures():
    text = tables.markdown(REPORT)
    assert "| train W1 | 20 | 10 | Keras on TensorFlow | **0.50** | 0.50 to 1.00 |" in text
    assert "| Training step, against | PyTorch | PyTorch, channels last | Keras on TensorFlow | JAX |" in text
    assert "| train W1 | 3.00 | 2.50 | 0.50 | 10.00 |" in text
    assert "| forward, mean of 2 | PyTorch's better layout | **2.00** | 2.00 to 2.00 |" in text
    assert "| train W3 | 2 | 4 | **100%** | 50% to 100% |" in text
    assert "| train W1 | 100 | 250 | PyTorch, channels last | **40%** |" in text
    assert "| batch 8 | 8 | 8.00 | 16 | 8.00 | 2.00 |" in text
    assert "| forward, 128x28x28x1, 32 filters 3x3 |" in text
    assert "| forward, number 0 | 100 | 200 | **0.50** | 0.50 to 0.50 |" in text
    assert "| forward, mean of 2 |  |  | **1.00** | 0.50 to 2.00 |" in text
    assert "| forward, 16 channels | 100 | 250 | **0.40** | 0.40 to 0.40 |" in text


def test_the_report_says_what_is_missing_and_what_failed():
    text = tables.markdown(REPORT)
    assert "- JAX: `pip install jax` brings it in" in text
    assert "- torch.compile in train W1: left out: CppCompileError: no Python.h" in text


def test_the_report_says_when_the_machine_was_busy():
    assert "was busy" not in tables.markdown(REPORT)
    busy = {**REPORT, "run": {**REPORT["run"], "load_before": 2.0}}
    assert "was busy" in tables.markdown(busy)
    disturbed = {**REPORT, "run": {**REPORT["run"], "others": 0.4, "stolen": 0.2}}
    assert "was busy" in tables.markdown(disturbed)
    assert "other processes used 0.40 cores on average" in tables.markdown(disturbed)


def test_what_others_used_is_what_all_used_less_our_own():
    before = {"all": 10.0, "own": 1.0, "stolen": 5.0, "clock": 100.0}
    after = {"all": 40.0, "own": 21.0, "stolen": 6.0, "clock": 120.0}
    assert machine.meanwhile(before, after) == {"others": 0.5, "stolen": 0.05}
    assert machine.meanwhile(None, None) == {}
    # Rounding must not make it less than nothing.
    assert machine.meanwhile(before, {**after, "own": 31.5})["others"] == 0


@pytest.mark.skipif(machine.times() is None, reason="the system does not say")
def test_our_own_work_is_not_that_of_others():
    before = machine.times()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(10_000))
    after = machine.times()
    assert after["own"] - before["own"] > 0.05
    assert after["all"] - before["all"] >= after["own"] - before["own"] - 0.05


def test_the_screen_ends_with_the_targets_and_has_no_list_of_convolutions():
    text = tables.on_screen(REPORT)
    assert "128x28x28x1" not in text
    assert text.rstrip().splitlines()[-1].startswith("| train W3, arithmetic")


def test_the_readme_has_what_was_measured_with_cnnlites_time_and_both_goals():
    text = tables.readme_table(REPORT)
    assert "| train W1 | 20 | PyTorch's best: PyTorch, channels last | **2.50** | 4.00 | 5.00 |" in text
    assert "| import |  |  | **1.00 s** | at most 0.65 s | at most 0.50 s |" in text
    assert "| train W1, peak memory |  | PyTorch's process: PyTorch, channels last | **40%** |" in text
    assert "W2" not in text


def test_a_report_with_hardly_anything_in_it_can_be_shown():
    few = {**REPORT, "results": [ALONE]}
    assert "not measured" in tables.markdown(few)
    assert "not measured" in tables.on_screen(few)


def test_a_report_is_five_files(tmp_path):
    pytest.importorskip("matplotlib")
    report.write(REPORT, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == REPORT
    assert (tmp_path / "new" / "results.md").read_text(encoding="utf-8") == tables.markdown(REPORT)
    for name in ("results.png", "roofline.png", "growth.png"):
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("topic", ["growth", "channels"])
def test_growth_is_drawn_of_what_there_is_of_it(tmp_path, topic):
    pytest.importorskip("matplotlib")
    results = [result for result in REPORT["results"] if result["topic"] == topic]
    report.write({**REPORT, "results": results}, tmp_path)
    assert (tmp_path / "growth.png").exists()


def test_no_picture_is_drawn_of_what_was_not_measured(tmp_path):
    pytest.importorskip("matplotlib")
    report.write({**REPORT, "results": [ALONE]}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.md"}
