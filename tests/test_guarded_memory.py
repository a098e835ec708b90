"""The plugin that lays arrays against forbidden pages: that it finds what it is there to find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.drawn import compiled_kernels_needed

pytestmark = [
    compiled_kernels_needed,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mmap and mprotect are called as on Linux"),
]

# Each read is done in a child, which it ends or not.
PROGRAM = """
import ctypes, os, sys
import numba
import numpy as np
from tests.helpers import guarded_memory

guarded_memory.install(after=sys.argv[1] == "after")

@numba.njit
def compiled():
    return np.empty(5, np.float32)

def of_numpy(kind=np.empty):
    return kind(5, np.float32)

def read(array, place):
    return ctypes.c_float.from_address(array.ctypes.data + 4 * place).value

def freed(make):
    array = make()
    address = array.ctypes.data
    del array
    return ctypes.c_float.from_address(address).value

reads = {}
for make in (of_numpy, compiled):
    name = make.__name__
    reads |= {f"{name} within": lambda make=make: [read(make(), place) for place in (0, 4)],
              f"{name} behind": lambda make=make: read(make(), 5), f"{name} before": lambda make=make: read(make(), -1),
              f"{name} freed": lambda make=make: freed(make)}
for name, act in reads.items():
    child = os.fork()
    if not child:
        act()
        os._exit(0)
    print(name, os.waitpid(child, 0)[1])
assert np.isnan(of_numpy()).all() and np.isnan(compiled()).all()
assert not of_numpy(np.zeros).any()
assert np.fromiter(range(2000), int).sum() == 1999000  # which grows on the way
"""


@pytest.mark.parametrize("where", ["after", "before"])
def test_a_number_beside_an_array_or_of_one_that_was_freed_ends_the_process(where):
    done = subprocess.run([sys.executable, "-c", PROGRAM, where], cwd=Path(__file__).parents[1], capture_output=True,
                          text=True, timeout=300, check=False, env={**os.environ, "NUMBA_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    ended = {line.rpartition(" ")[0] for line in done.stdout.splitlines() if not line.endswith(" 0")}
    beside = "behind" if where == "after" else "before"
    assert ended == {f"{name} {what}" for name in ("of_numpy", "compiled") for what in (beside, "freed")}
