"""How long a new process takes to import a library, and to make its first training step of W1.

Run as a program this file is that process: it makes the step and prints when it had imported and when it was done.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.nets import NETS, training
from benchmarks.sides import SIDES, TORCH
from benchmarks.workers import environment


def first_steps(threads, rounds, with_torch):
    """Yield (work, {side: [seconds]}). The times count from the start of Python on.

    The first process finds an empty folder for compiled kernels, those after it what the first has compiled.
    """
    names = ["cnnlite", TORCH] if with_torch else ["cnnlite"]
    with tempfile.TemporaryDirectory() as folder:
        variables = {**environment(threads), "NUMBA_CACHE_DIR": folder}
        # An installed package lies there as bytecode. Without, Python would compile this one's sources at each import,
        # which takes 0.2 s.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        cold = {name: [run(name, variables)] for name in names}
        warm = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                warm[name].append(run(name, variables))
    yield "first step, nothing compiled yet", {name: [times["step"] for times in cold[name]] for name in names}
    yield "first step", {name: [times["step"] for times in warm[name]] for name in names}
    yield "import", {name: [times["import"] for times in warm[name]] for name in names}


def run(name, variables):
    start = time.time()
    done = subprocess.run([sys.executable, "-m", "benchmarks.start", name], env=variables, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The first step of {name} failed:\n{done.stderr}")
    return {what: moment - start for what, moment in json.loads(done.stdout).items()}


def main(name):
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
