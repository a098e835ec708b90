"""A process that keeps one core busy, like a browser or a neighbour on the same host."""

import contextlib
import subprocess
import sys

# It exits on its own if the process that started it is killed.
PROGRAM = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
print("busy", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextlib.contextmanager
def busy_core():
    """Keep one core busy inside the block: the last one this process may use, where the system supports affinity."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()  # until it is running
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
