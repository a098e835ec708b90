"""The machine that the figures come from, and what else it was doing."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

PACKAGES = [
    "cnnlite", "numpy", "numba", "llvmlite", "torch", "tensorflow-cpu", "tensorflow", "keras", "jax", "onnxruntime",
    "openvino",
]
BUSY = 0.5  # of a core


def cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def load():
    """Return the load average over the last minute, or None where the system doesn't report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def times():
    """Return the processor time used since boot, in seconds of one core, or None where the system doesn't report it.

    "all" is the time of all processes, "own" that of this one and its finished children, and "stolen" the time that
    the host of a virtual machine gave to others.
    """
    file = Path("/proc/stat")
    if not file.exists():
        return None
    ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in file.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = ticks
    own = sum(os.times()[:4])
    return {"all": user + nice + system + interrupts + soft_interrupts, "own": own, "stolen": stolen,
            "clock": time.monotonic()}


def meanwhile(before, after):
    """Return how many cores other processes used and the host took away, on average between two calls of `times`."""
    if before is None or after is None:
        return {}
    spent = {name: after[name] - before[name] for name in before}
    others = max(0.0, spent["all"] - spent["own"])
    return {"others": others / spent["clock"], "stolen": spent["stolen"] / spent["clock"]}


def describe():
    return {
        "cpu": cpu(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def cpu():
    """Return the processor's name, with family and model numbers because virtual machines often shorten the name."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in file.read_text().split("\n\n")[0].splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def version_of(name):
    try:
        if name == "cnnlite":
            from cnnlite import __version__
            return __version__
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
