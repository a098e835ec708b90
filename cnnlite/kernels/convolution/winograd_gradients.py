"""Both gradients of a convolution by Winograd's method, sharing the transforms of dy; see `winograd.py`.

    dy (N, OH, OW, F)       -- cut into tiles, V_m dy V_m^T -->     W (36, tiles, F)
    to the kernel                                                   S[p] = V[p]^T @ W[p], (36, C, F), of all tiles
    S                       -- A_K s A_K^T -->                      dkernel (K, K, C, F)
    to the input                                                    P[p] = W[p] @ (D U D)[p]^T, (36, tiles, C)
    P                       -- B^T p B, added up -->                dx (N, H, W, C)

S, the *spectrum*, is four times the kernel for K = 3. So there is one per thread, transformed back and added to the
sums of a chunk at its end, or after so many tiles that the sums would lose digits. The last block of tiles is
multiplied and transformed back a few channels at a time, so that a chunk of a single block needs no spectrum in memory
at all. The products of all tiles are added one by one in the order of the samples, so the bits are the same however
many samples are processed at a time. A sample whose values are not `bounded` takes the direct method instead.
"""

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BEGIN, END, NONE, SCRATCH, array, array_as, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.bounded import are_bounded, bounded_flags, is_bounded
from cnnlite.kernels.convolution.direct import LINE_BYTES, panel_columns
from cnnlite.kernels.convolution.direct_input_gradient import add_direct_input_gradient
from cnnlite.kernels.convolution.direct_kernel_gradient import add_images, copies
from cnnlite.kernels.convolution.kernel_sums import (
    ADDS,
    READS,
    SIZES,
    WRITES,
    KernelSums,
    add_kernel_chunks,
    add_kernel_stage,
    chain_end,
    clear,
    is_long,
    kernel_sums,
    move_sums,
    sums_of_chunk,
)
from cnnlite.kernels.convolution.winograd import CACHE_BYTES, POINTS, odd_lines, tiles_a_block, transformed_weights
from cnnlite.kernels.convolution.winograd_transforms import TILE, call_transform, transform_address
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.product.microkernel import call_block
from cnnlite.kernels.product.panels import panel_width

LONG_CHAIN = 2048  # tiles of a chunk whose products may be added one by one in float32
CHAIN = 512  # tiles, or the next whole sample, added before their sum joins the others, if there are more
UNIT_TILES = 32  # tiles to compute together, if there are as many
CHANNELS_TOGETHER = 32  # whose last products are computed and transformed back while they are in the cache
TO_INPUT, TO_KERNEL = 1, 2  # flags: which gradients this method computes for a sample
CLOSES = 4  # flag: the spectrum is transformed back at the end
HAS_SPECTRUM, HAS_SUMS = 0, 1  # places in `state`: whether they hold anything yet


