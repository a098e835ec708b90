"""Winograd's convolution: four times fewer multiplications for a kernel of 3 x 3.

**The idea, in one dimension.** Two outputs of a kernel of three taps take six multiplications,

    y0 = d0 g0 + d1 g1 + d2 g2
    y1 = d1 g0 + d2 g1 + d3 g2

or four, if sums of the d are multiplied with sums of the g:

    m1 = (d0 - d2) g0                        m2 = (d1 + d2) (g0 + g1 + g2) / 2
    m4 = (d1 - d3) g2                        m3 = (d2 - d1) (g0 - g1 + g2) / 2

    y0 = m1 + m2 + m3                        y1 = m2 - m3 - m4

The sums of g are made once for all pixels and the sums of d once for all filters, and m is added up over the channels
before y is made of it. So for many channels and filters only the four products count:

    y = A [(V g) * (B d)]                    V (4, 3), B (4, 4), A (2, 4) are constants, * multiplies number by number

**In two dimensions** the same is done along the columns and then along the rows of a tile,
y = A [(V g V^T) * (B d B^T)] A^T. And since the products are summed over channels, each of the 36 numbers of a tile of
6 x 6 is a matrix product of its own, (tiles, C) @ (C, F), which the micro-kernel does:

    x (N, H, W, C)   -- cut into tiles, B d B^T -->   V (36, tiles, C)     overlapping tiles of 6 x 6 pixels
    kernel (K, K, C, F)     -- V g V^T -->            U (36, C, F)
                                                      M[p] = V[p] @ U[p], (36, tiles, F)
    M                -- A m A^T, + bias -->           y (N, OH, OW, F)     tiles of m x m pixels, m = 7 - K

**Why 6 x 6.** A tile of t x t pixels takes t^2 products, whatever the kernel. Directly its m x m outputs take m^2 K^2:

    tile                        4 x 4         6 x 6         8 x 8
    products per output, K=3    4    (of 9)   2.25          1.78
                         K=5    16   (of 25)  9             4
    rounding, float32           3e-7          1 to 3e-6     1e-5 and more        relative to the largest output

Besides, 36 vectors are about what a processor holds in registers, and larger tiles stick out further from small
images. That B doesn't depend on K makes 2 x 2 to 5 x 5 cases of one code. The constants are derived, for six
points, in `winograd_transforms.py`.

**Both gradients** have the same tiles. Let D be the diagonal matrix with A = V_m^T D. A tile of dy is
transformed once, to W, for both:

    dy (N, OH, OW, F)       -- cut into tiles, V_m dy V_m^T -->     W (36, tiles, F)     tiles of m x m pixels
    to the kernel                                                   S[p] = V[p]^T @ W[p], (36, C, F), of all tiles
    S                       -- A_K s A_K^T -->                      dkernel (K, K, C, F)
    to the input                                                    P[p] = W[p] @ (D U D)[p]^T, (36, tiles, C)
    P                       -- B^T p B, added up -->                dx (N, H, W, C)      overlapping tiles of 6 x 6

That of the input is the transpose of forward, step by step: what was read from tiles that overlap is added to
them. As a convolution of dy with the kernel turned round it would have tiles of its own, and more of them where there
is no padding: dx is larger than y, 16 tiles instead of 9 for 13 x 13 pixels and K = 3.

**Rounding** is relative to the largest number of a *tile*, not to each output: the pixels of a tile are added and
subtracted before they are parted again. Where a direct convolution is wrong by 3e-7 of the largest output, this
one is by 1e-6 to 3e-6, which training doesn't notice. But one infinite pixel makes its whole tile NaN, and one pixel
of 1e30 leaves nothing of its neighbours. `moderate` tells the images where that could happen, for which the direct way
is to be taken instead.

**The way through the data.** The tiles of all images are one sequence, which is cut into blocks; each goes through all
three steps, so that its V and M stay in the second-level cache between them. M is made for one panel of filters at
a time. U is read from front to back once a block. The 36 matrices in V lie an odd number of cache lines apart: at a
power of two the 36 numbers of a tile would all fall into the same few places of the first-level cache and drive each
other out. A block has a multiple of the rows of the micro-kernel's tile, if it isn't the last. Each row is computed
alone, and tiles of dx are added in their order, so the bits of an image don't depend on which images are computed
with it.

Only stride 1, no dilation, no groups, and not less than 16 channels and filters: `suits` says whether a case is one
of these. Shapes as in `conv2d.py`.
"""

import numpy as np

