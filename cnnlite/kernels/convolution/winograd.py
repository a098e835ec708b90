"""Winograd's convolution: a quarter of the multiplications for a 3 x 3 kernel.

**The idea, in one dimension.** Two outputs of a kernel of three taps take six multiplications,

    y0 = d0 g0 + d1 g1 + d2 g2
    y1 = d1 g0 + d2 g1 + d3 g2

or four, if sums of the d are multiplied by sums of the g:

    m1 = (d0 - d2) g0                        m2 = (d1 + d2) (g0 + g1 + g2) / 2
    m4 = (d1 - d3) g2                        m3 = (d2 - d1) (g0 - g1 + g2) / 2

    y0 = m1 + m2 + m3                        y1 = m2 - m3 - m4

The sums of g are computed once for all pixels and the sums of d once for all filters, and m is summed over the channels
before y is computed from it. So with many channels and filters only the four products count:

    y = A [(V g) * (B d)]                    V (4, 3), B (4, 4), A (2, 4) are constants, * is element-wise

**In two dimensions** the same is done along the columns and then along the rows of a tile,
y = A [(V g V^T) * (B d B^T)] A^T. And since the products are summed over channels, each of the 36 elements of a 6 x 6
tile is a matrix product of its own, (tiles, C) @ (C, F), which the micro-kernel computes:

    x (N, H, W, C)   -- cut into tiles, B d B^T -->   V (36, tiles, C)     overlapping tiles of 6 x 6 pixels
    kernel (K, K, C, F)     -- V g V^T -->            U (36, C, F)
                                                      M[p] = V[p] @ U[p], (36, tiles, F)
    M                -- A m A^T, + bias -->           y (N, OH, OW, F)     tiles of m x m pixels, m = 7 - K

**Why 6 x 6.** A tile of t x t pixels takes t^2 products, whatever the kernel. Directly, its m x m outputs take m^2 K^2:

    tile                        4 x 4         6 x 6         8 x 8
    products per output, K=3    4    (of 9)   2.25          1.78
                         K=5    16   (of 25)  9             4
    rounding, float32           3e-7          1 to 3e-6     1e-5 and more        relative to the largest output

Also, 36 vectors are about what a processor holds in registers, and larger tiles extend further beyond small images.
Since B doesn't depend on K, the same code handles 2 x 2 to 5 x 5. The constants are derived, for six points, in
`winograd_transforms.py`.

**Both gradients** use the same tiles. Let D be the diagonal matrix with A = V_m^T D. A tile of dy is
transformed once, to W, for both (but see `winograd_kernel_gradient.py` for kernels with many channels):

    dy (N, OH, OW, F)       -- cut into tiles, V_m dy V_m^T -->     W (36, tiles, F)     tiles of m x m pixels
    to the kernel                                                   S[p] = V[p]^T @ W[p], (36, C, F), of all tiles
    S                       -- A_K s A_K^T -->                      dkernel (K, K, C, F)
    to the input                                                    P[p] = W[p] @ (D U D)[p]^T, (36, tiles, C)
    P                       -- B^T p B, added up -->                dx (N, H, W, C)      overlapping tiles of 6 x 6

The input gradient is the transpose of the forward pass, step by step: what was read from overlapping tiles is added to
them. As a convolution of dy with the flipped kernel it would need tiles of its own, and more of them without padding,
since dx is larger than y: 16 tiles instead of 9 for 13 x 13 pixels and K = 3.

**Rounding** errors are relative to the largest value of a *tile*, not to each output: the pixels of a tile are added
and subtracted before they are separated again. Where a direct convolution is off by 3e-7 of the largest output, this
one is off by 1e-6 to 3e-6, which training doesn't notice. But one infinite pixel makes its whole tile NaN, and one
pixel of 1e30 wipes out its neighbours. So rows of tiles that read a value that is not `bounded` are computed directly,
and if a weight is not, all of them are.

**Memory access.** The tiles of several images form one sequence, which is cut into blocks. Each block goes through all
three steps, so that its V and M stay in the second-level cache in between. M is computed for one panel of filters at a
time. U is read sequentially, once per block. The 36 matrices in V are an odd number of cache lines apart: at a power of
two, the 36 elements of a tile would all fall into the same few sets of the first-level cache and evict each other. In
every block but the last, the number of tiles is a multiple of the rows of the micro-kernel's tile. Each row is computed
independently, and tiles of dx are added in order, so the bits of an image don't depend on which images are computed
with it.

Only for stride 1, no dilation, no groups, and at least 16 channels and filters: `uses_winograd` decides whether a case
qualifies. Shapes as in `conv2d.py`.
"""

