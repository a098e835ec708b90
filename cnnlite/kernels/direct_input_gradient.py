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
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.direct import is_product
from cnnlite.kernels.matmul import pack_panels_of_array as pack_panels
from cnnlite.kernels.matmul import product_block
from cnnlite.kernels.microkernel import PIECE, call_block
from cnnlite.kernels.table import ADD_TO_PLANES, BY_PLANES, BY_TAPS, MERGE_PLANES, call
from cnnlite.kernels.vector_ir import add_taps, transpose_panels

PLANE_PIXELS = 256  # so many pixels of dy, in whole rows, are multiplied at a time: their products stay in the cache
LONG_CHAIN = 4096  # products that may be added one by one in float32: to cut shorter sums would take a fifth longer


def input_gradient_weights(kernel, geometry):
    """Return the weights as `direct_input_gradient` wants them, flat; geometry is that of `conv_block`."""
    kh, kw, channels, filters = kernel.shape
    group_filters = filters // geometry.groups
    if in_planes(kh * kw, channels, group_filters, VECTOR_BYTES // kernel.itemsize):
        return kernel.reshape(-1)
    # In panels, with c and f exchanged: column c of row (tap, f).
    return pack_panels(kernel, group_filters, channels, 1, filters, geometry.groups, group_filters, kh * kw,
                       channels * filters).reshape(-1)


@compiled
def in_planes(taps, channels, filters, lanes):
    """Return whether the second way takes fewer instructions for a pixel.

    A vector of products takes about 3 more to be added to its plane, turning a vector of dy takes about 6, and
    each number of dx about 2 to be copied from its plane.
    """
    planes = taps * channels * (filters + 3) + 6 * filters + 2 * channels * lanes
    if taps > LONG_CHAIN:  # which are added to a plane one by one
        return False
    return planes < taps * ((channels + lanes - 1) // lanes) * filters * lanes


@compiled
def direct_input_gradient(kernels, dy, weights, window, groups, dx):
    """dx[h, w, c] = sum of dy[oh, ow, f] * kernel[ky, kx, c, f] over all that x[h, w, c] went into.

    weights: as of `input_gradient_weights`.
    """
    lanes = VECTOR_BYTES // dy.itemsize
    if in_planes(window.height * window.width, dx.shape[3] // groups, dy.shape[3] // groups, lanes):
        call(kernels, BY_PLANES, (kernels, dy, weights, window, groups, dx))
    else:
        call(kernels, BY_TAPS, (kernels, dy, weights, window, groups, dx))


@compiled
def by_planes(kernels, dy, kernel, window, groups, dx):
    """The second way; kernel is flat."""
    _, oh, ow, filters = dy.shape
    channels, group_filters = dx.shape[3] // groups, filters // groups
    kh, kw, step_h, step_w = window.height, window.width, window.stride_h, window.stride_w
    itemsize = dy.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    rows = min(oh, (PLANE_PIXELS + ow - 1) // ow)
    padded = (rows * ow + width - 1) // width * width
    turned, zeros = np.empty(padded * group_filters + width * width // 2, dy.dtype), np.zeros(width, dy.dtype)
    products = np.empty((kh * kw * channels, padded), dy.dtype)
    planes = np.empty((step_h, step_w, channels, oh + (kh - 1) * window.dilation_h // step_h,
                       ow + (kw - 1) * window.dilation_w // step_w), dy.dtype)
    for i in range(len(dy)):
        for group in range(groups):
            planes.reshape(-1)[:] = 0
            for first in range(0, oh, rows):
                last = min(oh, first + rows)
                pixels = (last - first) * ow
                place = (i * oh + first) * ow * filters + group * group_filters
                transpose_panels(zeros[0], dy.ctypes.data + place * itemsize, filters, pixels, group_filters,
                                 turned.ctypes.data)
                for column in range(0, pixels, width):
                    call_block(kernels[1], len(products), 1 if pixels - column <= width // 2 else 2,
                               products.ctypes.data + column * itemsize, padded, zeros.ctypes.data, 0,
                               kernel.ctypes.data + group * group_filters * itemsize, filters, 0, 1,
                               turned.ctypes.data + column * group_filters * itemsize, 0, width, 1, group_filters)
                call(kernels, ADD_TO_PLANES, (products, window, first, last, ow, planes))
            call(kernels, MERGE_PLANES, (planes, window, group * channels, dx[i]))


@compiled
def add_to_planes(products, window, first, last, ow, planes):
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
                             every_h * window.width * channels * padded - move_h * ow, every_w * channels * padded,
                             left, move_w, ow, high - low, taps_w,
                             planes.ctypes.data + ((plane + c) * height + y) * columns * itemsize, columns)


@compiled
def merge_planes(planes, window, first_channel, dx):
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


@compiled
def by_taps(kernels, dy, panels, window, groups, dx):
    """The first way. A long sum goes by PIECE numbers or so through a row of its own.

    Row h of dx gets rows oh of dy for all ky with oh * stride + ky * dilation - top = h. They are every `step`-th ky,
    and `back` rows of dy lie between one and the next.
    """
    n, h, w, c = dx.shape
    _, oh, ow, filters = dy.shape
    # With 1x1 taps an image is one row, and there is nothing to add up.
    alone = is_product(window, h, w, oh, ow)
    if alone:
        h, w, oh, ow = 1, h * w, 1, oh * ow
    kh, kw = window.height, window.width
    channels, group_filters = c // groups, filters // groups
    width = 2 * VECTOR_BYTES // dy.itemsize
    panel_count = (channels + width - 1) // width
    scratch, zeros = np.empty((ow, width), dy.dtype), np.zeros(width, dy.dtype)
    flat_dx, flat_dy = dx.reshape(-1), dy.reshape(-1)
    is_long = not alone and kh * kw * group_filters > LONG_CHAIN
    piece = np.empty(ow * width if is_long else 0, dy.dtype)
    step = window.stride_h // _gcd(window.stride_h, window.dilation_h)
    back = step * window.dilation_h // window.stride_h
    for i in range(n):
        if not alone:
            dx[i] = 0
        for row in range(h):
            first, count = 0, 0
            for ky in range(kh):
                reach = row + window.top - ky * window.dilation_h
                if reach % window.stride_h == 0 and 0 <= reach // window.stride_h < oh:
                    first, count = (ky if count == 0 else first), count + 1
            if count == 0:
                continue
            y = (row + window.top - first * window.dilation_h) // window.stride_h
            for group in range(groups):
                for panel in range(panel_count):
                    column = panel * width
                    for kx in range(kw):
                        shift = kx * window.dilation_w - window.left
                        low = max(0, -(shift // window.stride_w))
                        high = min(ow, (w - 1 - shift) // window.stride_w + 1)
                        if high <= low:
                            continue
                        pixel, columns = window.stride_w * c, min(width, channels - column)
                        target = ((i * h + row) * w + low * window.stride_w + shift) * c + group * channels + column
                        together = max(1, PIECE // group_filters) if is_long else count
                        for k in range(0, count, together):
                            some = min(together, count - k)
                            place = ((i * oh + y - k * back) * ow + low) * filters + group * group_filters
                            tap = ((group * panel_count + panel) * kh + first + k * step) * kw + kx
                            product_block(
                                kernels[1], high - low, columns,
                                piece if is_long else flat_dx, 0 if is_long else target, width if is_long else pixel,
                                zeros if is_long or alone else flat_dx, 0 if is_long or alone else target,
                                0 if is_long or alone else pixel,
                                flat_dy, place, filters, -back * ow * filters, 1,
                                panels, tap * group_filters * width,
                                step * kw * group_filters * width, width, some, group_filters, scratch)
                            for j in range(high - low if is_long else 0):
                                for channel in range(columns):
                                    flat_dx[target + j * pixel + channel] += piece[j * width + channel]


@compiled
def _gcd(a, b):
    while b:
        a, b = b, a % b
    return a