def add_winograd_gradients(x, dy, kernel, sizes, dkernel=None, dx=None):
    """Add the stages that write dkernel and dx, or whichever of them is wanted.

    Args:
        kernel: may be None if dx is None.
        sizes: the FIELDS of the convolution.
    """
    graph, itemsize = graph_of(x, dy, dx), dy.itemsize
    taps, _, c, f = dkernel.shape if kernel is None else kernel.shape
    width, outputs = panel_width(dy.dtype), TILE + 1 - taps
    filters = -(-f // width) * width
    tiles = -(-sizes["oh"] // outputs) * -(-sizes["ow"] // outputs)
    together = max(1, -(-UNIT_TILES // max(1, tiles)))
    # Larger blocks than in the forward pass, because each reads and writes the whole spectrum.
    block_tiles = tiles_a_block(together * tiles, c + filters, itemsize, 4 * CACHE_BYTES)
    distances = [odd_lines(block_tiles * numbers, itemsize) for numbers in (c, filters, width)]
    last = odd_lines(CHANNELS_TOGETHER * width, itemsize)
    to_kernel, to_input = dkernel is not None, dx is not None
    direct = copies(sizes, dy.dtype)
    places = [direct["scratch"]]
    for numbers in (POINTS * distances[0] * to_kernel, POINTS * distances[1], POINTS * distances[2] * to_input,
                    max(width, filters), taps * taps * width, POINTS * last * to_kernel):
        places.append(-(-(places[-1] + numbers * itemsize) // LINE_BYTES) * LINE_BYTES)
    sums = KernelSums()
    spectrum = state = weights = flags = done = None
    if to_kernel:
        sums = kernel_sums(graph, sizes, taps * c, f, tiles, CHAIN, LONG_CHAIN)
        spectrum, state = graph.thread_local((POINTS, c, filters)), graph.thread_local((2,), np.int64)
    if to_input:
        weights, flags = transformed_weights(graph, kernel, to_input=True), bounded_flags(graph, kernel)
        done = graph.work((dy.shape[0],), np.int64)
    direct["scratch"] = places.pop()
    add_kernel_stage(
        graph, _winograd_gradients, **sizes, **sums._asdict(), **direct, x=x, dy=dy, weights=weights, dx=dx,
        flags=flags, flag_count=flags.shape[0] if to_input else 0, done=done, spectrum=spectrum, state=state,
        transform=transform_address(dy.dtype), block_tiles=block_tiles,
        v_distance=distances[0], w_distance=distances[1], m_distance=distances[2], padded=filters,
        v=places[0], points=places[1], m=places[2], zeros=places[3], part=places[4], last=places[5], last_distance=last,
        chain=CHAIN, together=together,
        work=2.0 * sizes["oh"] * sizes["ow"] * taps * taps * c * f * (to_kernel + to_input),
    )
    if to_kernel:
        add_kernel_chunks(graph, sums, dkernel, sizes)
    if to_input:
        add_direct_input_gradient(dy, kernel, dx, sizes, done)


# The stage.


@stage(reads=READS, writes=WRITES, adds=ADDS, sizes=SIZES)
def _winograd_gradients(r, run, first, last):
    to_kernel = r.sums != NONE
    state = array_as(run, r.state, (2,), np.int64)
    if to_kernel and first == word(run, BEGIN):
        state[HAS_SPECTRUM] = state[HAS_SUMS] = 0
        if is_long(r, run):
            clear(array_as(run, r.exact, (r.numbers,), np.float64))
    outputs = TILE + 1 - r.height
    tiles = (r.oh + outputs - 1) // outputs * ((r.ow + outputs - 1) // outputs)  # of a sample
    while first < last:
        stop = chain_end(r, run, first, last) if to_kernel else last
        way, end = _way(r, run, first), first + 1
        while end < stop and _way(r, run, end) == way:
            end += 1
        if way & TO_INPUT:
            clear(array(run, r.dx, (end, r.h * r.w * r.channels))[first:end].reshape(-1))
        # If a single sample has many tiles, the spectrum is moved partway through it.
        count, ends = (end - first) * tiles, is_long(r, run) and (end - word(run, BEGIN)) % r.every == 0
        some, is_cut = (r.chain, is_long(r, run)) if tiles > r.chain else (count, False)
        for tile in range(0, count if way else 0, some):
            closes = is_cut or ((ends or end == word(run, END)) and tile + some >= count)
            _take_back(r, run, first, tile, min(count, tile + some), way | (CLOSES if closes else 0))
            if to_kernel and is_cut:
                _move_spectrum(r, run, state, False)
        if to_kernel and way & TO_KERNEL == 0:
            _have_sums(r, run, state)
            add_images(r, run, first, end, 1, sums_of_chunk(r, run).ctypes.data)
        if r.dx != NONE:
            done = array_as(run, r.done, (end,), np.int64)
            for i in range(first, end):
                done[i] = way & TO_INPUT
        first = end
        if to_kernel and ends:
            _move_spectrum(r, run, state, False)
    if to_kernel and last == word(run, END):
        _have_sums(r, run, state)
        _move_spectrum(r, run, state, True)


@jit
def _way(r, run, i):
    """Return which gradients this method computes for a sample, as flags."""
    if not is_bounded(array(run, r.dy, (i + 1, r.oh * r.ow * r.filters))[i]):
        return 0
    way = TO_INPUT if r.dx != NONE and are_bounded(array_as(run, r.flags, (r.flag_count,), np.int64)) else 0
    if r.sums != NONE and is_bounded(array(run, r.x, (i + 1, r.h * r.w * r.channels))[i]):
        way |= TO_KERNEL
    return way


@jit
def _have_sums(r, run, state):
    """Clear the sums of the chunk, unless they already hold something."""
    if not state[HAS_SUMS]:
        clear(sums_of_chunk(r, run))
        state[HAS_SUMS] = 1


@jit
def _move_spectrum(r, run, state, at_end):
    """Add the spectrum to the sums of the chunk, and these to the float64 sums, if there are any."""
    if state[HAS_SPECTRUM]:
        _close_spectrum(r, run, 0, array(run, r.dy, (0,)).itemsize)
    if is_long(r, run) and state[HAS_SUMS]:
        move_sums(r, run, at_end)
        state[HAS_SUMS] = 0


@jit
def _close_spectrum(r, run, rows, itemsize):
    """Add the spectrum and the products of a block, or of no rows, to the sums, transformed back."""
    f, c, padded, lanes, squared = r.filters, r.channels, r.padded, VECTOR_BYTES // itemsize, r.height * r.height
    sums, state = sums_of_chunk(r, run), array_as(run, r.state, (2,), np.int64)
    zeros, part = scratch(run, r.zeros, (2 * lanes,)), scratch(run, r.part, (squared * 2 * lanes,))
    clear(zeros)
    memory, is_empty, adds = word(run, SCRATCH), state[HAS_SPECTRUM] == 0, state[HAS_SUMS] != 0
    for begin in range(0, c, CHANNELS_TOGETHER):
        count = min(CHANNELS_TOGETHER, c - begin)
        for column in range(0, padded, 2 * lanes):
            vectors = 1 if f - column <= lanes else 2
            for point in range(POINTS):
                s = word(run, r.spectrum) + ((point * c + begin) * padded + column) * itemsize
                call_block(r.block, count, vectors, memory + r.last + point * r.last_distance * itemsize, 2 * lanes,
                           zeros.ctypes.data if is_empty else s, 0 if is_empty else padded,
                           memory + r.v + (point * r.v_distance + begin) * itemsize, 1, 0, c,
                           memory + r.points + (point * r.w_distance + column) * itemsize, 0, padded, 1, rows)
            for k in range(count):
                # Whole vectors; the last may have unused columns.
                place, width = (begin + k) * padded + column, vectors * lanes
                call_transform(r.transform, -r.height, width,
                               part.ctypes.data if adds else sums.ctypes.data + place * itemsize, r.height, r.height,
                               width if adds else c * padded, 0, 0, memory + r.last + k * 2 * lanes * itemsize,
                               r.last_distance, zeros.ctypes.data)
                for tap in range(squared if adds else 0):
                    for j in range(width):
                        sums[tap * c * padded + place + j] += part[tap * width + j]
    state[HAS_SPECTRUM], state[HAS_SUMS] = 0, 1


@jit
def _take_back(r, run, sample, first, last, way):
    """Backpropagate tiles of dy, counted from `sample` on, from `first` to before `last`: to the kernel, x, or both."""
    itemsize = array(run, r.dy, (0,)).itemsize
    outputs, f, c = TILE + 1 - r.height, r.filters, r.channels
    across = (r.ow + outputs - 1) // outputs
    tiles = (r.oh + outputs - 1) // outputs * across
    memory = word(run, SCRATCH)
    for begin in range(first, last, r.block_tiles):
        rows = min(r.block_tiles, last - begin)
        for t in range(rows):
            n, tile = sample + (begin + t) // tiles, (begin + t) % tiles
            top, left = tile // across * outputs, tile % across * outputs
            if way & TO_KERNEL:
                call_transform(r.transform, TILE, c, word(run, r.x) + n * r.h * r.w * c * itemsize, r.h, r.w, c,
                               top - r.top, left - r.left, memory + r.v + t * c * itemsize, r.v_distance, 0)
            call_transform(r.transform, outputs, f, word(run, r.dy) + n * r.oh * r.ow * f * itemsize, r.oh, r.ow, f,
                           top, left, memory + r.points + t * r.padded * itemsize, r.w_distance, 0)
        if way & TO_KERNEL and way & CLOSES and begin + rows == last:
            _close_spectrum(r, run, rows, itemsize)
        elif way & TO_KERNEL:
            _add_products(r, run, rows, itemsize)
        if way & TO_INPUT:
            _add_to_input(r, run, sample, begin, rows, itemsize)


@jit
def _add_products(r, run, rows, itemsize):
    """Add to the spectrum the products of a block's tiles of x and dy."""
    f, c, padded, width = r.filters, r.channels, r.padded, 2 * VECTOR_BYTES // itemsize
    zeros, state = scratch(run, r.zeros, (padded,)), array_as(run, r.state, (2,), np.int64)
    clear(zeros)
    memory, begins = word(run, SCRATCH), state[HAS_SPECTRUM] == 0
    state[HAS_SPECTRUM] = 1
    for point in range(POINTS):
        for column in range(0, padded, width):
            s = word(run, r.spectrum) + (point * c * padded + column) * itemsize
            call_block(r.block, c, 1 if f - column <= width // 2 else 2, s, padded,
                       zeros.ctypes.data if begins else s, 0 if begins else padded,
                       memory + r.v + point * r.v_distance * itemsize, 1, 0, c,
                       memory + r.points + (point * r.w_distance + column) * itemsize, 0, padded, 1, rows)


@jit
def _add_to_input(r, run, sample, begin, rows, itemsize):
    """Multiply the tiles of a block by the weights, and add the result to dx; `begin` is the first tile."""
    f, c, outputs, width = r.filters, r.channels, TILE + 1 - r.height, 2 * VECTOR_BYTES // itemsize
    across = (r.ow + outputs - 1) // outputs
    tiles, panels = (r.oh + outputs - 1) // outputs * across, (c + width - 1) // width
    zeros, memory = scratch(run, r.zeros, (width,)), word(run, SCRATCH)
    clear(zeros)
    for panel in range(panels):
        column, columns = panel_columns(panel, c, width)
        for point in range(POINTS):
            call_block(r.block, rows, 1 if columns <= width // 2 else 2,
                       memory + r.m + point * r.m_distance * itemsize, width, zeros.ctypes.data, 0,
                       memory + r.points + point * r.w_distance * itemsize, r.padded, 0, 1,
                       word(run, r.weights) + (point * panels + panel) * f * width * itemsize, 0, width, 1, f)
        for t in range(rows):
            n, tile = sample + (begin + t) // tiles, (begin + t) % tiles
            top, left = tile // across * outputs - r.top, tile % across * outputs - r.left
            call_transform(r.transform, -TILE, columns, word(run, r.dx) + (n * r.h * r.w * c + column) * itemsize,
                           r.h, r.w, c, top, left, memory + r.m + t * width * itemsize, r.m_distance,
                           panel * width - column)
