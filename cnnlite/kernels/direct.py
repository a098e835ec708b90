"""Convolution without the im2col matrix ("implicit im2col"): the micro-kernel reads its rows from the image.

With channels last, the window of an output pixel is KH runs of KW * C numbers that lie side by side in the
image, and the windows of the next pixel start `stride * C` further on:

    y[oh, ow, f] = bias[f] + sum over ky, (kx, c) of  x[oh*s + ky, ow*s + kx, c] * kernel[ky, kx, c, f]
          ^                                               ^          ^
    row i of a tile                                       k1         k0

Pixels are the rows of a tile, and ky and (kx, c) its two sums: for the micro-kernel each is a distance in the image.
The two gradients are the same product with the roles exchanged:

| | rows i of a tile | columns j | k1 | k0 |
|---|---|---|---|---|
| forward | pixels ow of an output row | f | ky | (kx, c) |
| gradient of the kernel | (kx, c) | f | rows oh | pixels ow of a row |
| gradient of the input | pixels ow of a row of dy | c | ky | f |

The last one takes a kx at a time and adds, since pixel ow of dy went into pixel ow*s + kx of x: row i of the tile
is then a pixel of x too. So it handles each product of dy and the kernel once, and no padding at all.

Only where the runs are broken does an image go through a scratch copy first: for padding a copy with zeros round it;
for a dilation one with the taps of each window row side by side (im2col along the width alone); for groups one of
the channels of a single group.

The kernel is cut into panels, each of which holds the weights of as many filters as fill two vectors: panel p is
the (KH * KW * C / groups, width) columns from p * width on. One call of the micro-kernel makes a row of output pixels
for one panel of filters. Where the last panel is not full, it is filled up with zeros.

All functions here are serial and take some images x (n, H, W, C), y or dy (n, OH, OW, F) and a `Window`; `conv2d.py`
hands them to the threads.
"""

import numpy as np

from cnnlite.kernels._jit import kernel as compiled
from cnnlite.kernels.matmul import product_block
from cnnlite.kernels.microkernel import VECTOR_BYTES, call_block


@compiled
def sticks_out(x, window, y):
    """Return whether a window of the images x reaches into padding, given an output of the size of y."""
    height = (y.shape[1] - 1) * window.stride_h - window.top + (window.height - 1) * window.dilation_h + 1
    width = (y.shape[2] - 1) * window.stride_w - window.left + (window.width - 1) * window.dilation_w + 1
    return window.top > 0 or window.left > 0 or height > x.shape[1] or width > x.shape[2]


@compiled
def direct_images(block, x, panels, start, window, groups, y):
    """y = x * kernel + start. Panels are those of the kernel by group; start is the bias, filled up like them.

    For each image, group and panel, each row of pixels is one product (OW, K) @ (K, width). Its left factor starts
    at `place` in `source`, the image or its copy, in which `pixel` lies between the windows of neighbours and
    `line` between two rows.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = y.shape
    kh, kw = window.height, window.width
    channels, group_filters = c // groups, filters // groups
    k = kh * kw * channels
    width = 2 * VECTOR_BYTES // y.itemsize
    panel_count = (group_filters + width - 1) // width
    scratch = np.empty((ow, width), y.dtype)
    flat_y = y.reshape(-1)
    unrolls = window.dilation_w > 1
    copies = unrolls or groups > 1 or sticks_out(x, window, y)
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    columns = ow * kw if unrolls else (ow - 1) * window.stride_w + kw
    image = np.empty((height, columns, channels) if copies else (0, 0, 0), y.dtype)
    for i in range(n):
        for group in range(groups):
            if copies:
                if unrolls:
                    _unroll_taps(x[i], group * channels, window, image)
                else:
                    copy_window(x[i], group * channels, -window.top, window.left, image)
                source, place, line = image.reshape(-1), 0, columns * channels
                pixel = kw * channels if unrolls else window.stride_w * channels
            else:
                source, place, line = x.reshape(-1), i * h * w * c, w * c
                pixel = window.stride_w * c
            for panel in range(panel_count):
                column = panel * width
                for row in range(oh):
                    # Rows of the kernel that lie wholly on padding are left out.
                    above = row * window.stride_h - window.top
                    low = max(0, -(above // window.dilation_h))
                    high = max(low, min(kh, (h - 1 - above) // window.dilation_h + 1))
                    product_block(
                        block, ow, min(width, group_filters - column),
                        flat_y, ((i * oh + row) * ow) * filters + group * group_filters + column, filters,
                        start, (group * panel_count + panel) * width, 0,
                        source, place + (row * window.stride_h + low * window.dilation_h) * line, pixel,
                        window.dilation_h * line, 1,
                        panels, ((group * panel_count + panel) * k + low * kw * channels) * width,
                        kw * channels * width, width, high - low, kw * channels, scratch)


@compiled
def copy_window(image, first_channel, top, left, out):
    """Copy some channels of the rows from `top` on, with zeros where the window sticks out of the image."""
    h, w, image_channels = image.shape
    height, columns, channels = out.shape
    begin = min(columns, max(0, left))
    end = max(begin, min(columns, w + left))
    for i in range(height):
        y, target = top + i, out[i].reshape(-1)
        if y < 0 or y >= h:
            target[:] = 0
            continue
        target[: begin * channels] = 0
        target[end * channels :] = 0
        source = image[y].reshape(-1)
        if channels == image_channels:
            # One loop over the whole line and not one a pixel, which matters for images with 1 or 3 channels.
            place = (begin - left) * channels
            for k in range((end - begin) * channels):
                target[begin * channels + k] = source[place + k]
        else:
            for j in range(begin, end):
                place = (j - left) * image_channels + first_channel
                for c in range(channels):
                    target[j * channels + c] = source[place + c]


@compiled
def _unroll_taps(image, first_channel, window, out):
    """Copy rows like `copy_window`, but for each output pixel its taps side by side, which a dilation has parted."""
    h, w, _ = image.shape
    height, columns, channels = out.shape
    taps = window.width
    for i in range(height):
        y = i - window.top
        for j in range(columns):
            x = j // taps * window.stride_w + j % taps * window.dilation_w - window.left
            target = out[i, j]
            if 0 <= y < h and 0 <= x < w:
                source = image[y, x]
                for c in range(channels):
                    target[c] = source[first_channel + c]
            else:
                for c in range(channels):
                    target[c] = 0
