r"""Sums over the samples of a batch: each chunk has its own, and the chunks' are added as a binary tree.

    chunks   0   1   2   3   4   5   6   7
              \ /     \ /     \ /     \ /
               +       +       +       +
                 \   /           \   /
                   +               +
                      \         /
                           +

The number of chunks is a power of two and follows from that of the samples. So the bits of a sum depend neither on the
threads nor on who computed which part of the tree.
"""

import math

import numpy as np

from cnnlite.engine.buffers import CHUNKS
from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import BATCH, array, array_as, stage, word
from cnnlite.engine.stages import CHUNKS as CHUNK_COUNT

NUMBERS_A_UNIT = 1 << 12


def chunk_sums(graph, shape, dtype=None):
    """Return a buffer for the sums of each chunk, each of that shape."""
    return graph.work((CHUNKS, *shape), dtype)


def add_chunks(sums, out):
    """Add a stage that writes to `out` the sum of the chunks of `sums`, which has as many numbers for each chunk.

    The sums may be in float64; they are rounded in the end. They are changed on the way.
    """
    size = math.prod(out.shape)
    exact = sums.dtype != out.dtype
    sums.graph.add(_add_exact_chunks if exact else _add_chunks, units=-(-size // NUMBERS_A_UNIT), work=16 * size,
                   sums=sums, out=out, size=size)


@stage(reads="sums", writes="out", sizes="size", footprint=BATCH)
def _add_chunks(r, run, first, last):
    chunks = word(run, CHUNK_COUNT)
    sums, out = array(run, r.sums, (chunks, r.size)), array(run, r.out, (r.size,))
    write_sum(sums, out, first * NUMBERS_A_UNIT, min(r.size, last * NUMBERS_A_UNIT))


@stage(reads="sums", writes="out", sizes="size", footprint=BATCH)
def _add_exact_chunks(r, run, first, last):
    chunks = word(run, CHUNK_COUNT)
    sums, out = array_as(run, r.sums, (chunks, r.size), np.float64), array(run, r.out, (r.size,))
    write_sum(sums, out, first * NUMBERS_A_UNIT, min(r.size, last * NUMBERS_A_UNIT))


@kernel
def write_sum(sums, out, begin, end):
    """Write to out (numbers,) the sums over all chunks of the numbers from `begin` to `end`."""
    add_tree(sums, begin, end)
    source, target = sums[0, begin:end], out[begin:end]
    for i in range(target.size):
        target[i] = source[i]


@kernel
def add_tree(sums, begin, end):
    """Add up the numbers from `begin` to `end` of all chunks, sums (chunks, numbers), to those of the first chunk."""
    chunks, distance = len(sums), 1
    while distance < chunks:
        for chunk in range(0, chunks, 2 * distance):
            # Slices, in which no index can be below 0: with that to be looked at, the loop would not be vector code.
            here, other = sums[chunk, begin:end], sums[chunk + distance, begin:end]
            for i in range(here.size):
                here[i] += other[i]
        distance *= 2


@kernel
def sums_of_sizes_and_squares(x):
    """Return the sums of |x| and of x², in float64, of a flat array."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    whole = x.size // 4 * 4
    for i in range(0, whole, 4):
        # Four sums at a time: each addition would have to wait for the one before.
        x0, x1, x2, x3 = np.float64(x[i]), np.float64(x[i + 1]), np.float64(x[i + 2]), np.float64(x[i + 3])
        a0, a1, a2, a3 = a0 + abs(x0), a1 + abs(x1), a2 + abs(x2), a3 + abs(x3)
        b0, b1, b2, b3 = b0 + x0 * x0, b1 + x1 * x1, b2 + x2 * x2, b3 + x3 * x3
    for i in range(whole, x.size):
        x0 = np.float64(x[i])
        a0, b0 = a0 + abs(x0), b0 + x0 * x0
    return a0 + a1 + (a2 + a3), b0 + b1 + (b2 + b3)
