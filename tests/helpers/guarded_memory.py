"""A pytest plugin that places every array next to a guard page; run by `make test-guards`.

    python -m pytest -p tests.helpers.guarded_memory --guard-page after tests/kernels
    python -m pytest -p tests.helpers.guarded_memory --guard-page before tests/kernels

All arrays allocated by NumPy or by compiled code end where a guard page begins, or begin where one ends. If anything
reads or writes one number too far, the operating system kills the process, and pytest says in which test. The pages of
a freed array become inaccessible too, and stay so, which catches uses after free. Each buffer in the workspace of a
plan becomes an array of its own; normally they all lie in a single one. New arrays are filled with bytes of 0xFF, which
are NaN, -1 or 255, so that reads of uninitialised memory show.

The allocation functions are compiled by numba because they are called by threads that don't hold the GIL.
"""

import ctypes
import mmap

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python, rtsys
from numba.extending import intrinsic

from cnnlite.engine.program import Workspace, shape_of
from cnnlite.engine.schedule import size_of
from cnnlite.engine.stages import FIXED_WORDS

PAGE = mmap.PAGESIZE
NONE, READ_AND_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
NEW = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
IN_PLACE = NEW | 0x10  # MAP_FIXED
FILLING = 0xFF
SET_HANDLER = 304  # index of PyDataMem_SetHandler in the table of NumPy's C API

_libc = ctypes.CDLL(None)


def _from_c(name, result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments)((name, _libc))


_size, _int = ctypes.c_ssize_t, ctypes.c_int
_mmap = _from_c("mmap", _size, _size, _size, _int, _int, _int, _size)
_mprotect = _from_c("mprotect", _int, _size, _size, _int)
_memset = _from_c("memset", _size, _size, _int, _size)
_memcpy = _from_c("memcpy", _size, _size, _size, _size)
_abort = _from_c("abort", None)


@intrinsic
def _load(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def _store(typingctx, address, value):
    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _functions(after):
    """Return the allocation functions for NumPy and numba; `after` puts the guard page after the array."""

    @numba.njit
    def take(size, filling):
        # The size is stored in the guard page before the array, which only `size_of` makes accessible.
        size = max(size, 1)
        pages = (size + PAGE - 1) // PAGE
        base = _mmap(0, (pages + 2) * PAGE, READ_AND_WRITE, NEW, -1, 0)
        if base == -1:
            return 0
        _store(base, size)
        end = base + (pages + 1) * PAGE
        if _mprotect(base, PAGE, NONE) or _mprotect(end, PAGE, NONE):
            _abort()  # the limit is 65,530 mappings: /proc/sys/vm/max_map_count
        place = end - size if after else base + PAGE
        if filling:
            _memset(place, filling, size)
        return place

    @numba.njit
    def size_of(place):
        base = place // PAGE * PAGE - PAGE
        if _mprotect(base, PAGE, READ_AND_WRITE):
            _abort()
        size = _load(base)
        if size == 0:  # already freed
            _abort()
        return size

    @numba.njit
    def give(place):
        base = place // PAGE * PAGE - PAGE
        pages = (size_of(place) + PAGE - 1) // PAGE
        if _mmap(base, (pages + 2) * PAGE, NONE, IN_PLACE, -1, 0) == -1:
            _abort()

    @numba.cfunc("intp(intp, intp)")
    def malloc(context, size):
        return take(size, FILLING)

    @numba.cfunc("intp(intp, intp, intp)")
    def calloc(context, number, size):
        return take(number * size, 0)

    @numba.cfunc("intp(intp, intp, intp)")
    def realloc(context, place, size):
        new = take(size, FILLING)
        if new and place:
            _memcpy(new, place, min(size, size_of(place)))
            give(place)
        return new

    @numba.cfunc("void(intp, intp, intp)")
    def free(context, place, size):
        if place:
            give(place)

    @numba.cfunc("void(intp)")
    def let_go(place):
        give(place)

    manage = _manage_memory()
    destructor = let_go.address

    @numba.cfunc("intp(intp, uint32)")
    def for_compiled_code(size, align):
        place = take(size, FILLING)
        return manage(place, destructor) if place else 0

    return malloc, calloc, realloc, free, for_compiled_code, let_go


def _manage_memory():
    """Return numba's function that wraps memory and its destructor in a reference count (nrt_external.h)."""
    table = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p))(_nrt_python.c_helpers["get_api"])()
    return ctypes.CFUNCTYPE(_size, _size, _size)(table[2])


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler; see NEP 49."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p),
                *((name, ctypes.c_void_p) for name in ("malloc", "calloc", "realloc", "free"))]


_kept = []  # must outlive all arrays


def install(after):
    """Place all new arrays next to a guard page, after them if `after`, else before them."""
    functions = _functions(after)
    rtsys.initialize(cpu_target.target_context)
    binding.add_symbol("NRT_MemInfo_alloc_aligned", functions[4].address)
    handler = _Handler(b"guarded", 1, None, *(function.address for function in functions[:4]))
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new_capsule(ctypes.addressof(handler), b"mem_handler", None)
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.POINTER(ctypes.c_void_p), [ctypes.py_object, ctypes.c_char_p]
    core = getattr(np, "_core", None) or np.core  # NumPy 2, and 1
    table = pointer_of(core._multiarray_umath._ARRAY_API, None)
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])
    _kept.extend([functions, handler, capsule, set_handler(capsule)])


def take_buffers_apart(workspaces):
    """Make each buffer of a workspace an array of its own."""
    prepare = workspaces.prepare

    def prepare_apart(self, samples, lanes):
        prepare(self, samples, lanes)
        if getattr(self, "apart_for", None) is not self.layout:
            self.apart_for = self.layout
            buffers = self.program.graph.buffers
            self.apart = {number: np.empty(size_of(buffers[number].buffer, samples), np.uint8)
                          for number in self.layout.places}
        for number, address in self.addresses().items():
            self.table[FIXED_WORDS + number] = address

    def addresses(self):
        return {number: array.ctypes.data for number, array in self.apart.items()}

    def array(self, buffer):
        return self.apart[buffer.number].view(buffer.dtype).reshape(shape_of(buffer, self.layout.samples))

    workspaces.prepare, workspaces.addresses, workspaces.array = prepare_apart, addresses, array


def pytest_addoption(parser):
    parser.addoption("--guard-page", choices=["after", "before"], help="on which side of an array its guard page lies")


def pytest_configure(config):
    where = config.getoption("--guard-page")
    if where:
        install(where == "after")
        take_buffers_apart(Workspace)
