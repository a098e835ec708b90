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
    _write_sum(sums, out, first * NUMBERS_A_UNIT, min(r.size, last * NUMBERS_A_UNIT))


@stage(reads="sums", writes="out", sizes="size", footprint=BATCH)
def _add_exact_chunks(r, run, first, last):
    chunks = word(run, CHUNK_COUNT)
    sums, out = array_as(run, r.sums, (chunks, r.size), np.float64), array(run, r.out, (r.size,))
    _write_sum(sums, out, first * NUMBERS_A_UNIT, min(r.size, last * NUMBERS_A_UNIT))


@kernel
def _write_sum(sums, out, begin, end):
    add_tree(sums, begin, end)
    for i in range(begin, end):
        out[i] = sums[0, i]


@kernel
def add_tree(sums, begin, end):
    """Add up the numbers from `begin` to `end` of all chunks, sums (chunks, numbers), to those of the first chunk."""
    chunks, distance = len(sums), 1
    while distance < chunks:
        for chunk in range(0, chunks, 2 * distance):
            here, other = sums[chunk], sums[chunk + distance]
            for i in range(begin, end):
                here[i] += other[i]
        distance *= 2
