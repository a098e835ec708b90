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

**In two dimensions** the same is done along the columns and then along the rows of a tile: y = A [(V g V^T) * (B d B^T)] A^T.
And since the products are summed over channels, each of the numbers of a tile is a matrix product of its own, of
(tiles, C) @ (C, F). These go to the micro-kernel:

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
points, in `winograd_transforms.py`; the derivation yields both gradients as well. For that of the input it is the same
convolution, of dy with the turned kernel. For that of the kernel:

    dkernel = A_K [sum over tiles of (B d B^T) * (V_m dy V_m^T)] A_K^T        S[p] = V[p]^T @ W[p], (36, C, F)

**Rounding** is relative to the largest number of a *tile*, not to each output: the pixels of a tile are added and subtracted before they
are parted again. Where a direct convolution is wrong by 3e-7 of the largest output, this one is by 1e-6 to 3e-6, which
training doesn't notice. But one infinite pixel makes its whole tile NaN, and one pixel of 1e30 leaves nothing of its
neighbours. `moderate` tells the images where that could happen, for which the direct way is taken instead.

**The way through the data.** The tiles of all images are one sequence, and go in blocks through all three steps, so
that V and M (see `_tiles_a_block`) stay in the second-level cache between them. U is read from front to back once a block. M is
made for one panel of filters at a time. The 36 matrices in V lie an odd number of cache lines apart: at a power of two
the 36 numbers of a tile would all fall into the same few places of the first-level cache and drive each other out.
A block is a multiple of the rows of the micro-kernel's tile, except for the last. Each row of it is computed alone, so
the bits of an image don't depend on which images are computed with it.

