"""The sums of which the gradient of a kernel is made: of each chunk of a batch its own, and in the end their tree.

How a stage lays them out depends on the way that it goes (`direct_kernel_gradient.py`, `winograd_gradients.py`):

    plain       (KH, groups, KW * C / groups, F / groups)       rows (kx, c), of which one lies behind the other in x
    turned      (KH, 1, F, KW * C)                              rows f
    wide        (KH, 1, (KW + (p - 1) s) * C, p * F)            rows (t, c), columns (q, f): see the former file

where the columns are filled up to whole panels; what the columns behind the last one hold is of no use.

A sum in float32 of many pixels loses digits. Where a chunk has more than a few thousand, its sums are moved to others
in float64 (`exact`) every so many samples. Where that happens is counted from the beginning of the chunk, so that the
bits don't depend on how many samples a stage is called for at a time.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import BATCH, BEGIN, CHUNKS, END, UNIT, array, array_as, stage, word
from cnnlite.kernels.geometry import FIELDS
from cnnlite.kernels.product.panels import panel_width
from cnnlite.kernels.sums import NUMBERS_A_UNIT, add_tree, chunk_sums

# All stages that add up the gradient of a kernel have one form of records, so that what they call is compiled once.
READS, WRITES, ADDS = "x dy weights flags", "dx done exact spectrum state", "sums"
SIZES = (f"{FIELDS} numbers columns every long_samples block pads image image_width merged pixels alone transform "
         "block_tiles padded v_distance w_distance m_distance v points m zeros part "
         "last last_distance chain flag_count")


class KernelSums(NamedTuple):
    """The sums, as arguments of a stage.

    Attributes:
        sums, exact: their buffers, `exact` for long sums.
        numbers: how many there are.
        columns: the last axis.
        every: after so many samples the sums are moved, in a chunk of more than `long_samples`.
    """

    sums: Any = None
    exact: Any = None
    numbers: int = 0
    columns: int = 0
    every: int = 1
    long_samples: int = 0


def kernel_sums(graph, sizes, rows, columns, links, chain, long_chain):
    """Return `KernelSums` to which a sample adds `links` products.

    Args:
        sizes: the FIELDS of the convolution.
        rows, columns: the last two axes; columns are filled up here.
        chain: so many products may be added one by one before they are moved, if there are more than `long_chain`.
    """
    width = panel_width(graph.dtype)
    shape = sizes["height"], sizes["groups"], rows, -(-columns // width) * width
    links = max(1, links)
    return KernelSums(chunk_sums(graph, shape), graph.lane(shape, np.float64), math.prod(shape), shape[3],
                      -(-chain // links), long_chain // links)


def add_kernel_stage(graph, stage, *, together, work, scratch, **arguments):
    """Add a stage that has records of the common form; what is not mentioned is not there, or 0."""
    record = dict.fromkeys(stage.buffers) | dict.fromkeys(stage.sizes, 0) | arguments
    graph.add(stage, together=together, work=work, scratch=scratch, **record)


@kernel
def sums_of_chunk(r, run):
    """Return the sums of the chunk that is being computed, flat."""
    return array(run, r.sums, (word(run, CHUNKS), r.numbers))[word(run, UNIT)]


@kernel
def clear(numbers):
    for i in range(numbers.size):
        numbers[i] = 0


@kernel
def is_long(r, run):
    """Return whether the sums of the chunk are moved to others in float64 on the way."""
    return word(run, END) - word(run, BEGIN) > r.long_samples


@kernel
def begin_sums(r, run, first):
    """Begin the sums of a chunk, if its first samples are those from `first` on."""
    if first == word(run, BEGIN):
        clear(sums_of_chunk(r, run))
        if is_long(r, run):
            clear(array_as(run, r.exact, (r.numbers,), np.float64))


@kernel
def chain_end(r, run, first, last):
    """Return up to which sample to go on from the first: to the last, or to where the sums are to be moved."""
    if not is_long(r, run):
        return last
    begin = word(run, BEGIN)
    return min(last, begin + ((first - begin) // r.every + 1) * r.every)


@kernel
def end_chain(r, run, stop):
    """Move the sums if it is time to, after the sample before `stop`, and finish them at the end of a chunk."""
    at_end = stop == word(run, END)
    if is_long(r, run) and (at_end or (stop - word(run, BEGIN)) % r.every == 0):
        move_sums(r, run, at_end)


@kernel
def move_sums(r, run, at_end):
    """Add the sums to those in float64, and begin them anew; or write all of them, at the end of a chunk."""
    sums, exact = sums_of_chunk(r, run), array_as(run, r.exact, (r.numbers,), np.float64)
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = exact[i] if at_end else 0


def add_kernel_chunks(graph, sums, dkernel, sizes, pixels=1, turned=False):
    """Add a stage that writes to dkernel the sum of all chunks, out of the form that they are in."""
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
