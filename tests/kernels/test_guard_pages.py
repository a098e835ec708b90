"""No kernel reads or writes a byte outside its arrays, not even one that it then ignores."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.drawn import compiled_kernels_needed

pytestmark = [
    compiled_kernels_needed,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls Linux's mprotect"),
]
ROOT = Path(__file__).parents[2]


def run(name):
    return subprocess.run([sys.executable, "-m", "tests.kernels.guard_pages", name], cwd=ROOT, capture_output=True,
                          text=True, timeout=600, check=False)


@pytest.mark.parametrize("name", ["direct", "winograd", "matmul", "depthwise", "pooling", "normalisation"])
def test_nothing_beside_the_arrays_is_touched(name):
    done = run(name)
    assert done.returncode == 0, f"{name}: ended with {done.returncode}\n{done.stderr}"


def test_a_number_read_beyond_the_end_ends_the_process():
    assert run("faults").returncode < 0
