"""How the kernels are compiled: once, in parallel where asked, and kept on disk between runs."""

import functools
import gc
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numba.core import sigutils
from numba.core.ccallback import CFunc

from cnnlite.engine import target
from cnnlite.engine.cache import KernelCache, Store
from cnnlite.engine.compilers import PartCompiler, WholeCompiler
from cnnlite.support.interrupts import held_back_interrupts
from cnnlite.support.locks import in_forked_children

# "contract" lets a*b + c become one fused instruction and "nsz" ignores the sign of zero. The rest of
# fastmath is left out on purpose: it assumes that there is no NaN and no infinity.
FASTMATH = {"contract", "nsz"}

# error_model="numpy" below divides as NumPy does. Python's would test every divisor for 0, and a loop with such a
# test in it does not become vector instructions: 0.46 ms a step of Adam on 200,000 weights instead of 0.06.

_here = Path(__file__).parent
_store = Store(_here, _here.parent / "kernels")


def kernel(function=None, *, parallel=False):
    """Compile a function with numba on its first call with each dtype.

    Args:
        parallel: run its `prange` loop in numba's pool of threads; `executor.py` has the only one.
    """
    if function is None:
        return lambda function: kernel(function, parallel=parallel)
    if numba.config.DISABLE_JIT:
        return function
    compiled = _dispatcher(function, "wrapped", parallel)
    made: list[Any] = []

    def inner():
        # Made when it is asked for, since most never are once their callers lie on disk. Should two threads make it at
        # once, both take the first one.
        if not made:
            made.append(_dispatcher(function, "inner", parallel))
        return made[0]

    # Literals become plain numbers: to numba the literal 0 is a type, to be compiled for.
    compiled.get_call_template = lambda args, kws: inner().get_call_template(tuple(map(types.unliteral, args)), kws)
    compiled.get_overload = lambda signature: inner().get_overload(signature)
    return compiled


class Task(NamedTuple):
    """Something to compile for a dtype: `compile(dtype)` does it, and `is_kept(dtype)` says whether it is on disk."""

    compile: Callable[[Any], Any]
    is_kept: Callable[[Any], bool]


# All that a process may have to compile, by names that mean the same in other processes: "module:...".
tasks: dict[str, Task] = {}


def is_kept(name, dtype):
    """Return whether a task was done before, by this process or another one, as far as the disk shows."""
    return tasks[name].is_kept(np.dtype(dtype))


def place():
    """Return (folder, ""), where other processes will find what this one compiles, or (None, why they won't)."""
    return _store.place()


def versions():
    """Return a text that is the same in processes that make the same of a kernel, and look for it in one place."""
    return repr((_store.fingerprint, target.description(), [str(folder) for folder in _store.folders]))


def stage_is_kept(function, kinds):
    """Return whether a stage's function was compiled for arguments of some kinds before."""
    return KernelCache(_store, function, "stage").has(kinds)


def stage_address(function, kinds):
    """Compile a function for arguments of some kinds, without a wrapper for Python; return its address."""
    compiled = _dispatcher(function, "stage")
    compiled.compile(kinds)
    result = compiled.overloads[kinds]
    return result.library.get_pointer_to_function(result.fndesc.llvm_func_name)


def _dispatcher(function, kind, parallel=False):
    """Return what compiles the function: "wrapped" for calls from Python, else for those from compiled code alone.

    The wrapper is a seventh of all compiling, and few kernels are called from Python. One without it would kill the
    process if Python called it. So no kernel is: what Python has is wrapped and compiled if it is called, and hands
    compiled code its `inner()`, which is a part of others and no machine code (`compilers.py`). A "stage" is that, and
    is called by its address.
    """
    # No wrapper for calls from C: `executor.py` calls what it would wrap.
    compiled = numba.njit(parallel=parallel, nogil=True, fastmath=FASTMATH, error_model="numpy",
                          no_cfunc_wrapper=True, no_cpython_wrapper=kind != "wrapped",
                          pipeline_class=PartCompiler if kind == "inner" else WholeCompiler)(function)
    compiled.compile = _compiling()(compiled.compile)
    if kind != "inner":
        compiled._cache = KernelCache(_store, function, kind)
    return compiled


def callback_address(function, signature_of):
    """Return a function of a dtype that returns the address of `function`, which compiled code can call.

    Args:
        function: compiled for the signature_of(dtype), when the address is first asked for.
    """

    @functools.cache
    def address(dtype):
        compiled: Any = CFunc(function, sigutils.normalize_signature(signature_of(dtype)), locals={},
                              options={"nopython": True}, pipeline_class=WholeCompiler)
        compiled._cache = KernelCache(_store, function, "callback")
        with _compiling():
            compiled.compile()
        return compiled.address

    def is_kept(dtype):
        return KernelCache(_store, function, "callback").has(signature_of(dtype))

    tasks[f"{function.__module__}:{function.__qualname__}"] = Task(address, is_kept)
    return address


_has_paused = False  # whether a thread of this process keeps Python from collecting garbage


def _collect_again():
    # A child that another thread has forked off never gets to the end of the block.
    global _has_paused
    if _has_paused:
        _has_paused = False
        gc.enable()


in_forked_children(_collect_again)


@contextmanager
def _compiling():
    global _has_paused
    collects = gc.isenabled()
    # LLVM hands code over by callbacks in which a KeyboardInterrupt is lost.
    with held_back_interrupts():
        # What numba allocates makes Python look through all objects for garbage again and again: a twelfth of the time.
        if collects:
            _has_paused = True
            gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
                _has_paused = False