import functools
import math

import numpy as np
from numba.extending import register_jitable

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, HALO, NONE, array, array_as, array_at, band_rows, call_stage, scratch, stage
from cnnlite.engine.target import ROWS, VECTOR_BYTES
from cnnlite.kernels.bounded import are_bounded, bounded_flags, is_bounded, rows_read
from cnnlite.kernels.convolution.direct import (
    LINE_BYTES,
    RECORD,
    aligned,
    direct_arguments,
    direct_bytes,
    panel_columns,
)
from cnnlite.kernels.convolution.winograd_transforms import TAPS, TILE, call_transform, constants, transform_address
from cnnlite.kernels.geometry import window_in
from cnnlite.kernels.product.microkernel import call_block
from cnnlite.kernels.product.panels import panel_width
from cnnlite.kernels.rows import copy_rows, transpose_panels

POINTS = TILE * TILE
CACHE_BYTES = 1 << 19  # what V and M of a block may take: half of a second-level cache of 1 MB
LEAST_CHANNELS = 16  # the longest vector; and with fewer, most of the time would go to transforms
TRANSFORM_COST = 200  # instructions per tile and vector of channels
# Maximum number of transformed weights per tile of an image. For K = 3 they are four times the kernel. For 512 channels
# and filters, fetching them from memory takes longer than convolving the 7 x 7 pixels of an image directly.
MOST_WEIGHTS = 1 << 20
WEIGHT_ROWS = 16  # rows of a panel of weights that a thread transforms at a time
UNIT_TILES = 32  # tiles to convolve together, if there are as many


def uses_winograd(sizes):
    """Return whether a convolution, given its FIELDS, is computed by Winograd's method: if it can be and is faster."""
    ones = "stride_h", "stride_w", "dilation_h", "dilation_w", "groups"
    is_plain = sizes["height"] == sizes["width"] and all(sizes[name] == 1 for name in ones)
    return is_plain and winograd_is_faster(sizes["height"], sizes["h"], sizes["top"], (sizes["oh"], sizes["ow"]),
                                           sizes["channels"], sizes["filters"])


