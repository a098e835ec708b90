"""The libraries without AVX-512, as on a processor that has AVX2 alone.

Each library asks the processor what it can do, and each has a switch of its own to make it believe in less. They are
read when a process starts, so they stand in the environment of the workers.
"""

import os

from benchmarks.sides import ONLY_INFER
from cnnlite.engine.target import VECTOR_BYTES

SWITCHES = {
    # cnnlite: numba compiles for a Haswell, the first processor with AVX2 and FMA. Without the second variable it would
    # add what it finds in the processor at hand.
    "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "",
    # PyTorch's own kernels and what torch.compile generates; then the libraries that both PyTorch and TensorFlow call.
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy
}
# JAX, and TensorFlow with XLA. Matrix products would come from YNNPACK otherwise, which has no such switch. These
# libraries end with an error if a version of them does not know the second flag.
XLA_FLAGS = "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type="
# Products of ONNX Runtime and OpenVINO are as fast with all these variables as without.
WITHOUT_A_SWITCH = {name: "it has no switch to do without AVX-512" for name in ONLY_INFER}


def variables():
    """Return the environment in which no library uses AVX-512."""
    return {**SWITCHES, "XLA_FLAGS": " ".join(filter(None, [os.environ.get("XLA_FLAGS"), XLA_FLAGS]))}


def what_is_missing():
    """Return why nothing is measured with AVX2 alone, or None."""
    if VECTOR_BYTES < 64:
        return "there is no AVX-512 here to do without, so the ordinary rows are those without it"
    return None
