"""One parallel loop for all kernels, and calls by address, so that each kernel is compiled once.

numba compiles everything that a function calls into that function again, and a `prange` loop twice more. Kernels that
call kernels that call kernels took a minute to compile that way. Here a kernel is compiled alone, and the
others get its address:

    run(task, units, args)              calls task(*args, unit) for unit = 0, 1, ..., shared by the threads
    call(kernels, NUMBER, args)         in compiled code, calls another kernel; see `table.py`

The threads are numba's, where `cnnlite/thread_pool.py` finds that they can be had. `_share` is the only `prange` loop
there is for such kernels, and what it calls is handed to it as two numbers, the address of a few instructions that know
the types of the arguments, and the address of the arguments.

A kernel at an address must have been compiled for the very types that it is called with, or the process would crash.
So a place is an address and a hash of these types, which is compared with that of the arguments at each call.
"""

import functools
import zlib
from contextvars import ContextVar

import numba
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from cnnlite import thread_pool
from cnnlite.engine.jit import kernel

_int64 = ir.IntType(64)


def place_of(function, argument_types):
    """Return (address, hash of the types) of a kernel, compiled for arguments of these numba types."""
    argument_types = tuple(argument_types)
    inner = function.inner()
    inner.compile(argument_types)
    compiled = inner.overloads[argument_types]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name), type_hash(argument_types)


def type_hash(argument_types):
    return zlib.crc32(", ".join(map(str, argument_types)).encode())


def function_at(context, builder, place, argument_types):
    convention = context.call_conv
    return builder.inttoptr(place, convention.get_function_type(types.none, argument_types).as_pointer())


def hash_constant(argument_types):
    return ir.Constant(_int64, type_hash(argument_types))


@intrinsic
def call_trampoline(typingctx, trampoline, data, unit):
    def codegen(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [_int64, _int64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@kernel(parallel=True)
def _share(trampoline, data, units):
    for unit in prange(units):
        call_trampoline(trampoline, data, unit)


@intrinsic
def _for_each(typingctx, share, place, units, args):
    """Call the task at a place for all units, in the parallel loop at the address `share`, or here if that is 0.

    Returns False, and calls nothing, if the task is for other types than those of the arguments.
    """

    def codegen(context, builder, signature, values):
        share, place, units, args = values
        arg_types = (*signature.args[3].types, types.int64)
        task, types_hash = cgutils.unpack_tuple(builder, place, 2)
        fits = builder.icmp_unsigned("==", types_hash, hash_constant(arg_types))
        arguments = cgutils.unpack_tuple(builder, args, len(arg_types) - 1)
        alone = builder.icmp_signed("==", share, ir.Constant(_int64, 0))
        failed = cgutils.alloca_once_value(builder, ir.Constant(_int64, 0))
        failed_at = builder.ptrtoint(failed, _int64)
        data = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [failed_at, task, *arguments]))

        def call_task(builder, task, arguments, unit):
            function = function_at(context, builder, task, arg_types)
            status, _ = context.call_conv.call_function(builder, function, types.none, arg_types, [*arguments, unit])
            return status

        with builder.if_then(fits):
            with builder.if_else(alone) as (here, shared):
                with here:
                    with cgutils.for_range(builder, units) as loop:
                        status = call_task(builder, task, arguments, loop.index)
                        with builder.if_then(status.is_error, likely=False):
                            context.call_conv.return_status_propagate(builder, status)
                with shared:
                    kind = ir.FunctionType(ir.VoidType(), [_int64, _int64])
                    trampoline = ir.Function(builder.module, kind, builder.module.get_unique_name("trampoline"))
                    trampoline.linkage = "internal"
                    inside = ir.IRBuilder(trampoline.append_basic_block())
                    packed = inside.load(inside.inttoptr(trampoline.args[0], data.type))
                    failed_inside, task_inside, *arguments_inside = cgutils.unpack_tuple(
                        inside, packed, len(arg_types) + 1)
                    status = call_task(inside, task_inside, arguments_inside, trampoline.args[1])
                    with inside.if_then(status.is_error, likely=False):
                        inside.store(ir.Constant(_int64, 1), inside.inttoptr(failed_inside, _int64.as_pointer()))
                    inside.ret_void()
                    numbers = (types.int64, types.int64, types.int64)
                    function = function_at(context, builder, share, numbers)
                    context.call_conv.call_function(
                        builder, function, types.none, numbers,
                        [builder.ptrtoint(trampoline, _int64), builder.ptrtoint(data, _int64), units],
                    )
                    # Which error it was stays in the other thread: it can't be raised there, but must not get lost.
                    some_failed = builder.icmp_signed("!=", builder.load(failed), ir.Constant(_int64, 0))
                    with builder.if_then(some_failed, likely=False):
                        message = "A task failed in another thread: it had no memory, or was for other types."
                        context.call_conv.return_user_exc(builder, RuntimeError, (message,))
        return fits

    return types.boolean(types.int64, place, types.int64, args), codegen


@kernel
def _run(share, place, units, args):
    return _for_each(share, place, units, args)


_places: dict = {}


class Notes:
    """What `run` was told to call: [(task, units, args), ...], and the tables by which kernels were called.

    others: whether any of it was also for other threads.
    """

    def __init__(self):
        self.calls, self.tables, self.others = [], [], False

    def add(self, later):
        """Add notes that were taken after these."""
        self.calls += later.calls
        self.tables += [table for table in later.tables if table not in self.tables]
        self.others |= later.others


noting: ContextVar = ContextVar("noting", default=None)


def run(task, units, args, alone=False):
    """Call task(*args, unit) for unit = 0 to units - 1, shared by the threads, or in this one if `alone`.

    task: a kernel that returns nothing. args: a tuple, of which the first has a dtype. Waking the other threads takes
        12 us, in which a core does a million additions and multiplications: what is smaller is better done alone.
    """
    if numba.config.DISABLE_JIT:  # then a task is a function in plain Python
        for unit in range(units):
            task(*args, unit)
        return
    notes = noting.get()
    if notes is not None:
        notes.calls.append((task, units, args))
        notes.others |= not alone
    if alone or thread_pool.take() == 1:
        _call(0, task, units, args)
        return
    try:
        _call(_share_address(), task, units, args)
    finally:
        thread_pool.give_back()


def _call(share, task, units, args):
    # What types a task gets changes with little but the dtype, so that is looked up. `_run` says if it was not enough.
    key = task, args[0].dtype
    place = _places.get(key)
    if place is None or not _run(share, place, units, args):
        place = _places[key] = place_of(task, (*map(numba.typeof, args), types.int64))
        _run(share, place, units, args)


CHUNK = 1 << 15  # numbers of a flat array that a thread takes at a time


def chunks_of(size):
    """Return into how many chunks a flat array of that size is cut."""
    return -(-size // CHUNK)


@kernel
def chunk(x, unit):
    """Return the numbers of a chunk. A loop over their places in x would not become vector instructions."""
    return x[unit * CHUNK : (unit + 1) * CHUNK]


@functools.cache
def _share_address():
    return place_of(_share, (types.int64, types.int64, types.int64))[0]
