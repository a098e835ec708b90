"""`python -m benchmarks` runs. Nothing here depends on how long anything takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.convolutions import DIRECTIONS
from benchmarks.sides import TORCH, TORCH_LAST

ROOT = Path(__file__).parent.parent.parent


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True,
                          text=True, encoding="utf-8", timeout=300, check=False)


def test_an_unknown_topic_is_refused_with_the_known_ones():
    done = run("-m", "benchmarks", "--only", "train,speed")
    assert done.returncode == 2
    assert "train, infer, conv, large, roof, start, memory, growth. Received: 'speed'" in done.stderr


def test_a_process_tells_its_highest_memory():
    done = run("-c", "from benchmarks.memory import highest; x = b'x' * 10**8; del x; print(highest())")
    assert 10**8 < int(done.stdout) < 10**9, done.stderr


@pytest.mark.parity
def test_a_run_compares_and_leaves_its_report(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    done = run("-m", "benchmarks", "--quick", "--only", "conv", "--rounds", 1, "--threads", 1, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    convolutions = [result for result in results if result["topic"] == "conv"]
    assert [result["direction"] for result in convolutions] == DIRECTIONS
    assert all(set(result["seconds"]) == {"cnnlite", TORCH, TORCH_LAST} for result in convolutions)
    assert [result["work"] for result in results if result["topic"] == "machine"] == ["SGEMM", "copy"]
    assert "| single convolutions, input gradient |" in done.stdout
    assert (tmp_path / "roofline.png").exists()
