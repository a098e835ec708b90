"""How the kernels are compiled: once, with a parallel loop where requested, and cached on disk between runs."""

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
from cnnlite.support.interrupts import deferred_signals
from cnnlite.support.locks import in_forked_children

# "contract" lets a*b + c become one fused instruction and "nsz" ignores the sign of zero. The rest of
# fastmath is left out on purpose: it assumes that there is no NaN and no infinity.
FASTMATH = {"contract", "nsz"}

# error_model="numpy" below divides as NumPy does. Python's model would check every divisor for 0, and a loop with such
# a check is not vectorised: a step of Adam on 200,000 weights would take 0.46 ms instead of 0.06.

_here = Path(__file__).parent
_store = Store(_here, _here.parent / "kernels")


def jit(function=None, *, parallel=False):
    """Compile a function with numba on its first call with each dtype.

    Args:
        parallel: run its `prange` loop in numba's thread pool; the only such loop is in `executor.py`.
    """
    if function is None:
        return lambda function: jit(function, parallel=parallel)
    if numba.config.DISABLE_JIT:
        return function
    compiled = _dispatcher(function, "wrapped", parallel)
    made: list[Any] = []

    def inner():
        # Made lazily, since most are never needed once their callers are on disk. If two threads make it at the same
        # time, both use the first one.
        if not made:
            made.append(_dispatcher(function, "inner", parallel))
        return made[0]

    # Literals become plain numbers: to numba the literal 0 is a type of its own, with a compilation of its own.
    compiled.get_call_template = lambda args, kws: inner().get_call_template(tuple(map(types.unliteral, args)), kws)
    compiled.get_overload = lambda signature: inner().get_overload(signature)
    return compiled


class Task(NamedTuple):
    """Something to compile for a dtype: `compile(dtype)` does it, and `is_kept(dtype)` says whether it is on disk."""

    compile: Callable[[Any], Any]
    is_kept: Callable[[Any], bool]


# Everything that a process may have to compile, by names that are valid in other processes too: "module:...".
tasks: dict[str, Task] = {}


def is_kept(name, dtype):
    """Return whether the result of a task is on disk, from this process or another one."""
    return tasks[name].is_kept(np.dtype(dtype))


def place():
    """Return (folder, "") with the folder where other processes will find new kernels, or (None, why they won't)."""
    return _store.place()


def versions():
    """Return a string that is equal in processes that compile kernels alike and look for them in the same places."""
    return repr((_store.fingerprint, target.description(), [str(folder) for folder in _store.folders]))


def stage_is_kept(function, kinds):
    """Return whether a stage's function, compiled for some argument types, is on disk."""
    return KernelCache(_store, function, "stage").has(kinds)


def stage_address(function, kinds):
    """Compile a function for some argument types, without a Python wrapper; return its address."""
    compiled = _dispatcher(function, "stage")
    compiled.compile(kinds)
    result = compiled.overloads[kinds]
    return result.library.get_pointer_to_function(result.fndesc.llvm_func_name)


def _dispatcher(function, kind, parallel=False):
    """Return the function's dispatcher: a "wrapped" one for calls from Python, else one for compiled code only.

    The Python wrapper takes a seventh of all compile time, and few kernels are called from Python. But calling a kernel
    without a wrapper from Python would crash the process. So Python always sees the wrapped one, which is compiled only
    if called; compiled code gets its `inner()`, a part of its callers without machine code of its own (`compilers.py`).
    A "stage" has no wrapper but does have machine code, and is called by its address.
    """
    # No C wrapper either: `executor.py` calls the function itself.
    compiled = numba.njit(parallel=parallel, nogil=True, fastmath=FASTMATH, error_model="numpy",
                          no_cfunc_wrapper=True, no_cpython_wrapper=kind != "wrapped",
                          pipeline_class=PartCompiler if kind == "inner" else WholeCompiler)(function)
    compiled.compile = _compiling()(compiled.compile)
    if kind != "inner":
        compiled._cache = KernelCache(_store, function, kind)
    return compiled


def callback_address(function, signature_of):
    """Return address(dtype), which returns the address at which compiled code can call `function`.

    Args:
        function: what to call; compiled for signature_of(dtype) when the address is first requested.
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


_has_paused = False  # whether a thread of this process has disabled garbage collection


def _collect_again():
    # A child forked by another thread never reaches the end of the block.
    global _has_paused
    if _has_paused:
        _has_paused = False
        gc.enable()


in_forked_children(_collect_again)


@contextmanager
def _compiling():
    global _has_paused
    collects = gc.isenabled()
    # LLVM hands over code through callbacks, in which a KeyboardInterrupt would be lost.
    with deferred_signals():
        # numba allocates so many objects that garbage collection would take a twelfth of the time.
        if collects:
            _has_paused = True
            gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
                _has_paused = False
