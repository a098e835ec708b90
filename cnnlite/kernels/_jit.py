"""How the kernels are compiled: once, in parallel where asked, and kept on disk between runs."""

import contextlib
import functools
import hashlib
import sys
from pathlib import Path
from typing import ClassVar

import numba
from numba import types
from numba.core import caching, sigutils
from numba.core.ccallback import CFunc

from cnnlite.interrupts import held_back_interrupts

# "contract" lets a*b + c become one fused instruction and "nsz" ignores the sign of zero. The rest of
# fastmath is left out on purpose: it assumes that there is no NaN and no infinity.
FASTMATH = {"contract", "nsz"}

# error_model="numpy" below divides as NumPy does. Python's would test every divisor for 0, and a loop with such a
# test in it does not become vector instructions: 0.46 ms a step of Adam on 200,000 weights instead of 0.06.


def _fingerprint():
    """Return a hash of every kernel file and of what compiles them."""
    # Sorted, because the order of a set of texts differs from one process to the next.
    digest = hashlib.sha256(f"{numba.__version__} {sorted(FASTMATH)}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


def _stamped(locator_class):
    """Return the locator class with the fingerprint of all kernels as the age of the source."""

    # numba looks at the file of the function alone, and would keep a compiled kernel whose helper in
    # another file has changed since.
    class Stamped(locator_class):
        def get_source_stamp(self):
            return _FINGERPRINT

    return Stamped


class _KernelCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes: ClassVar = [_stamped(locator) for locator in caching.CompileResultCacheImpl._locator_classes]


class _CacheFile(caching.IndexDataCacheFile):
    """Compiled code of one function, each with a note of what it was compiled for.

    numba's index says in which file lies what, and is written before that file. Where two processes write at once, or
    one is killed in between, a file may hold the code for another dtype, or that of an older cnnlite. It would be
    called nevertheless, and write twice as much as the arrays have room for.
    """

    def save(self, key, data):
        super().save(key, (self._source_stamp, key, data))

    def load(self, key):
        found = super().load(key)
        return found[2] if found is not None and found[:2] == (self._source_stamp, key) else None


class _KernelCache(caching.FunctionCache):
    _impl_class = _KernelCacheImpl

    def __init__(self, function, wrapped):
        super().__init__(function)
        self._wrapped = wrapped
        self._cache_file = _CacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def _index_key(self, sig, codegen):
        return *super()._index_key(sig, codegen), self._wrapped

    def load_overload(self, sig, target_context):
        found = super().load_overload(sig, target_context)
        if found is None:
            _announce_compilation()
        return found

    @contextlib.contextmanager
    def _guard_against_spurious_io_errors(self):
        # A disk that is full or a folder that has vanished costs the next process a compilation, never
        # this one its result.
        try:
            yield
        except OSError:
            pass


@functools.cache
def _announce_compilation():
    """Say once why the first step takes so long, where a person sees it and no output of a program is disturbed."""
    print("cnnlite: compiling kernels for this processor, which happens once.", file=sys.stderr, flush=True)


def kernel(function=None, *, parallel=False):
    """Compile a function with numba on its first call with each dtype.

    Args:
        parallel: run its `prange` loop in numba's pool of threads; `threads.py` has the only one.
    """
    if function is None:
        return lambda function: kernel(function, parallel=parallel)
    if numba.config.DISABLE_JIT:
        return function
    compiled = _dispatcher(function, parallel, wrapped=True)
    made = []

    def inner():
        # Made when it is asked for, since most never are once their callers lie on disk. Should two threads make it at
        # once, both take the first one.
        if not made:
            made.append(_dispatcher(function, parallel, wrapped=False))
        return made[0]

    compiled.inner = inner
    # Literals become plain numbers: to numba the literal 0 is a type, to be compiled for.
    compiled.get_call_template = lambda args, kws: inner().get_call_template(tuple(map(types.unliteral, args)), kws)
    compiled.get_overload = lambda signature: inner().get_overload(signature)
    return compiled


def _dispatcher(function, parallel, wrapped):
    """Return what compiles the function, `wrapped` for calls from Python or else for those from compiled code alone.

    The wrapper is a seventh of all compiling, and few kernels are called from Python. One without it would kill the
    process if Python called it. So no kernel is: what Python has is wrapped and compiled if it is called, and hands
    compiled code its `inner()`.
    """
    # No wrapper for calls from C: `threads.py` calls what it would wrap.
    compiled = numba.njit(parallel=parallel, nogil=True, fastmath=FASTMATH, error_model="numpy",
                          no_cfunc_wrapper=True, no_cpython_wrapper=not wrapped)(function)
    # LLVM hands code over by callbacks in which a KeyboardInterrupt is lost.
    compiled.compile = held_back_interrupts()(compiled.compile)
    _keep_on_disk(compiled, function, wrapped)
    return compiled


def c_callback(function, signature):
    """Compile a function for one signature, so that compiled code can call it by its `address`."""
    compiled = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={"nopython": True})
    _keep_on_disk(compiled, function, wrapped=False)
    with held_back_interrupts():
        compiled.compile()
    return compiled


def _keep_on_disk(compiled, function, wrapped):
    try:
        compiled._cache = _KernelCache(function, wrapped)
    except RuntimeError:
        # No folder can be written to. The kernel is then compiled in every process, which is slow and not wrong.
        pass
