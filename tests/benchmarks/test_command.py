"""`python -m benchmarks` runs. Nothing here depends on how long anything takes."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import avx2
from benchmarks.convolutions import DIRECTIONS
from benchmarks.sides import TORCH, TORCH_LAST
from benchmarks.topics import TOPICS

ROOT = Path(__file__).parent.parent.parent


def run(*arguments, **variables):
    environment = {**os.environ, **variables,
                   "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True,
                          text=True, encoding="utf-8", timeout=300, check=False)


def test_an_unknown_topic_is_refused_with_the_known_ones():
    done = run("-m", "benchmarks", "--only", "train,speed")
    assert done.returncode == 2
    assert f"the topics are {', '.join(TOPICS)}. Received: 'speed'" in done.stderr


def test_a_process_tells_its_highest_memory():
    done = run("-c", "from benchmarks.memory import highest; x = b'x' * 10**8; del x; print(highest())")
    assert 10**8 < int(done.stdout) < 10**9, done.stderr


def test_without_avx512_the_topic_of_avx2_is_left_out_and_the_run_says_so(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    plain = {**avx2.SWITCHES, "XLA_FLAGS": ""} if platform.machine() in ("x86_64", "AMD64") else {}
    done = run("-m", "benchmarks", "--only", "avx2", "--out", tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    assert "avx2 is left out; there is no AVX-512 here" in done.stderr
    assert "- avx2: there is no AVX-512 here" in done.stdout
    refused = run("-m", "benchmarks", "--isa", "avx2", **plain)
    assert (refused.returncode, "--isa avx2 changes nothing: there is no AVX-512" in refused.stderr) == (2, True)


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
