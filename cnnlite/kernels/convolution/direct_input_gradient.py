"""The input gradient by the direct method: what each pixel of dy contributes to its window.

Pixel (oh, ow) of dy saw the window of x that begins at (oh*s - top, ow*s - left), and adds to each of its elements

    product[ky, kx, c] = sum over f of  kernel[ky, kx, c, f] * dy[oh, ow, f]

dx is the sum of these overlapping windows. There are two ways to compute it:

1. By taps. For one kx, row i of a tile is pixel ow of dy, and is added to pixel ow*s + kx of dx. So each tile is a
   part of dx itself. The columns are the channels; with 1 or 3 of them, most of a vector of 16 is wasted.
2. By windows, where channels are few or don't fill vectors. The columns are all (ky, kx, c): the product of dy and
   the kernel is the gradient of the im2col matrix, with a row for each pixel of dy. The KH runs of KW * C elements of
   a row are added to the rows of an image with room for the padding ("col2im"), whose middle is dx:

        dy (OH * OW, F) @ kernel.T (F, KH * KW * C) = products          ┌──────────────┐  ky = 0
                                                      one row:          │ kx, c        │  ky = 1     added at the
                                                      ───── ───── ───── └──────────────┘  ky = 2     window's place

   A run is not added where another one has just been written, since the processor would stall: for one column of
   pixels and one ky, runs are added to different rows of the image.

   The second way is also taken where the kernel is much larger than an image: by taps, each row would fetch all of the
   kernel again. Then the product is a single matrix product for all samples (`matmul.py`).
"""

import math

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import NONE, array, array_as, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.convolution.im2col import col2im
from cnnlite.kernels.convolution.kernel_sums import clear
from cnnlite.kernels.geometry import FIELDS, in_one_row, meets_no_other
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.product.matmul import matmul, product_block
from cnnlite.kernels.product.microkernel import PIECE, block_address, call_block
from cnnlite.kernels.product.panels import pack_panels
from cnnlite.kernels.rows import add_runs

PRODUCTS = 1 << 17  # computed at a time by the second way, in whole rows of dy: they stay in the cache
LARGE_KERNEL, FEW_PIXELS = 1 << 20, 64  # bytes; pixels of dy
MOST_PRODUCTS = 9  # per element of dx
LONG_CHAIN = 4096  # products that may be added one by one in float32: splitting shorter sums would take a fifth longer
TOGETHER = 1 << 14  # elements of dy, rounded up to whole images, that are processed at a time


