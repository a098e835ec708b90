"""The gradient of the kernel by the direct way: sums over all pixels, in the registers of a tile.

    dkernel[ky, kx, c, f] = sum over the images, oh and ow of  x[oh*s + ky*d, ow*s + kx*d, c] * dy[oh, ow, f]

The rows of a tile, (kx, c), lie side by side in the image, unless a dilation or groups part the kx.
Where there are too few filters for a vector, the roles are exchanged: then f are the rows, and the (kx, c) the columns,
of which even 3 channels and a kernel of width 7 fill a vector. (1024, 12, 12, 32) and one filter of 5x5 with stride 2:
2.6 ms instead of 10. Where these are too few as well, p neighbouring pixels of dy become one with p * F filters:

    wide[ky, t, c, (q, f)] = sum of  x[oh*s + ky*d, ow*p*s + t, c] * dy[oh, ow*p + q, f]      t < KW + (p - 1) * s

of which dkernel[ky, kx, c, f] is the sum over q of wide[ky, kx + q*s, c, (q, f)]. The rest is of no use.
"""

import numpy as np

from cnnlite.engine.jit import kernel as compiled
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.direct import is_product, pixels_together, sticks_out
from cnnlite.kernels.microkernel import call_block
from cnnlite.kernels.table import ADD_IMAGES, ADD_TURNED, COPY_WINDOW, call
from cnnlite.kernels.winograd import moderate


@compiled
def direct_kernel_gradient(kernels, x, dy, window, groups, sums):
    """Add to sums (KH, groups, KW * C / groups, padded F / groups) the gradient that these images give.

    Columns behind the last filter of a group get numbers of no use.
    """
    n, h, w, c = x.shape
    _, oh, ow, filters = dy.shape
    kh, _, run, _ = sums.shape
    kw = window.width
    lanes = VECTOR_BYTES // dy.itemsize
    if is_product(window, h, w, oh, ow):
        # All images are one row.
        x, dy, oh, ow = x.reshape(1, 1, n * h * w, c), dy.reshape(1, 1, n * h * w, filters), 1, n * h * w
    plain = groups == 1 and window.dilation_w == 1
    if plain and 2 * filters <= lanes <= run:
        call(kernels, ADD_TURNED, (kernels, x, dy, window, sums))
        return
    pixels = pixels_together(filters, kw, window.stride_w, ow, lanes) if plain else 1
    if ow % pixels and not moderate(x):
        # The pixels of dy that fill up a row are 0, but would meet pixels of x that no other window has.
        pixels = 1
    if pixels == 1:
        call(kernels, ADD_IMAGES, (kernels, x, dy, window, groups, 1, sums))
        return
    wide = np.zeros((kh, 1, (kw + (pixels - 1) * window.stride_w) * c, 2 * lanes), sums.dtype)
    call(kernels, ADD_IMAGES, (kernels, x, dy, window, groups, pixels, wide))
    for ky in range(kh):
        for q in range(pixels):
            first = q * window.stride_w * c
            for i in range(run):
                for f in range(filters):
                    sums[ky, 0, i, f] += wide[ky, 0, first + i, q * filters + f]


