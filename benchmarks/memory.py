"""Peak memory of a training run in a process of its own: Python, the library, the network and the batch.

Run as a program, this file is that process: it runs some training steps and prints its peak memory in bytes.
"""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.nets import NETS, training
from benchmarks.sides import SIDES, hide_scipy
from benchmarks.workers import environment

STEPS = 20


def peaks(names, net, threads, rounds):
    """Return {side: [bytes, for each round]}.

    The first process of each side is a warm-up: cnnlite may have to compile kernels in it, which takes extra memory.
    """
    for name in names:
        peak_of(name, net, threads)
    return {name: [peak_of(name, net, threads) for _ in range(rounds)] for name in names}


def peak_of(name, net, threads):
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", name, net, str(threads)],
                          env=environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The training of {net} by {name} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def highest():
    """Return the peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # The alternative, ru_maxrss, may include what the parent process held.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(name, net, threads):
    hide_scipy()
    side = SIDES[name]
    module = import_module(f"benchmarks.sides.{side.module}")
    run, _ = module.prepare(training(NETS[net]), side.layout, int(threads))
    for _ in range(STEPS):
        run()
    print(highest())


if __name__ == "__main__":
    main(*sys.argv[1:])
