"""The gradient of the input by the direct way: what each pixel of dy gives back to its window.

Pixel (oh, ow) of dy went into the window of x that begins at (oh*s - top, ow*s - left), and gives each number of it

    product[ky, kx, c] = sum over f of  kernel[ky, kx, c, f] * dy[oh, ow, f]

dx is the sum of these windows where they overlap. There are two ways to get it:

1. By taps. For one kx, row i of a tile is pixel ow of dy, and pixel ow*s + kx of dx, where it is added. Each tile is a
   part of dx itself, and there is no padding. The columns are the channels, of which 1 or 3 fill a vector of 16 badly.
2. By planes, where channels are few or don't fill vectors. Then the pixels of dy are the columns of a tile, and
   (ky, kx, c) its rows. Each row of the product is an image of its own for one tap and one channel, moved by ky and kx:

                  pixels (oh, ow)                        c = 0              the plane of a channel
                dy, turned: (F, OH * OW)                ┌────────┐
                                                       ┌┼───────┐│  OH x OW, moved by one row and column
    kernel ->   (ky, kx, c) ─────────────   added to   ││       ││
                            ─────────────              ││       ├┘
                                                       └┴───────┘

   With a stride s, only every s-th pixel of dx is hit by one tap: there is a plane for each of the s * s remainders.
   (128, 28, 28, 1) and 32 filters of 3x3: 8.7 ms the first way, 1.4 the second.
"""

import numpy as np

from cnnlite.engine.jit import kernel as compiled
from cnnlite.engine.stages import NONE, array, array_as, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.geometry import FIELDS, in_one_row, meets_no_other, window_in
from cnnlite.kernels.kernel_sums import clear
from cnnlite.kernels.matmul import product_block
from cnnlite.kernels.microkernel import PIECE, block_address, call_block
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.panels import pack_panels
from cnnlite.kernels.rows import add_taps, transpose_panels

PLANE_PIXELS = 256  # so many pixels of dy, in whole rows, are multiplied at a time: their products stay in the cache
LONG_CHAIN = 4096  # products that may be added one by one in float32: to cut shorter sums would take a fifth longer
TOGETHER = 1 << 14  # so many numbers of dy, or the next whole image, are taken at a time


