"""Two versions of cnnlite, side by side: each is the library of its own folder, measured by the same program."""

import pytest

from benchmarks import versions
from benchmarks.versions import OTHER, THIS
from benchmarks.workers import ROOT, SideFailed
from tests.benchmarks.test_command import run


def test_the_other_version_is_the_library_in_its_folder(tmp_path, capfd):
    (tmp_path / "cnnlite").mkdir()
    (tmp_path / "cnnlite" / "__init__.py").write_text("raise SystemExit('this is another version')")
    worker = versions.worker({THIS: ROOT, OTHER: tmp_path}, OTHER, threads=1)
    with pytest.raises(SideFailed, match="ended early"):
        worker.prepare(versions.jobs("MLP")["train MLP"])
    worker.close()
    assert "this is another version" in capfd.readouterr().err


def test_a_line_has_the_ratios_of_the_rounds():
    seconds = {THIS: [0.001, 0.002, 0.004], OTHER: [0.002, 0.002, 0.002]}
    assert versions.line("work", seconds) == ["work", "2", "2", "**1.00**", "0.50 to 2.00"]
    assert versions.line("work", {THIS: [0.001]}) == ["work", "1", "", "", ""]


def test_a_softmax_is_compared_with_what_its_version_took_in_the_same_round():
    parts = {THIS: [[1.0, 2.0, 4.0], [1.5, 3.0, 4.0]], OTHER: [[2.0], [9.0]]}
    assert versions.line_of_softmax("W1", parts)[1:3] == ["1.50 times", "4.50 times"]
    del parts[OTHER]
    assert versions.line_of_softmax("W1", parts)[1:3] == ["1.50 times", ""]


def test_what_is_no_network_or_no_version_is_refused():
    done = run("-m", "benchmarks.versions", ROOT, "W1", "W9")
    assert (done.returncode, "M3, V1, G1, S1, ResNet-18. Received: 'W9'" in done.stderr) == (2, True)
    done = run("-m", "benchmarks.versions", ROOT / "tests")
    assert done.returncode == 2
    assert "must contain a folder cnnlite. Received:" in done.stderr


def test_a_version_beside_itself():
    done = run("-m", "benchmarks.versions", ROOT, "MLP", "--rounds", 1, "--seconds", 0, "--threads", 1)
    assert done.returncode == 0, done.stderr
    works = [line.split(" | ")[0] for line in done.stdout.splitlines()]
    assert works[2:] == ["| train MLP", "| infer MLP, batch 128", "| infer MLP, batch 1",
                         "| softmax of MLP against MLP, batch 1"]