from cnnlite.engine.jit import kernel as compiled
from cnnlite.engine.target import ROWS
from cnnlite.kernels.im2col import output_shape
from cnnlite.kernels.matmul import padded_columns, panel_width
from cnnlite.kernels.microkernel import block_address, call_block
from cnnlite.kernels.threads import run
from cnnlite.kernels.winograd_transforms import TAPS, TILE, call_transform, transform_address

POINTS = TILE * TILE
CACHE_BYTES = 1 << 19  # what V and M of a block may take: half of a second-level cache of 1 MB
LINE_BYTES = 64
LEAST_CHANNELS = 16  # the longest vector; and with fewer, most of the time would go to transforms
TRANSFORM_COST = 200  # instructions for a tile of a vector of channels
WEIGHT_ROWS = 8  # rows of a panel of weights that a thread transforms at a time
SMALL_WEIGHTS = 1 << 15  # and numbers of weights that are transformed before other threads would have begun


def suits(taps, height, before, output, channels, filters):
    """Return whether a convolution with stride 1 is faster this way than directly.

    Counts vector instructions of both. For each vector of filters the direct way does C multiply-adds for each tap and
    pixel, without the rows of taps on padding; this one 36 C a tile, plus about 200 instructions for each vector of
    channels that is transformed. Of 300 cases (16 to 128 channels and filters, 2 to 5 taps, 1 to 22 pixels) it said
    yes to 220. There this way was faster by 1.06 to 4.8 times, the median 2.0. The gradient of the input was faster by
    0.7 to 4.0 times, the median 1.7; the few below 0.9 all had more padding than "same".
    The answer is the same for all sizes of a batch, and so are the bits of an image.

    Args:
        height: of the input; `before` the rows of zeros above it; output: (OH, OW).
    """
    if not (taps in TAPS and channels >= LEAST_CHANNELS and filters >= LEAST_CHANNELS):
        return False
    oh, ow = output
    outputs = TILE + 1 - taps
    rows = sum(max(0, min(taps, height - top) - max(0, -top)) for top in range(-before, oh - before))
    direct = rows * taps * ow * channels * filters
    tiles = -(-oh // outputs) * -(-ow // outputs)
    mine = tiles * (POINTS * channels * filters + TRANSFORM_COST * (channels + filters))
    return direct > 1.2 * mine


@compiled
def _tiles_a_block(tiles, numbers, itemsize, cache):
    """Return into blocks of how many tiles to cut them, if each tile takes so many numbers for each point."""
    fitting = cache // (POINTS * numbers * itemsize)
    return max(1, min(tiles, max(2, min(8, fitting // ROWS)) * ROWS))


@compiled
def _distance(numbers, itemsize):
    """Return the distance of matrices of that many numbers, an odd number of cache lines."""
    lines = (numbers * itemsize + LINE_BYTES - 1) // LINE_BYTES
    return (lines | 1) * LINE_BYTES // itemsize


@compiled
def moderate(x):
    """Return whether all numbers of x (C-contiguous) are finite and less than 2^40 in size.

    Then no sum in a tile can overflow. It doesn't say that small pixels keep their digits next to large ones: the
    error is relative to the largest of a tile, at most 3e-6 of it in float32.
    """
    outside = 0
    flat = x.reshape(-1)
    for i in range(flat.size):
        outside |= not abs(flat[i]) < 1099511627776.0  # "not <", because NaN must count
    return outside == 0


def winograd_weights(kernel, out=None):
    """Return U (36, panels, C, two vectors), the transformed kernel (K, K, C, F) in panels as of `pack_panels`."""
    reduced, filters = kernel.shape[2:]
    width = panel_width(kernel.dtype)
    if out is None:
        out = np.empty((POINTS, -(-filters // width), reduced, width), kernel.dtype)
    pieces = -(-reduced // WEIGHT_ROWS)
    arguments = (kernel, transform_address(kernel.dtype), pieces, out)
    run(_winograd_weights_task, out.shape[1] * pieces, arguments, alone=out.size < SMALL_WEIGHTS)
    return out


@compiled
def _winograd_weights_task(kernel, transform, pieces, out, unit):
    """Transform some rows, c or f, of one panel."""
    taps, _, c, f = kernel.shape
    _, panels, reduced, width = out.shape
    source = kernel.reshape(taps * taps, c, f)
    panel, first = unit // pieces, unit % pieces * WEIGHT_ROWS
    last = min(reduced, first + WEIGHT_ROWS)
    part = np.zeros((taps * taps, last - first, width), kernel.dtype)
    column, columns = _panel(panel, f, width)
    for tap in range(taps * taps):
        rows = source[tap]
        for r in range(first, last):
            target = part[tap, r - first]
            row = rows[r, column:]
            for j in range(columns):
                target[j] = row[j]
    # The rows lie side by side, before and after: to the transform they are the channels of one pixel.
    matrix = reduced * width
    _transform_rows(transform, taps, part, out, panel * matrix + first * width, panels * matrix)


@compiled
def _transform_rows(transform, taps, part, out, place, distance):
    # A function, as an array is freed after its last use, whoever has its address; an argument outlasts the call.
    numbers = part.shape[1] * part.shape[2]
    call_transform(transform, taps, numbers, part.ctypes.data, taps, taps, numbers, 0, 0,
                   out.ctypes.data + place * out.itemsize, distance, 0)


@compiled
def _panel(panel, filters, width):
    """Return the first filter of a panel and their number.

    The last panel begins earlier where it would have less than a vector of filters: what it shares with the one before
    is computed twice, and every vector that is written is whole.
    """
    column = panel * width
    if filters - column < width // 2:
        column = filters - width // 2
    return column, min(width, filters - column)


@compiled
def _tiles_of(images, oh, ow, outputs):
    """Return (tiles, 3): the image, and the first row and column of the outputs of each tile."""
    down, across = (oh + outputs - 1) // outputs, (ow + outputs - 1) // outputs
    tiles = np.empty((images * down * across, 3), np.int64)
    t = 0
    for n in range(images):
        for row in range(down):
            for column in range(across):
                tiles[t, 0], tiles[t, 1], tiles[t, 2] = n, row * outputs, column * outputs
                t += 1
    return tiles


@compiled
def winograd_images(block, transform, x, first, last, weights, start, taps, before, y):
    """y[i] = the convolution of x[first + i], for i < last - first.

    Args:
        weights: as of `winograd_weights`.
        start: the bias, or zeros, for whole panels, as of `padded_columns`.
        before: rows of zeros above and columns of zeros to the left of an image; a negative number cuts some off.
        y: (last - first or more, OH, OW, F); how many zeros come below and to the right follows from its size.
    """
    _, h, w, c = x.shape
    _, oh, ow, f = y.shape
    itemsize = y.itemsize
    panels, width = weights.shape[1], weights.shape[3]
    outputs = TILE + 1 - taps
    tiles = _tiles_of(last - first, oh, ow, outputs)
    block_tiles = _tiles_a_block(len(tiles), c + width, itemsize, CACHE_BYTES)
    v_distance, m_distance = _distance(block_tiles * c, itemsize), _distance(block_tiles * width, itemsize)
    v, m = np.empty(POINTS * v_distance, y.dtype), np.empty(POINTS * m_distance, y.dtype)
    zeros = np.zeros(width, y.dtype)
    for begin in range(0, len(tiles), block_tiles):
        rows = min(block_tiles, len(tiles) - begin)
        for t in range(rows):
            n, top, left = tiles[begin + t, 0], tiles[begin + t, 1], tiles[begin + t, 2]
            call_transform(transform, TILE, c, x.ctypes.data + (first + n) * h * w * c * itemsize, h, w, c,
                           top - before[0], left - before[1], v.ctypes.data + t * c * itemsize, v_distance, 0)
        for panel in range(panels):
            column, columns = _panel(panel, f, width)
            vectors = 1 if columns <= width // 2 else 2
            for point in range(POINTS):
                call_block(block, rows, vectors, m.ctypes.data + point * m_distance * itemsize, width,
                           zeros.ctypes.data, 0, v.ctypes.data + point * v_distance * itemsize, c, 0, 1,
                           weights.ctypes.data + (point * panels + panel) * c * width * itemsize, 0, width, 1, c)
            for t in range(rows):
                n, top, left = tiles[begin + t, 0], tiles[begin + t, 1], tiles[begin + t, 2]
                call_transform(transform, -outputs, columns,
                               y.ctypes.data + (n * oh * ow * f + column) * itemsize, oh, ow, f, top, left,
                               m.ctypes.data + t * width * itemsize, m_distance, start.ctypes.data + column * itemsize)


def winograd_conv2d(x, kernel, bias, pads, out=None, first=0):
    """`conv2d` of the images of x from `first` on, as many as `out` has, on one thread; for tests and experiments."""
    taps, _, _, f = kernel.shape
    if out is None:
        out = np.empty((len(x), *output_shape(x.shape, (taps, taps), (1, 1), pads, (1, 1)), f), x.dtype)
    winograd_images(block_address(x.dtype), transform_address(x.dtype), x, first, first + len(out),
                    winograd_weights(kernel), padded_columns(bias, f, x.dtype), taps, (pads[0][0], pads[1][0]), out)
    return out
