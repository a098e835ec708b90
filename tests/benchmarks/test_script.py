"""The script that is timed runs with either library, and learns."""

import re

import pytest

from benchmarks import script
from benchmarks.sides import CNNLITE, KERAS, is_installed
from benchmarks.workers import environment
from tests.benchmarks.test_command import run


@pytest.mark.parity
@pytest.mark.parametrize("name", script.LIBRARIES)
def test_the_script_learns(name):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    done = run("-m", "benchmarks.script", script.LIBRARIES[name], 2000, KERAS_BACKEND="tensorflow")
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"Test accuracy: ([\d.]+)", done.stdout).group(1)) > 0.6


def test_the_sides_take_turns_after_a_run_that_does_not_count(monkeypatch):
    log = []
    monkeypatch.setattr(script, "run", lambda name, variables, samples: log.append((name, samples)) or 1.0)
    assert script.seconds([CNNLITE, KERAS], 1, 2) == {CNNLITE: [1.0] * 2, KERAS: [1.0] * 2}
    assert log == [(CNNLITE, script.FEW), (KERAS, script.FEW), *2 * [(CNNLITE, 60_000), (KERAS, 60_000)]]


def test_a_script_that_fails_ends_the_run():
    with pytest.raises(RuntimeError, match="failed with cnnlite"):
        script.run(CNNLITE, environment(1), "no number")
