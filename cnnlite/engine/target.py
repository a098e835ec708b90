"""What the kernels are compiled for: numba's target processor, and its other settings.

Nothing else in this package may query the processor or the environment, since the answer would be frozen into compiled
code, which another machine may load from a shared folder. What is found here is part of the name of every file in the
cache, through `description`.
"""

import functools
import importlib.machinery
import re
import sys

import llvmlite
import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core.registry import cpu_target
from numba.np.numpy_support import numpy_version

# Identifies the interpreter, which compiled code calls.
PYTHON = f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"

# numba's settings that change the code compiled from the same source. Some exist only in some versions.
_SETTINGS = (
    "BOUNDSCHECK", "DEBUG_ARRAY_OPT_RUNTIME", "DEBUGINFO_DEFAULT", "ENABLE_PROFILING", "EXTEND_VARIABLE_LIFETIMES",
    "FULL_TRACEBACKS", "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "OPT", "PARFOR_MAX_TUPLE_SIZE",
    "SLP_VECTORIZE", "USE_LEGACY_TYPE_SYSTEM", "USE_RVSDG_FRONTEND",
    "USING_SVML",  # whether kernels call Intel's vector library, without which they can't be loaded
)  # fmt: skip


@functools.cache
def _listing(triple, cpu, features):
    """Return the assembly for x * x + x with a long vector x.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may describe less than this processor can do, and each implies features that
    the other doesn't mention. Only LLVM knows what the two amount to.
    """
    vector = ir.VectorType(ir.FloatType(), 16)
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [vector.as_pointer()]), "square")
    # This one is fused only where that is faster; `llvm.fma` always is, with a call per element if need be.
    multiply_add = ir.Function(module, ir.FunctionType(vector, [vector] * 3), "llvm.fmuladd.v16f32")
    builder = ir.IRBuilder(function.append_basic_block())
    value = builder.load(function.args[0])
    builder.store(builder.call(multiply_add, [value] * 3), function.args[0])
    builder.ret_void()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    return machine.emit_assembly(llvm.parse_assembly(str(module)))


def _widest_register(*machine):
    """Return the width in bytes of the registers that LLVM uses for a long vector."""
    listing = _listing(*machine)
    return 64 if "zmm" in listing else 32 if "ymm" in listing else 16  # SSE or NEON: 4 lanes


def _has_fused_multiply_add(*machine):
    """Return whether there is an instruction that multiplies and adds with a single rounding."""
    return bool(re.search(r"\t(vfm|fmadd|fmla)", _listing(*machine)))  # x86 and RISC-V, then ARM


_machine = cpu_target.target_context.codegen().magic_tuple()

VECTOR_BYTES = _widest_register(*_machine)
FUSED_MULTIPLY_ADD = _has_fused_multiply_add(*_machine)
ROWS = 8 if VECTOR_BYTES == 64 else 6  # of a tile; see `microkernel.py`


def toolchain():
    """Return the versions of the compiler and the interpreter; each combination caches kernels of its own."""
    interpreter = PYTHON, importlib.machinery.EXTENSION_SUFFIXES[0]
    return (*interpreter, numba.__version__, llvmlite.__version__, numpy_version)


def description():
    """Return what determines the compiled code, given sources and toolchain: the machine and the settings."""
    # Settings may change while the process runs; the machine doesn't.
    settings = [(name, repr(getattr(numba.config, name, None))) for name in _SETTINGS]
    return (_machine, VECTOR_BYTES, FUSED_MULTIPLY_ADD, ROWS, settings)