def winograd_is_faster(taps, height, before, output, channels, filters):
    """Return whether a convolution with stride 1 is faster this way than directly.

    Counts the vector instructions of both. For each vector of filters, the direct method takes C multiply-adds per tap
    and pixel, without the rows of taps on padding; this one takes 36 C per tile, plus about 200 instructions for each
    vector of channels that is transformed. Of 300 cases (16 to 128 channels and filters, 2 to 5 taps, 1 to 22 pixels)
    it accepted 220. For these, this method was 1.06 to 4.8 times as fast, with a median of 2.0. The input gradient was
    0.7 to 4.0 times as fast, with a median of 1.7; the few cases below 0.9 all had more padding than "same". The answer
    is the same for all batch sizes, and so are the bits of an image.

    Args:
        height: of the input; before: the rows of zeros above it; output: (OH, OW).
    """
    if not (taps in TAPS and channels >= LEAST_CHANNELS and filters >= LEAST_CHANNELS):
        return False
    oh, ow = output
    outputs = TILE + 1 - taps
    rows = sum(max(0, min(taps, height - top) - max(0, -top)) for top in range(-before, oh - before))
    direct = rows * taps * ow * channels * filters
    tiles = -(-oh // outputs) * -(-ow // outputs)
    if POINTS * channels * filters > MOST_WEIGHTS * tiles:
        return False
    mine = tiles * (POINTS * channels * filters + TRANSFORM_COST * (channels + filters))
    return direct > 1.2 * mine


def tiles_a_block(tiles, numbers, itemsize, cache):
    """Return how many tiles to put in a block, if each tile takes `numbers` elements per point."""
    fitting = cache // (POINTS * numbers * itemsize)
    return max(1, min(tiles, max(2, min(8, fitting // ROWS)) * ROWS))


@register_jitable
def odd_lines(numbers, itemsize):
    """Return the distance between matrices of `numbers` elements, an odd number of cache lines."""
    lines = (numbers * itemsize + LINE_BYTES - 1) // LINE_BYTES
    return (lines | 1) * LINE_BYTES // itemsize


def transformed_weights(graph, kernel, to_input=False):
    """Add a stage that transforms weights; return U (36, panels, C, two vectors), in panels as in `direct_panels`.

    Args:
        to_input: whether to return D U^T D (36, panels, F, two vectors) instead, for the input gradient.
    """
    taps, _, c, f = kernel.shape
    rows, columns, row_step, column_step = (f, c, 1, f) if to_input else (c, f, f, 1)
    pieces, width = -(-rows // WEIGHT_ROWS), panel_width(kernel.dtype)
    out = graph.work((POINTS, -(-columns // width), rows, width), kernel.dtype)
    graph.add(_transform_weights, units=out.shape[1] * pieces, kernel=kernel, out=out, taps=taps, rows=rows,
              columns=columns, row_step=row_step, column_step=column_step, panels=out.shape[1], pieces=pieces,
              factors=_factors(kernel.dtype) if to_input else None, transform=transform_address(kernel.dtype),
              work=10 * math.prod(out.shape), scratch=(taps * taps + 1) * WEIGHT_ROWS * 2 * VECTOR_BYTES)
    return out


@functools.cache
def _factors(dtype):
    diagonal = np.array(constants(), dtype)
    return np.outer(diagonal, diagonal).ravel()


@stage(reads="kernel factors", writes="out", sizes="taps rows columns row_step column_step panels pieces transform",
       footprint=BATCH)
def _transform_weights(r, run, first, last):
    """Transform some rows of a panel in each unit."""
    squared, tap_step = r.taps * r.taps, r.rows * r.columns
    kernel, out = array(run, r.kernel, (squared * tap_step,)), array(run, r.out, (0,))
    width = 2 * VECTOR_BYTES // out.itemsize
    distance = r.panels * r.rows * width
    out = array(run, r.out, (POINTS * distance,))
    for unit in range(first, last):
        panel, begin = unit // r.pieces, unit % r.pieces * WEIGHT_ROWS
        rows = min(r.rows - begin, WEIGHT_ROWS)
        column, columns = panel_columns(panel, r.columns, width)
        part = scratch(run, 0, (squared * rows * width,))
        if columns < width:
            part[:] = 0
        for tap in range(squared):
            place = tap * tap_step + begin * r.row_step + column * r.column_step
            source, target = kernel.ctypes.data + place * kernel.itemsize, tap * rows * width * kernel.itemsize
            if r.column_step == 1:
                copy_rows(kernel, source, r.row_step, rows, columns, part.ctypes.data + target, width)
            else:  # row_step is 1: they are transposed in registers, and what is written after the last row is scratch
                transpose_panels(kernel, source, r.column_step, columns, rows, part.ctypes.data + target)
        # The rows are contiguous, before and after: to the transform they are the channels of one pixel.
        numbers, place = rows * width, (panel * r.rows + begin) * width
        call_transform(r.transform, r.taps, numbers, part.ctypes.data, r.taps, r.taps, numbers, 0, 0,
                       out.ctypes.data + place * out.itemsize, distance, 0)
        if r.factors != NONE:
            factors = array(run, r.factors, (POINTS,))
            for point in range(POINTS):
                target, factor = out[place + point * distance : place + point * distance + numbers], factors[point]
                for i in range(target.size):
                    target[i] *= factor


def add_winograd(convolution):
    """Add the stage for a `conv2d.Convolution`."""
    graph, kernel, x, y = convolution.graph, convolution.kernel, convolution.x, convolution.y
    taps, _, c, _ = kernel.shape
    outputs = TILE + 1 - taps
    arguments, flags = direct_arguments(convolution), bounded_flags(graph, kernel)
    tiles = -(-y.shape[1] // outputs) * -(-y.shape[2] // outputs)
    width = panel_width(x.dtype)
    block = tiles_a_block(1 << 30, c + width, x.itemsize, CACHE_BYTES)
    arguments.update(special=transformed_weights(graph, kernel), flags=flags, flag_count=flags.shape[0],
                     transform=transform_address(x.dtype), tiles_a_block=block)
    own = sum(map(aligned, _own_bytes(block, c, width, x.itemsize)))
    graph.add(_by_tiles, together=-(-UNIT_TILES // tiles), grain=outputs, work=convolution.work,
              scratch=max(own, direct_bytes(arguments, y, min(outputs, y.shape[1]))), **arguments)


@register_jitable
def _own_bytes(tiles, c, width, itemsize):
    """Return the bytes of V, M, a row of zeros, and the positions of tiles."""
    v, m = POINTS * odd_lines(tiles * c, itemsize), POINTS * odd_lines(tiles * width, itemsize)
    return v * itemsize, m * itemsize, width * itemsize, tiles * 24


@stage(**RECORD, footprint=HALO)
def _by_tiles(r, run, first, last):
    """Compute runs of tile rows, numbered across the samples; the rows between the runs are computed directly."""
    outputs, window = TILE + 1 - r.height, window_in(r)
    top, bottom = band_rows(run, r.oh)
    begin, end = top // outputs, (bottom + outputs - 1) // outputs
    line, down = r.w * r.c, end - begin
    x = array(run, r.x, (last, r.h * line))
    weights, inputs = are_bounded(array_as(run, r.flags, (r.flag_count,), np.int64)), True
    low, high = rows_read(top, bottom, r.h, window)
    for i in range(first, last):
        inputs &= is_bounded(x[i, low * line : high * line])
    start, rows = 0, (last - first) * down
    for row in range(rows + 1):
        i, tile_row = first + row // max(down, 1), begin + row % max(down, 1)
        top, bottom = tile_row * outputs, min(r.oh, (tile_row + 1) * outputs)
        low, high = rows_read(top, bottom, r.h, window)
        if row < rows and weights and (inputs or is_bounded(x[i, low * line : high * line])):
            continue
        _convolve_tiles(r, run, first, begin, down, start, row)
        if row < rows:
            call_stage(r.by_pixels, r, run, i * r.oh + top, i * r.oh + bottom)
        start = row + 1


@jit
def _convolve_tiles(r, run, first, begin, down, start_row, end_row):
    """Compute some tile rows; each sample, from `first` on, has `down` of them, starting with row `begin`."""
    if start_row >= end_row:
        return
    h, w, c, oh, ow, f = r.h, r.w, r.c, r.oh, r.ow, r.filters
    outputs = TILE + 1 - r.height
    across = (ow + outputs - 1) // outputs
    count = (end_row - start_row) * across
    x, y, start = array(run, r.x, (0,)), array(run, r.y, (0,)), array(run, r.start, (0,))
    weights, itemsize = array(run, r.special, (0,)).ctypes.data, x.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    panels = (f + width - 1) // width
    block_tiles = min(count, r.tiles_a_block)
    v_distance, m_distance = odd_lines(block_tiles * c, itemsize), odd_lines(block_tiles * width, itemsize)
    v_bytes, m_bytes, zeros_bytes, _ = _own_bytes(block_tiles, c, width, itemsize)
    v, m = scratch(run, 0, (0,)).ctypes.data, scratch(run, aligned(v_bytes), (0,)).ctypes.data
    zeros = scratch(run, aligned(v_bytes) + aligned(m_bytes), (width,))
    tiles = array_at(zeros.ctypes.data + aligned(zeros_bytes), (block_tiles, 3), np.int64)
    for j in range(width):
        zeros[j] = 0
    n, row, column = first + start_row // down, begin + start_row % down, 0
    for block in range(0, count, block_tiles):
        rows = min(block_tiles, count - block)
        for t in range(rows):
            tiles[t, 0], tiles[t, 1], tiles[t, 2] = n, row * outputs, column * outputs
            call_transform(r.transform, TILE, c, x.ctypes.data + n * h * w * c * itemsize, h, w, c,
                           row * outputs - r.top, column * outputs - r.left, v + t * c * itemsize, v_distance, 0)
            column += 1
            if column == across:
                row, column = row + 1, 0
                if row == begin + down:
                    n, row = n + 1, begin
        for panel in range(panels):
            place, columns = panel_columns(panel, f, width)
            vectors = 1 if columns <= width // 2 else 2
            for point in range(POINTS):
                call_block(r.block, rows, vectors, m + point * m_distance * itemsize, width, zeros.ctypes.data, 0,
                           v + point * v_distance * itemsize, c, 0, 1,
                           weights + (point * panels + panel) * c * width * itemsize, 0, width, 1, c)
            for t in range(rows):
                image = y.ctypes.data + (tiles[t, 0] * oh * ow * f + place) * itemsize
                call_transform(r.transform, -outputs, columns, image, oh, ow, f, tiles[t, 1], tiles[t, 2],
                               m + t * width * itemsize, m_distance, start.ctypes.data + place * itemsize)
