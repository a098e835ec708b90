"""Kernels that were called once, called again with the same arguments: all of them by one call from Python.

One image keeps the kernels of a small net busy for 30 us. What lies between them took longer: Python, and numba, which
takes the arguments of each task apart. So `notes()` keeps what `threads.run` is told to call. A `Recording` writes the
arguments of each to memory, where compiled code finds them at once, and `replay()` calls one task after the other.

The arrays stay those which they were: new numbers go into the first of them, and results are read from the last.
"""

import contextlib
import functools

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnnlite.kernels._jit import kernel
from cnnlite.kernels.threads import Notes, call_trampoline, function_at, hash_constant, noting, place_of

WORDS = 1024  # of 8 bytes, for the arguments of a task; 20 arrays of 5 axes take 300

_int64 = ir.IntType(64)


@contextlib.contextmanager
def notes():
    """Yield `Notes` of all that `threads.run` calls in this thread while the context lasts."""
    token = noting.set(Notes())
    try:
        yield noting.get()
    finally:
        noting.reset(token)


class Recording:
    """What `notes` were taken of, if all of it was done by one thread.

    Attributes:
        is_spoilt: whether the recording must be thrown away: an array is no longer what it was, or a task has failed.
    """

    def __init__(self, notes, unchanged=()):
        """unchanged: pairs of an array and a copy. `replay` compares them, bit by bit, before anything else."""
        self._spoilt = np.zeros(1, np.int64)
        comparisons = [(_compare_task, 1, (*map(_bits, pair), self._spoilt)) for pair in unchanged]
        self._calls = [*comparisons, *notes.calls]  # which keeps the arrays alive
        self._arguments = np.empty((len(self._calls), WORDS), np.int64)
        rows = [(self._store(i), self._arguments[i].ctypes.data, units) for i, (_, units, _) in enumerate(self._calls)]
        self._rows = np.array(rows, np.int64).reshape(-1, 3)
        self._work = functools.partial(_replay, self._rows, self._spoilt)
        for table in notes.tables:
            self._work = functools.partial(table.complete, self._work)

    def _store(self, i):
        task, _, args = self._calls[i]
        place = place_of(task, (*map(numba.typeof, args), types.int64))
        trampoline = _store(place, self._spoilt.ctypes.data, self._arguments[i].ctypes.data, WORDS, args)
        if not trampoline:
            raise RuntimeError(f"The arguments of {task.__name__} can't be recorded.")
        return trampoline

    def replay(self):
        """Call every task again. What they wrote is of use unless `is_spoilt`."""
        self._work()

    @property
    def is_spoilt(self):
        return self._spoilt[0] != 0


def _bits(array):
    """Return the numbers as integers, of which a NaN is equal to itself, and 0 is not to -0."""
    return array.reshape(-1).view(np.dtype(f"i{array.itemsize}"))


@kernel
def _compare_task(array, copy, spoilt, unit):
    different = 0
    for i in range(array.size):
        different |= array[i] ^ copy[i]
    if different:
        spoilt[0] = 1


@kernel
def _replay(rows, spoilt):
    for i in range(len(rows)):
        for unit in range(rows[i, 2]):
            call_trampoline(rows[i, 0], rows[i, 1], unit)
        if spoilt[0]:
            return


@intrinsic
def _store_call(typingctx, place, spoilt, data, words, args):
    """Write the task's address and its arguments to memory; return the address of what calls it with them, or 0.

    Arrays are stored as their shapes and addresses alone. Whoever has the memory must keep them alive.
    """

    def codegen(context, builder, signature, values):
        place, spoilt, data, words, args = values
        arg_types = (*signature.args[4].types, types.int64)
        task, types_hash = cgutils.unpack_tuple(builder, place, 2)
        arguments = [_without_owner(context, builder, kind, value) for kind, value
                     in zip(arg_types, cgutils.unpack_tuple(builder, args, len(arg_types) - 1))]
        packed = cgutils.pack_struct(builder, [spoilt, task, *arguments])
        trampoline = _trampoline(context, builder.module, packed.type, arg_types)
        size = ir.Constant(_int64, context.get_abi_sizeof(packed.type))
        has_room = builder.icmp_unsigned("<=", size, builder.mul(words, ir.Constant(_int64, 8)))
        fits = builder.and_(has_room, builder.icmp_unsigned("==", types_hash, hash_constant(arg_types)))
        with builder.if_then(fits):
            builder.store(packed, builder.inttoptr(data, packed.type.as_pointer()))
        return builder.select(fits, builder.ptrtoint(trampoline, _int64), ir.Constant(_int64, 0))

    return types.int64(place, types.int64, types.int64, types.int64, args), codegen


def _without_owner(context, builder, kind, value):
    """Return the value; of an array, one by which numba neither counts references nor frees anything."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


def _trampoline(context, module, packed_type, arg_types):
    """Return a function of (data, unit) that calls the task at `data` with the arguments there."""
    kind = ir.FunctionType(ir.VoidType(), [_int64, _int64])
    trampoline = ir.Function(module, kind, module.get_unique_name("trampoline"))
    trampoline.linkage = "internal"
    builder = ir.IRBuilder(trampoline.append_basic_block())
    data, unit = trampoline.args
    packed = builder.load(builder.inttoptr(data, packed_type.as_pointer()))
    spoilt, task, *arguments = cgutils.unpack_tuple(builder, packed, len(arg_types) + 1)
    function = function_at(context, builder, task, arg_types)
    status, _ = context.call_conv.call_function(builder, function, types.none, arg_types, [*arguments, unit])
    with builder.if_then(status.is_error, likely=False):
        builder.store(ir.Constant(_int64, 1), builder.inttoptr(spoilt, _int64.as_pointer()))
    builder.ret_void()
    return trampoline


@kernel
def _store(place, spoilt, data, words, args):
    return _store_call(place, spoilt, data, words, args)
