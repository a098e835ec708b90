"""The mask of Dropout, drawn where it is needed: number i depends only on the key and on i.

That is what counter-based generators are for (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
3", 2011). Philox encrypts the counters 1, 2, 3, ... with the key: ten rounds turn a counter into four 64-bit numbers,
which are eight draws. It doesn't matter which thread takes which counters. The bits are those of NumPy's Philox, so the
definition is one line of NumPy.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.buffers import is_buffer
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, PIXEL, SCRATCH, array, array_as, array_at, span, stage, word
from cnnlite.kernels.checks import require
from cnnlite.kernels.layout import samples_together
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.support.floating import arithmetic

DRAWS = 8  # per counter
COUNTERS = 128  # whose draws fit in a thread's scratch memory
CHUNK = 1 << 12  # numbers that a thread takes at a time, if they don't belong to samples
COST = 10  # operations that a number counts as
ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
STEPS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)  # added to the key after each round
HALF, UNUSED = np.uint64(32), np.uint32(8)  # bits


def dropout_mask(key, rate, out):
    """Fill `out` with 0 where a draw is less than the rate and with 1 / (1 - rate) elsewhere, and return it.

    Args:
        key: two integers from 0 to 2**64 - 1, or an array of them, of dtype uint64.
        rate: the fraction of zeros, from 0 to 1.
        out: an array of any shape. The draws are float32 whatever its dtype.
    """
    return _dropout_mask(key if is_buffer(key) else np.array(key, np.uint64), rate, out)


dropout_mask.is_operation = True  # type: ignore[attr-defined]  # the function that it calls is one


@operation(samples="out")
def _dropout_mask(key, rate, out):
    require(out, "out", out.ndim, None, "dropout_mask")
    require(key, "key", (2,), np.dtype(np.uint64), "dropout_mask")
    # A draw is k / 2**24 for an integer k below 2**24, so k can be compared instead.
    with arithmetic():
        least = math.ceil(float(np.float32(rate)) * 2**24)
    kept = 0 if rate == 1 else 1 / (1 - rate)
    numbers, graph = out.sample_size, graph_of(out)
    arguments = dict(key=key, out=out, numbers=numbers, least=least, kept=kept, scratch=COUNTERS * DRAWS * 4,
                     work=COST * numbers)
    if out.of_samples:
        graph.add(_mask, rows=out.shape[1] if out.ndim > 2 else 1, together=samples_together(numbers), **arguments)
    else:
        graph.add(_mask_of_batch, units=-(-numbers // CHUNK), **arguments)
    return out


@stage(reads="key", writes="out", sizes="rows numbers least", floats="kept", footprint=PIXEL)
def _mask(r, run, first, last):
    start, stop = span(run, first, last, r.rows, r.numbers)
    out, key = array(run, r.out, (stop,)), array_as(run, r.key, (2,), np.uint64)
    _draw(run, key, np.uint32(r.least), out.dtype.type(r.kept), start, out)


@stage(reads="key", writes="out", sizes="numbers least", floats="kept", footprint=BATCH)
def _mask_of_batch(r, run, first, last):
    stop = min(last * CHUNK, r.numbers)
    out, key = array(run, r.out, (stop,)), array_as(run, r.key, (2,), np.uint64)
    _draw(run, key, np.uint32(r.least), out.dtype.type(r.kept), first * CHUNK, out)


@jit
def _draw(run, key, least, kept, start, out):
    """Fill `out` from `start` on; number i comes from draw i % DRAWS of counter i // DRAWS + 1."""
    draws = array_at(word(run, SCRATCH), (COUNTERS * DRAWS,), np.uint32)
    while start < out.size:
        counter = start // DRAWS
        first = counter * DRAWS
        stop = min(out.size, first + COUNTERS * DRAWS)
        _philox(counter + 1, (stop - first + DRAWS - 1) // DRAWS, key, draws)
        part, drawn = out[start:stop], draws[start - first :]
        # A separate loop: it is vectorised, while a branch on each draw would often be mispredicted.
        for i in range(part.size):
            part[i] = kept if drawn[i] >> UNUSED >= least else 0
        start = stop


@jit
def _philox(first, counters, key, draws):
    """Write the draws of that many counters, starting at `first`."""
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
    """Return the upper and the lower 64 bits of the product of two 64-bit numbers."""

    def codegen(context, builder, signature, args):
        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*(builder.zext(value, wide) for value in args))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)
        return context.make_tuple(builder, signature.return_type, [high, builder.trunc(product, narrow)])

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), codegen
