"""Whether numbers are bounded: none is NaN or so large that sums and differences of them could overflow.

Two convolution algorithms do more arithmetic than the definition: Winograd's adds and subtracts neighbours, and
computing several pixels together multiplies some by zeros. Numbers that are not bounded would spoil their neighbours,
so the direct algorithm is used instead.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, array, array_as, stage
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.llvm.vectors import Emitter, item_of

BOUND = 2.0**40
NUMBERS_A_UNIT = 1 << 15
TOGETHER = 4  # vectors of running maxima that don't wait for one another


@jit
def is_bounded(x):
    """Return whether all numbers of x (C-contiguous) are finite and less than BOUND in magnitude.

    Then no sum in a tile can overflow. That doesn't mean that small pixels keep their digits next to large ones: the
    error is relative to the largest in a tile, at most 3e-6 of it in float32.
    """
    return _all_below(x, x.ctypes.data, x.size)


@intrinsic
def _all_below(typingctx, of, x, size):
    """Return whether that many numbers from an address on are all less than BOUND in magnitude.

    Without the sign bit, floats compare like the integers with the same bits, and infinity and NaN are above all
    others. So finding the largest takes one instruction per vector, besides the one that clears the signs.
    """

    def codegen(context, builder, signature, args):
        emit = Emitter(builder, item_of(signature.args[0]))
        _, x, size = args
        item = ir.IntType(8 * emit.itemsize)
        bits = emit.vector_of(item)
        without_sign = ir.Constant(bits, [(1 << item.width - 1) - 1] * emit.lanes)

        def larger(most, place, mask=None):
            number = builder.and_(builder.bitcast(emit.load(place, mask), bits), without_sign)
            return builder.select(builder.icmp_signed(">", number, most), number, most)

        def add(k, most):
            place = emit.address(x, builder.mul(k, emit.number(TOGETHER * emit.lanes)))
            return [larger(some, builder.add(place, emit.number(i * VECTOR_BYTES))) for i, some in enumerate(most)]

        turns = builder.sdiv(size, emit.number(TOGETHER * emit.lanes))
        first, *others = emit.loop(turns, [emit.zeros(bits)] * TOGETHER, add)
        for other in others:
            first = builder.select(builder.icmp_signed(">", other, first), other, first)
        done = builder.mul(turns, emit.number(TOGETHER * emit.lanes))
        left = builder.sub(size, done)

        def add_rest(k, most):
            begin = builder.mul(k, emit.number(emit.lanes))
            mask = emit.mask(builder.sub(left, begin))
            return [larger(most[0], emit.address(x, builder.add(done, begin)), mask)]

        rest = builder.sdiv(builder.add(left, emit.number(emit.lanes - 1)), emit.number(emit.lanes))
        (most,) = emit.loop(rest, [first], add_rest)
        bound = emit.dtype(BOUND).view(f"int{item.width}")
        above = builder.icmp_signed(">=", most, ir.Constant(bits, [int(bound)] * emit.lanes))
        lanes = ir.IntType(emit.lanes)
        return builder.icmp_unsigned("==", builder.bitcast(above, lanes), ir.Constant(lanes, 0))

    return types.boolean(of, types.int64, types.int64), codegen


def bounded_flags(graph, weights):
    """Add a stage that checks whether weights are bounded; return the buffer of its flags, one per unit."""
    size = math.prod(weights.shape)
    flags = graph.work((max(1, -(-size // NUMBERS_A_UNIT)),), np.int64)
    graph.add(_look, units=flags.shape[0], x=weights, flags=flags, size=size, work=size)
    return flags


@stage(reads="x", writes="flags", sizes="size", footprint=BATCH)
def _look(r, run, first, last):
    x, flags = array(run, r.x, (r.size,)), array_as(run, r.flags, (last,), np.int64)
    for unit in range(first, last):
        flags[unit] = is_bounded(x[unit * NUMBERS_A_UNIT : min(r.size, (unit + 1) * NUMBERS_A_UNIT)])


@jit
def are_bounded(flags):
    """Return whether all weights, or all samples, are bounded, given their flags."""
    result = True
    for i in range(flags.size):
        result &= flags[i] != 0
    return result


@register_jitable
def rows_read(first, last, h, window):
    """Return (begin, end) of the rows, in an image of h rows, that some rows of the output depend on."""
    begin = first * window.stride_h - window.top
    end = (last - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    begin = min(h, max(0, begin))
    return begin, max(begin, min(h, end))
