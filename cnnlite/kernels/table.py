"""Kernels that compiled code calls by number, each of them compiled when it was called for the first time.

A net needs a third of the kernels of a convolution: which ones follows from the shapes, and from the numbers too, as
an image with a NaN goes another way than its neighbours. To compile all took twice as long as to compile these.

    call(kernels, NUMBER, args)         in compiled code; kernels is a tuple that begins with the table's address
    table.complete(work)                in Python, does work() until no call in it was in vain

A call of a kernel that is not compiled does nothing but note its number in the table. So the work must be of a kind
that can be done again: it writes its results anew, and changes nothing that it reads.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnnlite.kernels.threads import function_at, hash_constant, noting, place_of, type_hash
from cnnlite.locks import new_lock

# The same in every process, because they are in the compiled code that is kept on disk.
(
    CONVOLVE, DIRECT_IMAGES, BY_PIXELS, BY_WIDE_PIXELS, UNROLL_TAPS, COPY_WINDOW, WINOGRAD_IMAGES,
    FOLLOW, FOLLOW_MAX_POOL, FOLLOW_AVERAGE_POOL, MAX_UNPOOL, STATISTICS, GRADIENT_SUMS,
) = range(13)  # fmt: skip

_int64 = ir.IntType(64)


class Table:
    """The kernels for arrays of one dtype.

    In memory it is a number whose bits say which kernels were called in vain, and then an address, or 0, and the hash
    of its types for each kernel.
    """

    def __init__(self, kernels):
        """kernels: by their numbers, pairs of a function and the numba types of its arguments."""
        self._kernels = kernels
        self._lock = new_lock()
        self._compiled = 0  # a bit for each kernel
        self._words = np.zeros(1 + 2 * len(kernels), np.int64)
        self._words[2::2] = [type_hash(argument_types) for _, argument_types in kernels]
        self.address = self._words.ctypes.data

    def complete(self, work):
        """Call work() and, as long as a kernel was missing that it called, compile that and call work() again."""
        notes = noting.get()
        if notes is not None and self not in notes.tables:
            notes.tables.append(self)
        while True:
            # Kernels that another thread compiles meanwhile count as missing: work() may have come too early for them.
            compiled = self._compiled
            work()
            missing = int(self._words[0]) & ~compiled
            if not missing:
                return
            self._compile(missing)

    def _compile(self, missing):
        with self._lock:
            for number, (function, argument_types) in enumerate(self._kernels):
                if missing & ~self._compiled & 1 << number:
                    self._words[1 + 2 * number], _ = place_of(function, argument_types)
                    self._compiled |= 1 << number


@intrinsic
def call(typingctx, kernels, number, args):
    """Call the kernel of a number with a tuple of arguments, or note that it is missing; it returns nothing."""

    def codegen(context, builder, signature, values):
        kernels, number, args = values
        arg_types = signature.args[2].types
        table = builder.extract_value(kernels, 0)
        offset = builder.add(builder.mul(number, ir.Constant(_int64, 16)), ir.Constant(_int64, 8))
        pointer = _int64.as_pointer()
        record = builder.inttoptr(builder.add(table, offset), pointer)
        address = builder.load(record)
        with builder.if_else(cgutils.is_null(builder, address), likely=False) as (missing, found):
            with missing:
                bit = builder.shl(ir.Constant(_int64, 1), number)
                builder.atomic_rmw("or", builder.inttoptr(table, pointer), bit, "monotonic")
            with found:
                types_hash = builder.load(builder.gep(record, [ir.Constant(_int64, 1)]))
                with builder.if_then(builder.icmp_unsigned("!=", types_hash, hash_constant(arg_types)), likely=False):
                    context.call_conv.return_user_exc(builder, TypeError, ("A kernel does not take these types.",))
                function = function_at(context, builder, address, arg_types)
                arguments = cgutils.unpack_tuple(builder, args, len(arg_types))
                status, _ = context.call_conv.call_function(builder, function, types.none, arg_types, arguments)
                with builder.if_then(status.is_error, likely=False):
                    context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(kernels, types.int64, args), codegen
