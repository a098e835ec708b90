"""How long a new process takes to import a library and run its first training step of W1, and the processor time.

Run as a program, this file is that process: it runs the step and prints when the import and the step were done.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.nets import NETS, training
from benchmarks.sides import SIDES, hide_scipy
from benchmarks.workers import environment

ROOT = Path(__file__).parent.parent
COLD_ROUNDS = 3  # at most, since each one compiles all kernels of a net


def first_steps(threads, rounds, names):
    """Yield (work, {side: [seconds]}), measured from the start of Python.

    The cold processes each start with an empty folder for compiled kernels; the warm ones after them reuse the
    kernels of the last cold round. All import a copy of the sources, since kernels that lie beside the sources are
    found whatever NUMBA_CACHE_DIR says.
    """
    cold, warm = ({name: [] for name in names} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "sources")
        for package in ("cnnlite", "benchmarks"):
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        for i in range(min(rounds, COLD_ROUNDS)):
            variables = {**environment(threads), "NUMBA_CACHE_DIR": os.path.join(folder, str(i))}
            # An installed package comes as bytecode. Without it Python would compile the sources here at every
            # import, which takes 0.2 s.
            variables.pop("PYTHONDONTWRITEBYTECODE", None)
            for name in names:
                cold[name].append(run(name, variables, copy))
        for _ in range(rounds):
            for name in names:
                warm[name].append(run(name, variables, copy))
    for work, what, processes in (
        ("first step, nothing compiled yet", "step", cold),
        ("processor time of the first step, nothing compiled yet", "processor", cold),
        ("first step", "step", warm), ("import", "import", warm),
    ):
        yield work, {name: [times[what] for times in each] for name, each in processes.items()}


def run(name, variables, sources):
    """Return the seconds until a new process has imported the library and run its step, and its processor time.

    The processor time is summed over all cores and all processes started for the step.
    """
    start, before = time.time(), os.times()
    done = subprocess.run([sys.executable, "-m", "benchmarks.start", name], env=variables, cwd=sources,
                          capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise RuntimeError(f"The first step of {name} failed:\n{done.stderr}")
    seconds = {what: moment - start for what, moment in json.loads(done.stdout).items()}
    # Only finished children count, so the workers of the sides, which are still running, don't.
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {**seconds, "processor": processor}


def main(name):
    hide_scipy()
    for package in SIDES[name].requires:
        importlib.import_module(package)
    imported = time.time()
    threads = int(os.environ["NUMBA_NUM_THREADS"])
    module = importlib.import_module(f"benchmarks.sides.{SIDES[name].module}")
    run, _ = module.prepare(training(NETS["W1"]), SIDES[name].layout, threads)
    run()
    print(json.dumps({"import": imported, "step": time.time()}))


if __name__ == "__main__":
    main(sys.argv[1])
