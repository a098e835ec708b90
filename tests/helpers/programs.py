"""Separate processes for code that may abort or hang, so that it fails its test and not the whole test run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("omp", "tbb", "workqueue")  # numba's threading layers
CANNOT_RUN = 77  # exit code of a program that lacks something it needs


def run_program(module, *arguments, layer=None, threads=2, timeout=120):
    """Run `python -m module arguments`; return the JSON that it prints, and its stderr.

    Args:
        layer: numba's threading layer. If it can't be loaded, the test is skipped.
        threads: NUMBA_NUM_THREADS of the process, or None to leave it unset.
        timeout: seconds until it is killed with all its children, and the test fails.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment.pop("NUMBA_NUM_THREADS", None)
    if threads is not None:
        environment["NUMBA_NUM_THREADS"] = str(threads)
    if layer is not None:
        environment["NUMBA_THREADING_LAYER"] = layer
        # pip installs tbb's library where the loader doesn't look for it.
        paths = [str(Path(sys.prefix, "lib")), os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        output, errors = process.communicate()
        pytest.fail(f"{module} {arguments} with the layer {layer} hung for {timeout} s.\n{output}\n{errors}")
    if process.returncode == CANNOT_RUN:
        pytest.skip(errors.strip().splitlines()[-1])
    assert process.returncode == 0, f"{process.returncode}\n{output}\n{errors}"
    return json.loads(output.splitlines()[-1]), errors


def _kill(process):
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def cannot_run(reason):
    """Exit the program, so that the test that started it is skipped."""
    print(reason, file=sys.stderr)
    sys.exit(CANNOT_RUN)


def require_layer():
    """Return the name of the threading layer, or exit if the one in NUMBA_THREADING_LAYER can't be loaded."""
    import numba

    try:
        numba.get_num_threads()
    except ValueError as error:
        cannot_run(f"numba's layer {os.environ.get('NUMBA_THREADING_LAYER')}: {' '.join(str(error).split())}")
    return numba.threading_layer()
