"""The gradient of the input by the direct way: what each pixel of dy gives back to its window.

Pixel (oh, ow) of dy went into the window of x that begins at (oh*s - top, ow*s - left), and gives each number of it

    cols[oh, ow, (ky, kx, c)] = sum over f of  dy[oh, ow, f] * kernel[ky, kx, c, f]

dx is the sum of these windows where they overlap. There are two ways to get it:

1. A tap at a time: for one kx, row i of a tile is pixel ow of dy, and pixel ow*s + kx of dx, where it is added. So
   each tile is a part of dx itself, and there is no padding; but its columns are the channels of one tap, and 1 or 3
   channels fill a vector of 16 badly.
2. All taps at once, where channels are few: then the columns are all (ky, kx, c), of which 25 come even from one channel
   and a 5x5 kernel. The rows of cols go to a scratch copy, and from there are added to the image: KH runs of KW * C
   numbers, which lie side by side in both.
"""

import numpy as np

from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.direct import copy_window
from cnnlite.kernels.matmul import pack_panels, product_block
from cnnlite.kernels.microkernel import VECTOR_BYTES, call_block
from cnnlite.kernels.vector_ir import add_runs

COLS_PIXELS = 64  # pixels of dy whose cols are computed at a time, so that they are still in the cache when added


def input_gradient_panels(kernel, geometry):
    """Return the panels of weights for `direct_input_gradient`, flat; geometry is that of `conv_block`."""
    kh, kw, channels, filters = kernel.shape
    groups = geometry.groups
    group_filters = filters // groups
    lanes = VECTOR_BYTES // kernel.itemsize
    if all_taps_at_once(kh, kw, channels, filters, geometry.dilation[1], groups, lanes):
        return pack_panels(kernel, filters, kh * kw * channels, 1, filters).reshape(-1)
    # The weights of a tap, with c and f exchanged: column c of row (tap, f).
    return pack_panels(kernel, group_filters, channels, 1, filters, groups, group_filters, kh * kw,
                       channels * filters).reshape(-1)


@compiled
def all_taps_at_once(kh, kw, channels, filters, dilation_w, groups, lanes):
    """Return whether to compute all columns (ky, kx, c) of a pixel together: where that saves vector instructions.

    Adding a vector of cols to the image takes about as long as 4 multiply-adds.
    """
    if groups > 1 or (dilation_w > 1 and kw > 1):
        return False
    together = (kh * kw * channels + lanes - 1) // lanes * filters + 4 * kh * ((kw * channels + lanes - 1) // lanes)
    apart = kh * kw * ((channels + lanes - 1) // lanes) * filters
    return together < apart


@compiled
def direct_input_gradient(block, dy, panels, window, groups, dx):
    """dx[h, w, c] = sum of dy[oh, ow, f] * kernel[ky, kx, c, f] over all that x[h, w, c] went into.

    Panels are those of `input_gradient_panels`.
    """
    lanes = VECTOR_BYTES // dy.itemsize
    if all_taps_at_once(window.height, window.width, dx.shape[3], dy.shape[3], window.dilation_w, groups, lanes):
        _add_windows(block, dy, panels, window, dx)
    else:
        _add_taps(block, dy, panels, window, groups, dx)


@compiled
def _add_windows(block, dy, panels, window, dx):
    """The second way: windows of KH runs of KW * C numbers are added to an image with all its padding."""
    _, oh, ow, filters = dy.shape
    channels, itemsize = dx.shape[3], dy.itemsize
    width = 2 * VECTOR_BYTES // itemsize
    run = window.width * channels
    columns = window.height * run
    padded = (columns + width - 1) // width * width
    rows = min(oh, (COLS_PIXELS + ow - 1) // ow)
    cols, zeros = np.empty(rows * ow * padded, dy.dtype), np.zeros(width, dy.dtype)
    image = np.empty(((oh - 1) * window.stride_h + (window.height - 1) * window.dilation_h + 1,
                      (ow - 1) * window.stride_w + window.width, channels), dy.dtype)
    line = image.shape[1] * channels
    for i in range(len(dy)):
        image[:] = 0
        for first in range(0, oh, rows):
            last = min(oh, first + rows)
            for column in range(0, columns, width):
                call_block(block, (last - first) * ow, 1 if columns - column <= width // 2 else 2,
                           cols.ctypes.data + column * itemsize, padded, zeros.ctypes.data, 0,
                           dy.ctypes.data + (i * oh + first) * ow * filters * itemsize, filters, 0, 1,
                           panels.ctypes.data + column * filters * itemsize, 0, width, 1, filters)
            for row in range(first, last):
                add_runs(cols[0], cols.ctypes.data + (row - first) * ow * padded * itemsize, padded, run,
                         run, window.height, ow, image.ctypes.data + row * window.stride_h * line * itemsize,
                         window.stride_w * channels, window.dilation_h * line)
        copy_window(image, 0, window.top, -window.left, dx[i])


@compiled
def _add_taps(block, dy, panels, window, groups, dx):
    """The first way.

    Row h of dx gets rows oh of dy for all ky with oh * stride + ky * dilation - top = h. They are every `step`-th ky,
    and `back` rows of dy lie between one and the next.
    """
    n, h, w, c = dx.shape
    _, oh, ow, filters = dy.shape
    kh, kw = window.height, window.width
    channels, group_filters = c // groups, filters // groups
    width = 2 * VECTOR_BYTES // dy.itemsize
    panel_count = (channels + width - 1) // width
    scratch = np.empty((ow, width), dy.dtype)
    flat_dx, flat_dy = dx.reshape(-1), dy.reshape(-1)
    step = window.stride_h // _gcd(window.stride_h, window.dilation_h)
    back = step * window.dilation_h // window.stride_h
    for i in range(n):
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
                        target = ((i * h + row) * w + low * window.stride_w + shift) * c + group * channels + column
                        product_block(
                            block, high - low, min(width, channels - column),
                            flat_dx, target, window.stride_w * c, flat_dx, target, window.stride_w * c,
                            flat_dy, ((i * oh + y) * ow + low) * filters + group * group_filters, filters,
                            -back * ow * filters, 1,
                            panels, (((group * panel_count + panel) * kh + first) * kw + kx) * group_filters * width,
                            step * kw * group_filters * width, width, count, group_filters, scratch)


@compiled
def _gcd(a, b):
    while b:
        a, b = b, a % b
    return a