def add_direct_input_gradient(dy, kernel, dx, sizes, done=None):
    """Add the stages that write the gradient of the input to dx.

    Args:
        sizes: the FIELDS of the convolution.
        done: an int64 buffer (N,); samples whose entry isn't 0 are skipped.
    """
    graph, itemsize = graph_of(dy, dx), dy.itemsize
    kh, kw, channels, _ = kernel.shape
    groups, oh, ow = sizes["groups"], sizes["oh"], sizes["ow"]
    filters, width = sizes["filters"] // groups, 2 * VECTOR_BYTES // itemsize
    work = 2.0 * oh * ow * filters * groups * kh * kw * channels if done is None else 0  # usually all are done
    arguments = dict(dy=dy, dx=dx, done=done, block=block_address(dy.dtype), work=work, rare=done is not None,
                     together=max(1, -(-TOGETHER // max(1, oh * ow * filters * groups))))
    taps = kh * kw
    if done is None and has_large_kernel(kernel.shape, sizes, itemsize):
        cols = matmul(dy.reshape(-1, filters), kernel.reshape(-1, filters), transpose_b=True)
        col2im(cols, dx.shape, (kh, kw), *_geometry(sizes), dx)
        return
    if by_windows(kh, kw, channels, filters, width // 2):
        padded = -(-taps * channels // (width // 2)) * (width // 2)
        rows = max(1, min(oh, PRODUCTS // max(1, ow * padded)))
        products = width * itemsize
        image = products + rows * ow * padded * itemsize
        height = max((oh - 1) * sizes["stride_h"] + (kh - 1) * sizes["dilation_h"] + 1, sizes["top"] + sizes["h"])
        columns = max((ow - 1) * sizes["stride_w"] + (kw - 1) * sizes["dilation_w"] + 1, sizes["left"] + sizes["w"])
        panels = pack_panels(kernel, filters, taps * channels, 1, filters * groups, groups, filters, 1, 0, graph=graph)
        graph.add(_by_windows, **arguments, **sizes, panels=panels, rows=rows, padded=padded, products=products,
                  image=image, image_rows=height, image_columns=columns,
                  scratch=image + height * columns * channels * itemsize)
        return
    # In panels, with c and f swapped: column c of row (tap, f).
    panels = pack_panels(kernel, filters, channels, 1, filters * groups, groups, filters, kh * kw,
                         channels * filters * groups, graph=graph)
    alone = meets_no_other(sizes)
    sizes = in_one_row(sizes)
    line = sizes["ow"] * width
    graph.add(_by_taps, **arguments, **sizes, panels=panels, alone=int(alone), scratch=(width + 2 * line) * itemsize,
              piece=(width + line) * itemsize, is_long=int(not alone and kh * kw * filters > LONG_CHAIN))


def _geometry(sizes):
    """Return (strides, pads, dilation), with as much padding after the image as the output needs."""
    strides, dilation = (sizes["stride_h"], sizes["stride_w"]), (sizes["dilation_h"], sizes["dilation_w"])
    height = (sizes["oh"] - 1) * strides[0] + (sizes["height"] - 1) * dilation[0] + 1
    width = (sizes["ow"] - 1) * strides[1] + (sizes["width"] - 1) * dilation[1] + 1
    top, left = sizes["top"], sizes["left"]
    return strides, ((top, height - sizes["h"] - top), (left, width - sizes["w"] - left)), dilation


def has_large_kernel(shape, sizes, itemsize):
    """Return whether a kernel is too large to be fetched again for each row of such a small image.

    The products that are added up take several times as much memory as dx, at most MOST_PRODUCTS times.
    """
    pixels = sizes["oh"] * sizes["ow"]
    is_large = math.prod(shape) * itemsize >= LARGE_KERNEL and pixels <= FEW_PIXELS and sizes["groups"] == 1
    return is_large and shape[0] * shape[1] * pixels <= MOST_PRODUCTS * sizes["h"] * sizes["w"]


def by_windows(kh, kw, channels, filters, lanes):
    """Return whether the second way takes fewer instructions per pixel of dy; adding a vector takes about 6."""
    if kh * kw > LONG_CHAIN:  # too many to be added one by one
        return False
    windows = -(-kh * kw * channels // lanes) * filters + 6 * kh * -(-kw * channels // lanes)
    return windows < kh * kw * -(-channels // lanes) * (filters + 2)


@jit
def _is_done(r, run, i, last):
    return r.done != NONE and array_as(run, r.done, (last,), np.int64)[i] != 0


@stage(reads="dy panels done", writes="dx",
       sizes=f"{FIELDS} block rows padded products image image_rows image_columns")
def _by_windows(r, run, first, last):
    """Compute dx by windows, the second way."""
    channels, filters, size = r.channels // r.groups, r.filters // r.groups, r.height * r.width * r.channels // r.groups
    dx = array(run, r.dx, (last, r.h, r.w, r.channels))
    itemsize = dx.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    panel_count = (size + width - 1) // width
    panels = array(run, r.panels, (r.groups, panel_count, filters * width))
    zeros, products = scratch(run, 0, (width,)), scratch(run, r.products, (r.rows * r.ow, r.padded))
    image = scratch(run, r.image, (r.image_rows, r.image_columns, channels))
    clear(zeros)
    for part in range(first * r.groups, last * r.groups):
        i, group = part // r.groups, part % r.groups
        if _is_done(r, run, i, last):
            continue
        clear(image.reshape(-1))
        for row in range(0, r.oh, r.rows):
            rows = min(r.rows, r.oh - row)
            place = (i * r.oh + row) * r.ow * r.filters + group * filters
            for panel in range(panel_count):
                call_block(r.block, rows * r.ow, 1 if size - panel * width <= width // 2 else 2,
                           products.ctypes.data + panel * width * itemsize, r.padded, zeros.ctypes.data, 0,
                           word(run, r.dy) + place * itemsize, r.filters, 0, 1,
                           panels[group, panel].ctypes.data, 0, width, 1, filters)
            _add_windows(r, products, row, rows, image)
        _copy_middle(image, r.top, r.left, group * channels, dx[i])


@jit
def _add_windows(r, products, row, rows, image):
    """Add the products of some rows of dy, from `row` on, to an image."""
    _, columns, channels = image.shape
    itemsize, size = products.itemsize, products.shape[1]
    # Dilation separates the taps of a run.
    runs, length = (1, r.width * channels) if r.dilation_w == 1 else (r.width, channels)
    for pixel in range(r.ow):
        for ky in range(r.height):
            for k in range(runs):
                source = pixel * size + ky * r.width * channels + k * length
                y, x = row * r.stride_h + ky * r.dilation_h, pixel * r.stride_w + k * r.dilation_w
                add_runs(products[0, 0], products.ctypes.data + source * itemsize, r.ow * size, rows, length,
                         image.ctypes.data + (y * columns + x) * channels * itemsize, r.stride_h * columns * channels)


@jit
def _copy_middle(image, top, left, first_channel, dx):
    """Copy an image, without its padding, to the channels of dx from `first_channel` on."""
    h, w, image_channels = dx.shape
    channels = image.shape[2]
    for row in range(h):
        source, target = image[row + top, left : left + w].reshape(-1), dx[row].reshape(-1)
        if channels == image_channels:
            for j in range(target.size):
                target[j] = source[j]
        else:
            for j in range(w):
                for c in range(channels):
                    target[j * image_channels + first_channel + c] = source[j * channels + c]


@stage(reads="dy panels done", writes="dx", sizes=f"{FIELDS} block alone piece is_long")
def _by_taps(r, run, first, last):
    """Compute dx by taps: row h of dx gets the rows oh of dy for all ky with oh * stride + ky * dilation - top = h."""
    dx = array(run, r.dx, (last, r.h * r.w * r.channels))
    clear(scratch(run, 0, (2 * VECTOR_BYTES // dx.itemsize,)))
    for i in range(first, last):
        if _is_done(r, run, i, last):
            continue
        if not r.alone:
            clear(dx[i])
        for row in range(r.h):
            low, count = 0, 0
            for ky in range(r.height):
                reach = row + r.top - ky * r.dilation_h
                if reach % r.stride_h == 0 and 0 <= reach // r.stride_h < r.oh:
                    low, count = (ky if count == 0 else low), count + 1
            if count:
                _row_by_taps(r, run, i, row, low, count)


@jit
def _row_by_taps(r, run, i, row, first, count):
    """Add to a row of dx the contribution of `count` kernel rows, the first of which is `first`.

    They are every `step`-th ky, and their rows of dy are `back` apart. A long sum is split into pieces of about PIECE
    products, which go through a row of their own.
    """
    dx = array(run, r.dx, (i + 1, r.h * r.w * r.channels))[i]
    dy = array(run, r.dy, (i + 1, r.oh * r.ow * r.filters))[i]
    channels, filters = r.channels // r.groups, r.filters // r.groups
    itemsize = dx.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    panel_count = (channels + width - 1) // width
    panels = array(run, r.panels, (r.groups * panel_count * r.height * r.width * filters * width,))
    zeros, line = scratch(run, 0, (width,)), scratch(run, width * itemsize, (r.ow, width))
    piece = scratch(run, r.piece, (r.ow * width,))
    fresh = r.is_long or r.alone
    step = r.stride_h // _gcd(r.stride_h, r.dilation_h)
    back = step * r.dilation_h // r.stride_h
    y = (row + r.top - first * r.dilation_h) // r.stride_h
    pixel, together = r.stride_w * r.channels, max(1, PIECE // max(1, filters)) if r.is_long else count
    for part in range(r.groups * panel_count * r.width):
        group, panel, kx = part // r.width // panel_count, part // r.width % panel_count, part % r.width
        column, shift = panel * width, kx * r.dilation_w - r.left
        low = max(0, -(shift // r.stride_w))
        high = min(r.ow, (r.w - 1 - shift) // r.stride_w + 1)
        if high <= low:
            continue
        columns = min(width, channels - column)
        target = (row * r.w + low * r.stride_w + shift) * r.channels + group * channels + column
        for k in range(0, count, together):
            place = ((y - k * back) * r.ow + low) * r.filters + group * filters
            tap = ((group * panel_count + panel) * r.height + first + k * step) * r.width + kx
            product_block(
                r.block, high - low, columns,
                piece if r.is_long else dx, 0 if r.is_long else target, width if r.is_long else pixel,
                zeros if fresh else dx, 0 if fresh else target, 0 if fresh else pixel,
                dy, place, r.filters, -back * r.ow * r.filters, 1, panels, tap * filters * width,
                step * r.width * filters * width, width, min(together, count - k), filters, line)
            for j in range(high - low if r.is_long else 0):
                for channel in range(columns):
                    dx[target + j * pixel + channel] += piece[j * width + channel]


@jit
def _gcd(a, b):
    while b:
        a, b = b, a % b
    return a