def add_direct_input_gradient(dy, kernel, dx, sizes, done=None):
    """Add the stages that write the gradient of the input to dx.

    Args:
        sizes: the FIELDS of the convolution.
        done: a buffer (N,) in int64; samples where it isn't 0 are left as they are.
    """
    graph, itemsize = graph_of(dy, dx), dy.itemsize
    kh, kw, channels, _ = kernel.shape
    groups, oh, ow = sizes["groups"], sizes["oh"], sizes["ow"]
    filters, width = sizes["filters"] // groups, 2 * VECTOR_BYTES // itemsize
    arguments = dict(dy=dy, dx=dx, done=done, block=block_address(dy.dtype), work=2.0 * oh * ow * filters
                     * groups * kh * kw * channels, together=max(1, -(-TOGETHER // max(1, oh * ow * filters * groups))))
    if in_planes(kh * kw, channels, filters, width // 2):
        rows = min(oh, -(-PLANE_PIXELS // max(1, ow)))
        padded = -(-rows * ow // width) * width
        height = oh + (kh - 1) * sizes["dilation_h"] // sizes["stride_h"]
        columns = ow + (kw - 1) * sizes["dilation_w"] // sizes["stride_w"]
        numbers = [width, padded * filters + width * width // 2, kh * kw * channels * padded,
                   sizes["stride_h"] * sizes["stride_w"] * channels * height * columns]
        turned, products, planes, end = (sum(numbers[:k]) * itemsize for k in range(1, 5))
        graph.add(_by_planes, **arguments, **sizes, kernel=kernel, rows=rows, padded=padded, turned=turned,
                  products=products, planes=planes, plane_rows=height, plane_columns=columns, scratch=end)
        return
    # In panels, with c and f exchanged: column c of row (tap, f).
    panels = pack_panels(kernel, filters, channels, 1, filters * groups, groups, filters, kh * kw,
                         channels * filters * groups, graph=graph)
    alone = meets_no_other(sizes)
    sizes = in_one_row(sizes)
    line = sizes["ow"] * width
    graph.add(_by_taps, **arguments, **sizes, panels=panels, alone=int(alone), scratch=(width + 2 * line) * itemsize,
              piece=(width + line) * itemsize, is_long=int(not alone and kh * kw * filters > LONG_CHAIN))


def in_planes(taps, channels, filters, lanes):
    """Return whether the second way takes fewer instructions for a pixel.

    A vector of products takes about 3 more to be added to its plane, turning a vector of dy takes about 6, and
    each number of dx about 2 to be copied from its plane.
    """
    planes = taps * channels * (filters + 3) + 6 * filters + 2 * channels * lanes
    if taps > LONG_CHAIN:  # which are added to a plane one by one
        return False
    return planes < taps * -(-channels // lanes) * filters * lanes


@compiled
def _is_done(r, run, i, last):
    return r.done != NONE and array_as(run, r.done, (last,), np.int64)[i] != 0


@stage(reads="dy kernel done", writes="dx",
       sizes=f"{FIELDS} block rows padded turned products planes plane_rows plane_columns")
def _by_planes(r, run, first, last):
    """The second way."""
    window, ow, filters = window_in(r), r.ow, r.filters
    channels, group_filters, taps = r.channels // r.groups, filters // r.groups, r.height * r.width
    dx = array(run, r.dx, (last, r.h, r.w, r.channels))
    itemsize = dx.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    zeros, turned = scratch(run, 0, (width,)), scratch(run, r.turned, (r.padded * group_filters,))
    products = scratch(run, r.products, (taps * channels, r.padded))
    planes = scratch(run, r.planes, (r.stride_h, r.stride_w, channels, r.plane_rows, r.plane_columns))
    clear(zeros)
    for part in range(first * r.groups, last * r.groups):
        i, group = part // r.groups, part % r.groups
        if _is_done(r, run, i, last):
            continue
        clear(scratch(run, r.planes, (planes.size,)))
        for begin in range(0, r.oh, max(1, r.rows)):
            end = min(r.oh, begin + r.rows)
            pixels = (end - begin) * ow
            place = (i * r.oh + begin) * ow * filters + group * group_filters
            transpose_panels(zeros[0], word(run, r.dy) + place * itemsize, filters, pixels, group_filters,
                             turned.ctypes.data)
            for column in range(0, pixels, width):
                call_block(r.block, len(products), 1 if pixels - column <= width // 2 else 2,
                           products.ctypes.data + column * itemsize, r.padded, zeros.ctypes.data, 0,
                           word(run, r.kernel) + group * group_filters * itemsize, filters, 0, 1,
                           turned.ctypes.data + column * group_filters * itemsize, 0, width, 1, group_filters)
            _add_to_planes(products, window, begin, end, ow, planes)
        _merge_planes(planes, window, group * channels, dx[i])


@compiled
def _add_to_planes(products, window, first, last, ow, planes):
    """Add the products of the rows first <= oh < last of dy.

    Every `every`-th tap from ky0 on goes to the same planes, and from one to the next the image moves by `move` pixels.
    """
    _, padded = products.shape
    _, _, channels, height, columns = planes.shape
    itemsize = products.itemsize
    every_h = window.stride_h // _gcd(window.stride_h, window.dilation_h)
    every_w = window.stride_w // _gcd(window.stride_w, window.dilation_w)
    move_h = every_h * window.dilation_h // window.stride_h
    move_w = every_w * window.dilation_w // window.stride_w
    for ky0 in range(min(every_h, window.height)):
        top, taps_h = ky0 * window.dilation_h // window.stride_h, (window.height - ky0 + every_h - 1) // every_h
        for kx0 in range(min(every_w, window.width)):
            left, taps_w = kx0 * window.dilation_w // window.stride_w, (window.width - kx0 + every_w - 1) // every_w
            plane = (ky0 * window.dilation_h % window.stride_h * window.stride_w
                     + kx0 * window.dilation_w % window.stride_w) * channels
            for y in range(first + top, last + top + (taps_h - 1) * move_h):
                # Tap k of these reaches row y from row y - top - k * move_h of dy.
                low = max(0, (y - top - last) // move_h + 1)
                high = min(taps_h, (y - top - first) // move_h + 1)
                tap = (ky0 + low * every_h) * window.width + kx0
                place = tap * channels * padded + (y - top - low * move_h - first) * ow
                for c in range(channels):
                    add_taps(products[0, 0], products.ctypes.data + (place + c * padded) * itemsize,
                             (high - low, taps_w),
                             (every_h * window.width * channels * padded - move_h * ow, every_w * channels * padded),
                             (left, move_w), ow,
                             planes.ctypes.data + ((plane + c) * height + y) * columns * itemsize, columns)


@compiled
def _merge_planes(planes, window, first_channel, dx):
    """Write the channels of a group: pixel (h, w) of dx is pixel (h + top, w + left) of the planes together."""
    h, w, image_channels = dx.shape
    step_h, step_w, channels, height, columns = planes.shape
    source, distance = planes.reshape(-1), height * columns
    for row in range(h):
        y, target = row + window.top, dx[row].reshape(-1)
        for x in range(min(step_w, w)):
            # Every step_w-th pixel from x on comes from one row of one plane for each channel.
            begin, pixels = (x + window.left) // step_w, (w - x + step_w - 1) // step_w
            inside = min(pixels, max(0, columns - begin)) if y // step_h < height else 0
            plane = (y % step_h * step_w + (x + window.left) % step_w) * channels
            place = plane * distance + y // step_h * columns + begin
            for c in range(channels):
                column = x * image_channels + first_channel + c
                for j in range(inside):
                    target[column + j * step_w * image_channels] = source[place + c * distance + j]
                for j in range(inside, pixels):
                    target[column + j * step_w * image_channels] = 0


@stage(reads="dy panels done", writes="dx", sizes=f"{FIELDS} block alone piece is_long")
def _by_taps(r, run, first, last):
    """The first way. Row h of dx gets rows oh of dy for all ky with oh * stride + ky * dilation - top = h."""
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


@compiled
def _row_by_taps(r, run, i, row, first, count):
    """Add to a row of dx what `count` rows of taps give, of which the first is `first`.

    They are every `step`-th ky, and `back` rows of dy lie between one and the next. A long sum goes by PIECE numbers
    or so through a row of its own.
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


@compiled
def _gcd(a, b):
    while b:
        a, b = b, a % b
    return a
