r"""Sums over the samples of a batch: each chunk has its own sum, and these are added as a binary tree.

    chunks   0   1   2   3   4   5   6   7
              \ /     \ /     \ /     \ /
               +       +       +       +
                 \   /           \   /
                   +               +
                      \         /
                           +

The number of chunks is a power of two and depends only on the number of samples. So the bits of a sum depend neither on
the number of threads nor on which of them computed which part of the tree.
"""

import math

import numpy as np

from cnnlite.engine.buffers import CHUNKS
from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, SCRATCH, array, array_as, array_at, stage, word
from cnnlite.engine.stages import CHUNKS as CHUNK_COUNT

NUMBERS_A_UNIT = 1 << 12


def chunk_sums(graph, shape, dtype=None):
    """Return a buffer for one sum of that shape per chunk."""
    return graph.work((CHUNKS, *shape), dtype)


def add_chunks(sums, out):
    """Add a stage that writes the sum over the chunks of `sums` to `out`, which has as many numbers as a chunk.

    `sums` may be in float64; the result is rounded at the end. `sums` is overwritten.
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


@jit
def write_sum(sums, out, begin, end):
    """Write the numbers from `begin` to `end`, summed over all chunks, to out (numbers,)."""
    add_tree(sums, begin, end)
    source, target = sums[0, begin:end], out[begin:end]
    for i in range(target.size):
        target[i] = source[i]


@jit
def add_tree(sums, begin, end):
    """Add the numbers from `begin` to `end` of all chunks into the first chunk of sums (chunks, numbers)."""
    chunks, distance = len(sums), 1
    while distance < chunks:
        for chunk in range(0, chunks, 2 * distance):
            # Slices, in which no index can be negative: checking for that would keep the loop from being vectorised.
            here, other = sums[chunk, begin:end], sums[chunk + distance, begin:end]
            for i in range(here.size):
                here[i] += other[i]
        distance *= 2


LANES = 64  # sums at a time: with a single one, each addition would have to wait for the one before
LANES_BYTES = 2 * LANES * 8


@jit
def sums_of_sizes_and_squares(run, x):
    """Return the sums of |x| and of x², in float64, of a flat array; the stage needs LANES_BYTES of scratch memory.

    Number i is added to sum i mod 64. The 64 sums are added as a tree: 0 and 32, 1 and 33, ..., and so on.
    """
    sums = array_at(word(run, SCRATCH), (2, LANES), np.float64)
    sizes, squares = sums[0], sums[1]
    for j in range(LANES):
        sizes[j] = squares[j] = 0.0
    for begin in range(0, x.size, LANES):
        row = x[begin : begin + LANES]
        for j in range(row.size):
            number = np.float64(row[j])
            sizes[j] += abs(number)
            squares[j] += number * number
    width = LANES
    while width > 1:
        width //= 2
        for j in range(width):
            sizes[j] += sizes[j + width]
            squares[j] += squares[j + width]
    return sizes[0], squares[0]
