"""The libraries to compare, one file each, and which of them are installed.

The entry point of a side's file is `prepare(job, layout, threads)`. It returns a function without arguments that
does the job once, and a check number that must agree on all sides, or None. An optional third value says in a few
words which of several ways was chosen.
"""

import os
import shutil
import sys
from importlib.util import find_spec
from typing import NamedTuple

CNNLITE, TORCH, TORCH_LAST, TORCH_COMPILE = "cnnlite", "PyTorch", "PyTorch, channels last", "torch.compile"
ONNX, OPENVINO, KERAS, JAX, NUMPY = "ONNX Runtime", "OpenVINO", "Keras on TensorFlow", "JAX", "NumPy"

PYTORCH = [TORCH, TORCH_LAST, TORCH_COMPILE]  # the candidates for the best of PyTorch
ONLY_INFER = [ONNX, OPENVINO]
TRAINS = [CNNLITE, *PYTORCH, KERAS, JAX]
INFERS = [CNNLITE, *PYTORCH, *ONLY_INFER, KERAS, JAX]
EAGER = [CNNLITE, TORCH, TORCH_LAST]  # without those that take long to compile


class Side(NamedTuple):
    """The module of a side, its options, and what must be installed.

    Attributes:
        tries_threads: whether to try one thread and all threads before timing, and keep the faster. cnnlite has to
            choose on its own, as it does for its users; torch.compile tries both before it compiles.
        install: the packages to pass to pip.
        compiles: whether it needs a C++ compiler.
    """

    module: str
    requires: tuple
    install: str = ""
    layout: str = ""
    tries_threads: bool = False
    compiles: bool = False


TORCH_VERSION = "torch==2.13.0"
SIDES = {
    CNNLITE: Side("with_cnnlite", ("cnnlite",)),
    TORCH: Side("with_torch", ("torch",), TORCH_VERSION, "channels_first", tries_threads=True),
    TORCH_LAST: Side("with_torch", ("torch",), TORCH_VERSION, "channels_last", tries_threads=True),
    TORCH_COMPILE: Side("with_torch_compile", ("torch",), TORCH_VERSION, compiles=True),
    ONNX: Side("with_onnxruntime", ("onnx", "onnxruntime"), "onnx onnxruntime", tries_threads=True),
    OPENVINO: Side("with_openvino", ("onnx", "openvino"), "onnx openvino", tries_threads=True),
    KERAS: Side("with_keras", ("keras", "tensorflow"), "keras tensorflow-cpu"),
    JAX: Side("with_jax", ("jax",), "jax"),
    NUMPY: Side("with_numpy", ("numpy",)),
}


def what_is_missing(name):
    """Return why a side can't take part, with the remedy, or None if it can."""
    side = SIDES[name]
    if not all(find_spec(package) for package in side.requires):
        return f"`pip install {side.install}` brings it in"
    if side.compiles and not cpp_compiler():
        return "it needs a C++ compiler, such as g++, on the PATH or named by CXX"
    return None


def is_installed(name):
    return what_is_missing(name) is None


def hide_scipy():
    """Hide SciPy from this process, as if only cnnlite or PyTorch and their dependencies were installed.

    Neither needs SciPy; it comes with JAX. numba imports it if it is installed: 16 MB, and 0.07 s.
    """
    sys.modules["scipy"] = None


def cpp_compiler():
    names = filter(None, [os.environ.get("CXX"), "g++", "clang++", "c++"])
    return next(filter(None, map(shutil.which, names)), None)