Only stride 1, no dilation, no groups. Shapes as in `conv2d.py`.
"""

import numpy as np

from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.im2col import NO_PADS, output_shape
from cnnlite.kernels.matmul import padded_columns, panel_width
from cnnlite.kernels.microkernel import ROWS, VECTOR_BYTES, block_address, call_block, lanes
from cnnlite.kernels.winograd_transforms import TAPS, TILE, call_transform, transform_address

POINTS = TILE * TILE
CACHE_BYTES = 1 << 19  # what V and M of a block may take: half of a second-level cache of 1 MB
LINE_BYTES = 64


@compiled
def _tiles_a_block(channels, others, itemsize):
    """Return how many tiles fit into the cache: V takes `channels` numbers for each point, M or W `others`."""
    fitting = CACHE_BYTES // (POINTS * (channels + others) * itemsize)
    return max(2, min(8, fitting // ROWS)) * ROWS


@compiled
def _distance(numbers, itemsize):
    """Return the distance of matrices of that many numbers, an odd number of cache lines."""
    lines = (numbers * itemsize + LINE_BYTES - 1) // LINE_BYTES
    return (lines | 1) * LINE_BYTES // itemsize


@compiled
def moderate(x):
    """Return whether all numbers of x (C-contiguous) are finite and less than 2^40 in size.

    Then no sum in a tile can overflow. What a large pixel costs its neighbours is bounded by that only as the head of this
    file says: relative to the largest of them.
    """
    outside = 0
    flat = x.reshape(-1)
    for i in range(flat.size):
        outside |= not abs(flat[i]) < 1099511627776.0  # "not <", because NaN must count
    return outside == 0


def winograd_weights(kernel, turned=False, out=None):
    """Return U (36, panels, C, two vectors), the transformed kernel (K, K, C, F) in panels as of `pack_panels`.

    turned: instead for the gradient of the input, (36, panels, F, two vectors): the kernel turned by 180 degrees, with
        C and F exchanged.
    """
    taps, _, c, f = kernel.shape
    reduced, filters = (f, c) if turned else (c, f)
    width = panel_width(kernel.dtype)
    if out is None:
        out = np.empty((POINTS, -(-filters // width), reduced, width), kernel.dtype)
    _winograd_weights(transform_address(kernel.dtype), kernel, turned, out)
    return out


@compiled
def _winograd_weights(transform, kernel, turned, out):
    taps = kernel.shape[0]
    _, panels, reduced, width = out.shape
    filters = kernel.shape[2] if turned else kernel.shape[3]
    itemsize = kernel.itemsize
    part = np.empty((taps * taps, reduced, width), kernel.dtype)  # the taps of a panel
    for panel in range(panels):
        columns = min(width, filters - panel * width)
        for tap in range(taps * taps):
            # Turned by 180 degrees, the taps come in reverse order.
            source = kernel[(taps * taps - 1 - tap) // taps, (taps * taps - 1 - tap) % taps] if turned \
                else kernel[tap // taps, tap % taps]
            for r in range(reduced):
                target = part[tap, r]
                if turned:
                    for j in range(columns):
                        target[j] = source[panel * width + j, r]
                else:
                    for j in range(columns):
                        target[j] = source[r, panel * width + j]
                for j in range(columns, width):
                    target[j] = 0
        # All rows of the panel lie side by side, before and after: to the transform they are one row of channels.
        numbers = reduced * width
        call_transform(transform, taps, itemsize, part.ctypes.data, taps * numbers, numbers,
                       out.ctypes.data + panel * numbers * itemsize, TILE * panels * numbers, panels * numbers,
                       0, numbers)


@compiled
def _copy_tile(image, top, left, size, out):
    """Copy size x size pixels to out (size * size, at least C), with zeros where they stick out of the image."""
    h, w, channels = image.shape
    for i in range(size):
        for j in range(size):
            target = out[i * size + j]
            if 0 <= top + i < h and 0 <= left + j < w:
                source = image[top + i, left + j]
                for c in range(channels):
                    target[c] = source[c]
            else:
                for c in range(channels):
                    target[c] = 0


@compiled
def _read_tile(transform, kind, size, image, top, left, scratch, target, target_row, target_column):
    """Transform a tile of an image; one that sticks out, or has less than a vector of channels, from `scratch`."""
    h, w, c = image.shape
    itemsize = image.itemsize
    padded = scratch.shape[1]
    if padded == c and 0 <= top and top + size <= h and 0 <= left and left + size <= w:
        call_transform(transform, kind, itemsize, image.ctypes.data + (top * w + left) * c * itemsize, w * c, c,
                       target, target_row, target_column, 0, c)
    else:
        _copy_tile(image, top, left, size, scratch)
        call_transform(transform, kind, itemsize, scratch.ctypes.data, size * padded, padded,
                       target, target_row, target_column, 0, padded)


@compiled
def _write_tile(transform, size, source, source_row, source_column, start, image, top, left, column, columns, scratch):
    """Make size x size pixels of some columns of the image; those that stick out of it are dropped."""
    h, w, f = image.shape
    itemsize = image.itemsize
    width = scratch.shape[1]
    if columns * itemsize >= VECTOR_BYTES and top + size <= h and left + size <= w:
        call_transform(transform, -size, itemsize, source, source_row, source_column,
                       image.ctypes.data + ((top * w + left) * f + column) * itemsize, w * f, f, start, columns)
        return
    call_transform(transform, -size, itemsize, source, source_row, source_column,
                   scratch.ctypes.data, size * width, width, start, width)
    for i in range(min(size, h - top)):
        for j in range(min(size, w - left)):
            target, pixel = image[top + i, left + j], scratch[i * size + j]
            for k in range(columns):
                target[column + k] = pixel[k]


@compiled
def winograd_images(block, transform, x, first, last, weights, start, taps, before, y):
    """y[i] = the convolution of x[first + i], for the images first <= n < last.

    Args:
        weights: as of `winograd_weights`.
        start: the bias, or zeros, for whole panels, as of `padded_columns`.
        before: rows of zeros above and columns of zeros to the left of an image.
        y: (last - first, OH, OW, F); how many zeros come below and to the right follows from its size.
    """
    c = x.shape[3]
    _, oh, ow, f = y.shape
    itemsize = y.itemsize
    panels, width = weights.shape[1], weights.shape[3]
    outputs = TILE + 1 - taps
    down, across = (oh + outputs - 1) // outputs, (ow + outputs - 1) // outputs
    tiles = (last - first) * down * across
    padded = max(c, VECTOR_BYTES // itemsize)
    block_tiles = min(tiles, _tiles_a_block(padded, width, itemsize))
    v_distance, m_distance = _distance(block_tiles * padded, itemsize), _distance(block_tiles * width, itemsize)
    v, m = np.empty(POINTS * v_distance, y.dtype), np.empty(POINTS * m_distance, y.dtype)
    tile_in, tile_out = np.zeros((POINTS, padded), y.dtype), np.empty((outputs * outputs, width), y.dtype)
    zeros = np.zeros(width, y.dtype)
    for begin in range(0, tiles, block_tiles):
        rows = min(block_tiles, tiles - begin)
        for t in range(rows):
            n, place = (begin + t) // (down * across), (begin + t) % (down * across)
            _read_tile(transform, TILE, TILE, x[first + n], place // across * outputs - before[0],
                       place % across * outputs - before[1], tile_in,
                       v.ctypes.data + t * padded * itemsize, TILE * v_distance, v_distance)
        for panel in range(panels):
            columns = min(width, f - panel * width)
            vectors = 1 if columns * itemsize <= VECTOR_BYTES else 2
            for point in range(POINTS):
                call_block(block, rows, vectors, m.ctypes.data + point * m_distance * itemsize, width,
                           zeros.ctypes.data, 0, v.ctypes.data + point * v_distance * itemsize, padded, 0, 1,
                           weights.ctypes.data + (point * panels + panel) * c * width * itemsize, 0, width, 1, c)
            for t in range(rows):
                n, place = (begin + t) // (down * across), (begin + t) % (down * across)
                _write_tile(transform, outputs, m.ctypes.data + t * width * itemsize, TILE * m_distance, m_distance,
                            start.ctypes.data + panel * width * itemsize, y[n], place // across * outputs,
                            place % across * outputs, panel * width, columns, tile_out)


@compiled
def winograd_kernel_gradient(block, transform, x, x_first, dy, dy_first, images, taps, before, spectrum):
    """Add the products of some images to `spectrum` (36, C, F up to whole panels): V^T W at each point.

    Image i is x[x_first + i] and dy[dy_first + i]. The spectrum is read and written once a block of tiles:
    call it with several images at a time where an image has few tiles.
    """
    c, f = x.shape[3], dy.shape[3]
    _, oh, ow, _ = dy.shape
    itemsize = dy.itemsize
    filters = spectrum.shape[2]
    width = 2 * VECTOR_BYTES // itemsize
    outputs = TILE + 1 - taps
    down, across = (oh + outputs - 1) // outputs, (ow + outputs - 1) // outputs
    tiles = images * down * across
    padded, padded_filters = max(c, VECTOR_BYTES // itemsize), max(f, VECTOR_BYTES // itemsize)
    block_tiles = min(tiles, _tiles_a_block(padded, filters, itemsize))
    v_distance, w_distance = _distance(block_tiles * padded, itemsize), _distance(block_tiles * filters, itemsize)
    v, w = np.empty(POINTS * v_distance, dy.dtype), np.zeros(POINTS * w_distance, dy.dtype)
    tile_in = np.zeros((POINTS, padded), dy.dtype)
    tile_out = np.zeros((outputs * outputs, padded_filters), dy.dtype)
    for begin in range(0, tiles, block_tiles):
        rows = min(block_tiles, tiles - begin)
        for t in range(rows):
            n, place = (begin + t) // (down * across), (begin + t) % (down * across)
            top, left = place // across * outputs, place % across * outputs
            _read_tile(transform, TILE, TILE, x[x_first + n], top - before[0], left - before[1], tile_in,
                       v.ctypes.data + t * padded * itemsize, TILE * v_distance, v_distance)
            _read_tile(transform, outputs, outputs, dy[dy_first + n], top, left, tile_out,
                       w.ctypes.data + t * filters * itemsize, TILE * w_distance, w_distance)
        for point in range(POINTS):
            for panel in range(filters // width):
                column = panel * width
                vectors = 1 if (f - column) * itemsize <= VECTOR_BYTES else 2
                s = spectrum.ctypes.data + (point * c * filters + column) * itemsize
                call_block(block, c, vectors, s, filters, s, filters,
                           v.ctypes.data + point * v_distance * itemsize, 1, 0, padded,
                           w.ctypes.data + (point * w_distance + column) * itemsize, 0, filters, 1, rows)


@compiled
def winograd_kernel_gradient_end(transform, spectrum, taps, out):
    """out (K, K, C, F) = the gradient of the kernel, from the sum of the spectra of all images."""
    c, f = out.shape[2], out.shape[3]
    filters = spectrum.shape[2]
    itemsize = out.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    zeros = np.zeros(filters, out.dtype)
    scratch = np.empty((taps * taps, width), out.dtype)
    whole = out.reshape(taps, taps, c * f)
    for channel in range(c):
        for column in range(0, f, width):
            _write_tile(transform, taps, spectrum.ctypes.data + (channel * filters + column) * itemsize,
                        TILE * c * filters, c * filters, zeros.ctypes.data, whole, 0, 0,
                        channel * f + column, min(width, f - column), scratch)
