"""Compiled kernels serve the processes that come after."""

import os
import subprocess
import sys
from pathlib import Path


def test_every_process_looks_for_the_same_compiled_kernels():
    # The order in which Python prints a set differs from process to process, and once stood in the fingerprint.
    command = [sys.executable, "-c", "from cnnlite.kernels import _jit; print(_jit._FINGERPRINT)"]
    root = Path(__file__).parent.parent.parent
    fingerprints = {
        subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(fingerprints) == 1
