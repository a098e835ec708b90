"""The sums that make up a kernel gradient: one set for each chunk of a batch, added up as a tree at the end.

How a stage lays them out depends on its method (`direct_kernel_gradient.py`, `winograd_gradients.py`):

    plain       (KH, groups, KW * C / groups, F / groups)       rows (kx, c), in the order in which they lie in x
    turned      (KH, 1, F, KW * C)                              rows f
    wide        (KH, 1, (KW + (p - 1) s) * C, p * F)            rows (t, c), columns (q, f)

`direct_kernel_gradient.py` explains the last two. The columns are padded to whole panels; the padding is unused.

A float32 sum over many pixels loses digits. If a chunk has more than a few thousand, its sums are moved to float64 sums
(`exact`) every few samples. These are counted from the beginning of the chunk, so that the bits don't depend on how
many samples a stage is called with at a time.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, BEGIN, CHUNKS, END, UNIT, array, array_as, stage, word
from cnnlite.kernels.geometry import FIELDS
from cnnlite.kernels.product.panels import panel_width
from cnnlite.kernels.sums import NUMBERS_A_UNIT, add_tree, chunk_sums

# All stages that add up a kernel gradient share one record layout, so that the functions they call are compiled once.
READS, WRITES, ADDS = "x dy weights flags", "dx done exact spectrum state", "sums"
SIZES = (f"{FIELDS} numbers columns every long_samples block pads image image_width merged pixels alone transform "
         "block_tiles padded v_distance w_distance m_distance v points m zeros part "
         "last last_distance chain flag_count")


class KernelSums(NamedTuple):
    """The sums, as arguments of a stage.

    Attributes:
        sums, exact: their buffers, `exact` for long sums.
        numbers: how many there are.
        columns: the size of the last axis.
        every: how many samples are added before the sums are moved, in a chunk of more than `long_samples`.
    """

    sums: Any = None
    exact: Any = None
    numbers: int = 0
    columns: int = 0
    every: int = 1
    long_samples: int = 0


def kernel_sums(graph, sizes, rows, columns, links, chain, long_chain):
    """Return `KernelSums`; each sample adds `links` products to each of the sums.

    Args:
        sizes: the FIELDS of the convolution.
        rows, columns: the sizes of the last two axes; columns are padded to whole panels here.
        chain: how many products may be added one by one before they are moved, if there are more than `long_chain`.
    """
    width = panel_width(graph.dtype)
    shape = sizes["height"], sizes["groups"], rows, -(-columns // width) * width
    links = max(1, links)
    return KernelSums(chunk_sums(graph, shape), graph.thread_local(shape, np.float64), math.prod(shape), shape[3],
                      -(-chain // links), long_chain // links)


def add_kernel_stage(graph, stage, *, together, work, scratch, **arguments):
    """Add a stage with the common record layout; buffers and sizes that are left out are None and 0."""
    record = dict.fromkeys(stage.buffers) | dict.fromkeys(stage.sizes, 0) | arguments
    graph.add(stage, together=together, work=work, scratch=scratch, **record)


@jit
def sums_of_chunk(r, run):
    """Return the sums of the current chunk, flat."""
    return array(run, r.sums, (word(run, CHUNKS), r.numbers))[word(run, UNIT)]


@jit
def clear(numbers):
    for i in range(numbers.size):
        numbers[i] = 0


@jit
def is_long(r, run):
    """Return whether the chunk is so long that its sums are moved to float64 sums along the way."""
    return word(run, END) - word(run, BEGIN) > r.long_samples


@jit
def begin_sums(r, run, first):
    """Clear the sums of a chunk if `first` is its first sample."""
    if first == word(run, BEGIN):
        clear(sums_of_chunk(r, run))
        if is_long(r, run):
            clear(array_as(run, r.exact, (r.numbers,), np.float64))


@jit
def chain_end(r, run, first, last):
    """Return up to which sample to continue from `first`: `last`, or where the sums have to be moved."""
    if not is_long(r, run):
        return last
    begin = word(run, BEGIN)
    return min(last, begin + ((first - begin) // r.every + 1) * r.every)


@jit
def end_chain(r, run, stop):
    """Move the sums if that is due before sample `stop`, and finish them at the end of a chunk."""
    at_end = stop == word(run, END)
    if is_long(r, run) and (at_end or (stop - word(run, BEGIN)) % r.every == 0):
        move_sums(r, run, at_end)


@jit
def move_sums(r, run, at_end):
    """Add the sums to the float64 sums and reset them; at the end of a chunk, set them to the totals."""
    sums, exact = sums_of_chunk(r, run), array_as(run, r.exact, (r.numbers,), np.float64)
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = exact[i] if at_end else 0


def add_kernel_chunks(graph, sums, dkernel, sizes, pixels=1, turned=False):
    """Add a stage that writes the sum of all chunks to dkernel, converted from their layout."""
    kh, kw, channels, filters = dkernel.shape
    rows, columns = sums.sums.shape[3:]
    plain = pixels == 1 and not turned
    pieces = -(-rows * columns // NUMBERS_A_UNIT) if plain else 1
    graph.add(_add_kernel_chunks, units=kh * sizes["groups"] * pieces, work=16 * sums.numbers, sums=sums.sums,
              out=dkernel, height=kh, width=kw, channels=channels, filters=filters, groups=sizes["groups"], rows=rows,
              columns=columns, pieces=pieces, pixels=pixels, shift=sizes["stride_w"] * channels, turned=int(turned))


@stage(reads="sums", writes="out",
       sizes="height width channels filters groups rows columns pieces pixels shift turned", footprint=BATCH)
def _add_kernel_chunks(r, run, first, last):
    part, length, filters = r.rows * r.columns, r.width * r.channels, r.filters // r.groups
    sums = array(run, r.sums, (word(run, CHUNKS), r.height * r.groups * part))
    out = array(run, r.out, (r.height * length * r.filters,))
    for unit in range(first, last):
        place, piece = unit // r.pieces, unit % r.pieces
        begin, end = piece * r.rows // r.pieces, (piece + 1) * r.rows // r.pieces
        add_tree(sums, place * part + begin * r.columns, place * part + end * r.columns)
        total, target = sums[0], place // r.groups * length * r.filters + place % r.groups * filters
        i_step, f_step = (1, r.columns) if r.turned else (r.columns, 1)
        if r.turned or r.pixels > 1:
            begin, end = 0, length
        for i in range(begin, end):
            source = place * part + i * i_step
            for f in range(filters):
                number = total[source + f * f_step]
                for q in range(1, r.pixels):
                    number += total[source + q * (r.shift * r.columns + filters) + f]
                out[target + i * r.filters + f] = number