@compiled
def add_turned(kernels, x, dy, window, sums):
    """Add what the images give to sums, with f as rows and (kx, c) as columns of a tile.

    Whole vectors of the image are read: what they hold beyond a window goes to columns of no use.
    """
    _, h, w, c = x.shape
    _, oh, ow, filters = dy.shape
    kh, _, run, _ = sums.shape
    itemsize = dy.itemsize
    lanes = VECTOR_BYTES // itemsize
    height = (oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1
    width = (ow - 1) * window.stride_w + window.width
    pads = sticks_out(h, w, window, oh, ow)
    numbers = height * width * c if pads else h * w * c
    line = width * c if pads else w * c
    buffer = np.zeros(numbers + 2 * lanes, x.dtype)
    padded = (run + 2 * lanes - 1) // (2 * lanes) * 2 * lanes
    turned = np.zeros((kh, filters, padded), x.dtype)
    for i in range(len(x)):
        source = x[i].ctypes.data
        if pads:
            image = buffer[:numbers].reshape(height, width, c)
            call(kernels, COPY_WINDOW, (x[i], 0, -window.top, window.left, image))
            source = buffer.ctypes.data
        elif (len(x) - 1 - i) * numbers < 2 * lanes:
            given = x[i].reshape(-1)
            for j in range(numbers):
                buffer[j] = given[j]
            source = buffer.ctypes.data
        for ky in range(kh):
            for column in range(0, run, 2 * lanes):
                s = turned.ctypes.data + (ky * filters * padded + column) * itemsize
                call_block(kernels[1], filters, 1 if run - column <= lanes else 2, s, padded, s, padded,
                           dy[i].ctypes.data, 1, ow * filters, filters,
                           source + (ky * window.dilation_h * line + column) * itemsize, window.stride_h * line,
                           window.stride_w * c, oh, ow)
    for ky in range(kh):
        for f in range(filters):
            for r in range(run):
                sums[ky, 0, r, f] += turned[ky, f, r]


@compiled
def add_images(kernels, x, dy, window, groups, pixels, sums):
    """Add what the images give to sums, with so many pixels of dy taken as one."""
    _, h, w, c = x.shape
    _, oh, ow, filters = dy.shape
    kh, _, run, padded = sums.shape
    channels = c // groups
    itemsize = dy.itemsize
    lanes = VECTOR_BYTES // itemsize
    row_pixels = (ow + pixels - 1) // pixels
    row = row_pixels * pixels * filters
    columns = filters // groups if pixels == 1 else pixels * filters
    # Only whole vectors of dy are read. Where the last one of an image would stick out of all images, a copy is read
    # instead: of the last image, or of the last few if they are smaller than a vector.
    fills = row != ow * filters
    copies = fills or columns % lanes != 0
    gradient = np.zeros(oh * row + 2 * lanes if copies else 0, dy.dtype)
    pads = pixels > 1 or sticks_out(h, w, window, oh, ow)
    width = (ow - 1) * window.stride_w + (window.width - 1) * window.dilation_w + 1
    image = np.zeros(((oh - 1) * window.stride_h + (kh - 1) * window.dilation_h + 1,
                      width + (row_pixels * pixels - ow) * window.stride_w, c) if pads else (0, 0, 0), x.dtype)
    line = image.shape[1] * c if pads else w * c
    together = window.dilation_w == 1 and groups == 1
    for i in range(len(x)):
        source, b = x[i].ctypes.data, dy[i].ctypes.data
        if pads:
            # Zeros, too, where pixels of dy were added to fill up a row: 0 * NaN would be seen.
            call(kernels, COPY_WINDOW, (x[i], 0, -window.top, window.left, image))
            image[:, width:] = 0
            source = image.ctypes.data
        if fills or (copies and (len(x) - 1 - i) * oh * ow * filters < 2 * lanes):
            given = dy[i].reshape(-1)
            for y in range(oh):
                for j in range(ow * filters):
                    gradient[y * row + j] = given[y * ow * filters + j]
            b = gradient.ctypes.data
        for group in range(groups):
            for ky in range(kh):
                for kx in range(1 if together else window.width):
                    place = ky * window.dilation_h * line + kx * window.dilation_w * c + group * channels
                    target = ((ky * groups + group) * run + kx * channels) * padded
                    for column in range(0, columns, 2 * lanes):
                        s = sums.ctypes.data + (target + column) * itemsize
                        call_block(kernels[1], run if together else channels, 1 if columns - column <= lanes else 2,
                                   s, padded, s, padded, source + place * itemsize, 1,
                                   window.stride_h * line, pixels * window.stride_w * c,
                                   b + (group * columns + column) * itemsize, row, pixels * filters, oh, row_pixels)
