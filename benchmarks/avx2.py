"""The libraries without AVX-512, as on a processor with AVX2 only.

Each library detects what the processor supports, and each has its own switch to limit it to less. The switches are
read when a process starts, so they are set in the environment of the workers.
"""

import os

from benchmarks.sides import ONLY_INFER
from cnnlite.engine.target import VECTOR_BYTES

SWITCHES = {
    # cnnlite: numba compiles for Haswell, the first processor with AVX2 and FMA. Without the second variable it would
    # add the features of the host processor.
    "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "",
    # PyTorch's own kernels and the code that torch.compile generates; then libraries that PyTorch and TensorFlow share.
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy
}
# JAX, and TensorFlow with XLA. The second flag keeps matrix products away from YNNPACK, which has no such switch;
# versions of these libraries that don't know it exit with an error.
XLA_FLAGS = "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type="
# ONNX Runtime and OpenVINO: their products are just as fast with all these variables set as without.
WITHOUT_A_SWITCH = {name: "it has no switch to turn off AVX-512" for name in ONLY_INFER}


def variables():
    """Return the environment variables that keep every library from using AVX-512."""
    return {**SWITCHES, "XLA_FLAGS": " ".join(filter(None, [os.environ.get("XLA_FLAGS"), XLA_FLAGS]))}


def what_is_missing():
    """Return why AVX2 is not measured separately, or None if it is."""
    if VECTOR_BYTES < 64:
        return "there is no AVX-512 here to turn off, so the ordinary rows are already without it"
    return None
