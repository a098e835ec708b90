"""The mask of Dropout, drawn where it is needed: number i depends on the key and on i alone.

That is what a counter-based generator is for (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
3", 2011). Philox encrypts the counters 1, 2, 3, ... with the key: ten rounds turn a counter into four numbers of 64
bits, which are eight draws. Threads take different counters, and it makes no difference which. It is NumPy's Philox to
the last bit, so that the definition is a line of NumPy.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.jit import kernel
from cnnlite.floating import arithmetic
from cnnlite.kernels.checks import require
from cnnlite.kernels.threads import run

DRAWS = 8  # of one counter
CHUNK = 1 << 12  # numbers a thread draws at a time, as many as other threads take to begin; a multiple of DRAWS
ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
STEPS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)  # of the key, from one round to the next
HALF, UNUSED = np.uint64(32), np.uint32(8)  # bits


def dropout_mask(key, rate, out):
    """Fill out with 0 where a draw is less than the rate, with 1 / (1 - rate) elsewhere, and return it.

    Args:
        key: two integers from 0 to 2**64 - 1.
        rate: the share of zeros, from 0 to 1.
        out: an array of any shape. Its draws are in float32 whatever its dtype.
    """
    require(out, "out", out.shape, None, "dropout_mask")
    # A draw is k / 2**24 for an integer k below 2**24, so that it is compared as well by k.
    with arithmetic():
        least = math.ceil(float(np.float32(rate)) * 2**24)
    kept = out.dtype.type(0 if rate == 1 else 1 / (1 - rate))
    arguments = (out.reshape(-1), np.array(key, np.uint64), np.uint32(least), kept)
    run(_mask_task, -(-out.size // CHUNK), arguments, alone=out.size <= CHUNK)
    return out


@kernel
def _mask_task(out, key, least, kept, unit):
    part = out[unit * CHUNK : (unit + 1) * CHUNK]
    draws = np.empty(CHUNK, np.uint32)
    _philox(unit * (CHUNK // DRAWS) + 1, (part.size + DRAWS - 1) // DRAWS, key, draws)
    # A loop of its own: it becomes vector instructions, where a branch on each draw would be guessed wrongly.
    for i in range(part.size):
        part[i] = kept if draws[i] >> UNUSED >= least else 0


@kernel
def _philox(first, counters, key, draws):
    """Write the draws of so many counters, from the first on."""
    for i in range(counters):
        a, b, c, d = np.uint64(first + i), np.uint64(0), np.uint64(0), np.uint64(0)
        key_0, key_1 = key[0], key[1]
        for _ in range(ROUNDS):
            high_a, low_a = _product(MULTIPLIERS[0], a)
            high_c, low_c = _product(MULTIPLIERS[1], c)
            a, b, c, d = high_c ^ b ^ key_0, low_c, high_a ^ d ^ key_1, low_a
            key_0 += STEPS[0]
            key_1 += STEPS[1]
        numbers = (a, b, c, d)
        for j in range(DRAWS // 2):
            draws[DRAWS * i + 2 * j] = numbers[j]  # the lower half
            draws[DRAWS * i + 2 * j + 1] = numbers[j] >> HALF


@intrinsic
def _product(typingctx, a, b):
    """Return the upper and the lower 64 bits of the product of two numbers of 64 bits."""

    def codegen(context, builder, signature, args):
        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*(builder.zext(value, wide) for value in args))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)
        return context.make_tuple(builder, signature.return_type, [high, builder.trunc(product, narrow)])

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen
