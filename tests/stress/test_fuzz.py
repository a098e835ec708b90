"""Random damage to everything that reads a file, 3000 times for each kind; see tests/stress/fuzz for longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stress import report

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.stress


def test_every_reader_refuses_or_accepts_random_damage_in_words():
    # In plain NumPy, because models of odd shapes that are accepted are also trained, and would be compiled each.
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress.fuzz", "--plain", "3000"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        number, name = line.split(" ", 1)
        report.count(f"fuzz inputs: {name}", int(number))
