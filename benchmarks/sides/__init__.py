"""The libraries that are compared, a file each, and what of them is installed.

A side's file has one function, `prepare(job, layout, threads)`. It returns a function without arguments which does
the job once, and a number that must come out the same on every side.
"""

from importlib.util import find_spec
from typing import NamedTuple

TORCH, TORCH_LAST, ONNX = "PyTorch", "PyTorch, channels last", "ONNX Runtime"


class Side(NamedTuple):
    """Where a side's code is, what it is told about the layout of images, and what must be installed."""

    module: str
    layout: str
    requires: tuple


SIDES = {
    "cnnlite": Side("benchmarks.sides.with_cnnlite", "", ("cnnlite",)),
    TORCH: Side("benchmarks.sides.with_torch", "channels_first", ("torch",)),
    TORCH_LAST: Side("benchmarks.sides.with_torch", "channels_last", ("torch",)),
    ONNX: Side("benchmarks.sides.with_onnxruntime", "", ("onnx", "onnxruntime")),
    "SGEMM": Side("benchmarks.sides.with_numpy", "", ("numpy",)),
}


def is_installed(name):
    return all(find_spec(package) for package in SIDES[name].requires)
